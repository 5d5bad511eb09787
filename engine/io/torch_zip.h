/* Zip archives as torch.save writes them: entries are stored, not compressed, so that tensors can share the mapping.
 */
#ifndef SYZ_IO_TORCH_ZIP_H
#define SYZ_IO_TORCH_ZIP_H

#include "io/file.h"

typedef struct {
    const char *name; /* in the mapping; not terminated */
    size_t name_length;
    uint64_t header;      /* offset of the local header */
    uint64_t begin, size; /* of the content as it stands in the file */
    bool compressed;
    uint32_t crc; /* CRC-32 of the content, which opening does not read */
} syz_zip_entry;

typedef struct {
    syz_zip_entry *entries; /* sorted by name */
    size_t count;
} syz_zip;

/* Checks every offset and size: entries lie inside the file, before the directory, apart from each other, under
 * distinct names. The mapping must outlive the archive. */
syz_status syz_zip_open(syz_zip *zip, const syz_mapping *file, const char *path);
void syz_zip_close(syz_zip *zip);
int64_t syz_zip_find(const syz_zip *zip, const char *name, size_t length); /* -1 if absent */

#endif
