/* Files: bounded reads, writes that are either whole or absent, folders, and SHA-256 sums. */
#ifndef SYZ_IO_FILE_H
#define SYZ_IO_FILE_H

#include "syzygy.h"

/* Read a regular file of at most `cap` bytes. *data has one zero byte after its `size` bytes; the caller frees it. */
syz_status syz_file_read(uint8_t **data, size_t *size, const char *path, size_t cap);

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
syz_status syz_file_commit(syz_file_writer *writer); /* frees the writer, also when it fails */
void syz_file_discard(syz_file_writer *writer);      /* removes the temporary file and frees; NULL is allowed */

/* begin, put, commit */
syz_status syz_file_write(const char *path, const void *data, size_t size);

/* Make a folder and its missing parents; one that exists is fine. */
syz_status syz_make_folders(const char *path);

/* Lowercase hexadecimal SHA-256 of bytes or of a whole file, with its terminating zero. */
#define SYZ_SHA256_TEXT 65
void syz_sha256(char text[SYZ_SHA256_TEXT], const void *data, size_t size);
syz_status syz_sha256_file(char text[SYZ_SHA256_TEXT], const char *path);

#endif
