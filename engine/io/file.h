/* Files, inside the engine: writing piece by piece. Reading, folders and SHA-256 sums are in syzygy.h. */
#ifndef SYZ_IO_FILE_H
#define SYZ_IO_FILE_H

#include "syzygy.h"

/* A file mapped into memory, shared by everyone who points into it. The pages are private and writable: whoever writes
 * to them changes a copy, never the file. */
typedef struct {
    int refs;
    uint8_t *bytes; /* NULL for an empty file */
    size_t size;
} syz_mapping;

syz_mapping *syz_file_map(const char *path); /* a regular file; the caller owns one reference */
void syz_mapping_release(void *mapping);     /* drops a reference; NULL is allowed */

/* A file that appears under its name only when it is complete: bytes go to a temporary file in the same folder, which
 * commit syncs to disk and renames. After a failed write, commit fails as well, and the previous file is untouched. */
typedef struct syz_file_writer syz_file_writer;

/* `reserve` bytes are allocated on the disk first, so that a full disk is found before anything is written (0: none).
 */
syz_file_writer *syz_file_begin(const char *path, uint64_t reserve);
syz_status syz_file_put(syz_file_writer *writer, const void *data, size_t size);
/* Bring everything to the disk, still under the temporary name; nothing may be put afterwards. For several files that
 * shall appear together: what can go wrong has gone wrong before the first one is committed. */
syz_status syz_file_finish(syz_file_writer *writer);
syz_status syz_file_commit(syz_file_writer *writer); /* frees the writer, also when it fails */
void syz_file_discard(syz_file_writer *writer);      /* removes the temporary file and frees; NULL is allowed */

syz_status syz_file_remove(const char *path); /* for good once it returns; a file that is not there is fine */

#endif
