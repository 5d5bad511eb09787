/* Zip archives and pickles in memory, for tests that need some which no PyTorch would write. */
#ifndef SYZ_TESTS_TORCH_ARCHIVE_H
#define SYZ_TESTS_TORCH_ARCHIVE_H

#include <stdint.h>
#include <string.h>
#include <zlib.h>

typedef struct {
    const char *name;
    const void *bytes;
    size_t size;
} archive_entry;

static inline size_t archive_put(uint8_t *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return (size_t)bytes;
}

/* What a local header (after its signature, 4 bytes) and a directory's row (after 6) have in common: 26 bytes. */
static inline size_t archive_common(uint8_t *at, const archive_entry *e) {
    memset(at, 0, 26);
    archive_put(at + 10, crc32(0, e->bytes, (uInt)e->size), 4);
    archive_put(at + 14, e->size, 4);
    archive_put(at + 18, e->size, 4);
    archive_put(at + 22, strlen(e->name), 2);
    return 26;
}

/* Writes an archive of stored entries to `out`, which must have room; returns its size. Its row number k begins at
 * rows[k], its end record 22 bytes before the end. */
static inline size_t archive_build(uint8_t *out, size_t *rows, const archive_entry *entries, int count) {
    size_t at = 0, begin, places[16];
    for (int k = 0; k < count; k++) {
        size_t name = strlen(entries[k].name);
        places[k] = at;
        at += archive_put(out + at, 0x04034b50, 4);
        at += archive_common(out + at, &entries[k]);
        memcpy(out + at, entries[k].name, name);
        at += name;
        if (entries[k].size) memcpy(out + at, entries[k].bytes, entries[k].size);
        at += entries[k].size;
    }
    begin = at;
    for (int k = 0; k < count; k++) {
        size_t name = strlen(entries[k].name);
        rows[k] = at;
        at += archive_put(out + at, 0x02014b50, 4);
        at += archive_put(out + at, 0, 2);
        at += archive_common(out + at, &entries[k]);
        memset(out + at, 0, 14);
        archive_put(out + at + 10, places[k], 4);
        at += 14;
        memcpy(out + at, entries[k].name, name);
        at += name;
    }
    memset(out + at, 0, 22);
    archive_put(out + at, 0x06054b50, 4);
    archive_put(out + at + 8, (uint64_t)count, 2);
    archive_put(out + at + 10, (uint64_t)count, 2);
    archive_put(out + at + 12, at - begin, 4);
    archive_put(out + at + 16, begin, 4);
    return at + 22;
}

/* Pieces of pickles. TENSOR is {"w": tensor} with everything that can be wrong about it given
 * as bytes; WHOLE is the tensor alone, of all six floats of storage "0". */
#define HEAD       "\x80\x02"
#define KEY        "}X\1\0\0\0w"
#define REBUILD    "ctorch._utils\n_rebuild_tensor_v2\n"
#define FLOATS     "ctorch\nFloatStorage\n"
#define TEXT(n, s) "X" n "\0\0\0" s
#define STORED     TEXT("\7", "storage")
#define HERE       TEXT("\1", "0") TEXT("\3", "cpu")
#define ID(numel)  "(" STORED FLOATS HERE numel "tQ"
#define HOOKS                                                                                                          \
    "\x89"                                                                                                             \
    "ccollections\nOrderedDict\n)R"
#define END                               "tRs."
#define TENSOR(id, offset, shape, stride) HEAD KEY REBUILD "(" id offset shape stride HOOKS END
#define WHOLE                             REBUILD "(" ID("K\6") "K\0K\6\x85K\1\x85" HOOKS "tR"

#endif
