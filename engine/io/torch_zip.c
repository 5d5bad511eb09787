/* A zip archive from its central directory, the end of which stands at the end of the file. Field offsets are those of
 * PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.3.16; zip64 carries sizes and offsets beyond 4 GiB. */
#include "io/torch_zip.h"

#include "core/alloc.h"
#include "core/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    END_SIZE = 22,
    LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    ROW_SIZE = 46,
    LOCAL_SIZE = 30,
    ZIP64_FIELD = 1,
    ENCRYPTED = 1,
    MAX_ENTRIES = 1 << 20,
};

#define LACKS32 0xffffffffu /* the value is in the zip64 field */

static uint64_t load(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

static bool signed_as(const uint8_t *at, const char *signature) {
    return memcmp(at, signature, 4) == 0;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t count, begin, size; /* of the central directory */
} directory;

/* The 64-bit record takes the place of the short one when a locator stands before that. */
static syz_status read_end64(directory *d, uint64_t *limit, const syz_mapping *file, const char *path) {
    const uint8_t *locator = file->bytes + *limit - LOCATOR_SIZE;
    uint64_t at = load(locator + 8, 8);
    if (load(locator + 4, 4) != 0 || *limit < LOCATOR_SIZE + END64_SIZE || at > *limit - LOCATOR_SIZE - END64_SIZE ||
        !signed_as(file->bytes + at, "PK\6\6")) {
        return syz_fail(SYZ_EFORMAT, "%s: the zip64 directory is not where its locator says", path);
    }
    const uint8_t *end = file->bytes + at;
    if (load(end + 16, 4) != 0 || load(end + 20, 4) != 0 || load(end + 24, 8) != load(end + 32, 8)) {
        return syz_fail(SYZ_EFORMAT, "%s: a zip archive in several parts is not read", path);
    }
    *d = (directory){load(end + 32, 8), load(end + 48, 8), load(end + 40, 8)};
    *limit = at;
    return SYZ_OK;
}

static syz_status find_directory(directory *d, const syz_mapping *file, const char *path) {
    *d = (directory){0};
    const uint8_t *end = file->size >= END_SIZE ? file->bytes + file->size - END_SIZE : NULL;
    if (!end || !signed_as(end, "PK\5\6") || load(end + 20, 2) != 0) {
        return syz_fail(SYZ_EFORMAT, "%s: the zip archive does not end with its directory (torn download?)", path);
    }
    uint64_t limit = file->size - END_SIZE;
    *d = (directory){load(end + 10, 2), load(end + 16, 4), load(end + 12, 4)};
    if (limit >= LOCATOR_SIZE && signed_as(end - LOCATOR_SIZE, "PK\6\7")) {
        SYZ_TRY(read_end64(d, &limit, file, path));
    } else if (load(end + 4, 2) != 0 || load(end + 6, 2) != 0 || load(end + 8, 2) != d->count) {
        return syz_fail(SYZ_EFORMAT, "%s: a zip archive in several parts is not read", path);
    }
    if (d->size > limit || d->begin != limit - d->size) {
        return syz_fail(SYZ_EFORMAT,
                        "%s: the zip directory of %" PRIu64 " bytes at %" PRIu64 " does not end where it should", path,
                        d->size, d->begin);
    }
    if (d->count <= MAX_ENTRIES && d->count <= d->size / ROW_SIZE) return SYZ_OK;
    return syz_fail(SYZ_EFORMAT, "%s: %" PRIu64 " zip entries do not fit into their directory", path, d->count);
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static syz_status refuse(const char *path, const syz_zip_entry *e, const char *why) {
    return syz_fail(SYZ_EFORMAT, "%s: entry \"%.*s\" %s", path, (int)(e->name_length < 200 ? e->name_length : 200),
                    e->name, why);
}

/* Sizes and the offset that are too large for the row stand in its zip64 field, in this order. */
static syz_status read_zip64(syz_zip_entry *e, uint64_t *packed, const uint8_t *extra, size_t length,
                             const char *path) {
    uint64_t *const wide[] = {&e->size, packed, &e->header};
    while (length >= 4) {
        uint64_t kind = load(extra, 2), size = load(extra + 2, 2);
        if (size > length - 4) break;
        const uint8_t *at = extra + 4;
        for (size_t i = 0; kind == ZIP64_FIELD && i < sizeof wide / sizeof *wide; i++) {
            if (*wide[i] != LACKS32) continue;
            if (extra + 4 + size - at < 8) return refuse(path, e, "has a short zip64 field");
            *wide[i] = load(at, 8);
            at += 8;
        }
        extra += 4 + size;
        length -= 4 + (size_t)size;
    }
    return SYZ_OK;
}

/* Where the content begins is known only from the local header, which must tell of the same entry. */
static syz_status read_local(syz_zip_entry *e, uint64_t limit, const syz_mapping *file, const char *path) {
    if (e->header > limit || limit - e->header < LOCAL_SIZE || !signed_as(file->bytes + e->header, "PK\3\4")) {
        return refuse(path, e, "has no header where the directory says");
    }
    const uint8_t *local = file->bytes + e->header;
    uint64_t name = load(local + 26, 2), room = limit - e->header - LOCAL_SIZE, before = name + load(local + 28, 2);
    if ((load(local + 8, 2) != 0) != e->compressed || name != e->name_length || before > room ||
        memcmp(local + LOCAL_SIZE, e->name, e->name_length) != 0) {
        return refuse(path, e, "has a header that differs from the directory");
    }
    if (e->size > room - before) return refuse(path, e, "runs past the directory");
    e->begin = e->header + LOCAL_SIZE + before;
    return SYZ_OK;
}

/* Read one row of the directory and move *at behind it. */
static syz_status read_row(syz_zip_entry *e, uint64_t *at, uint64_t end, const directory *d, const syz_mapping *file,
                           const char *path) {
    const uint8_t *row = file->bytes + *at;
    if (end - *at < ROW_SIZE || !signed_as(row, "PK\1\2")) {
        return syz_fail(SYZ_EFORMAT, "%s: the zip directory is damaged at byte %" PRIu64, path, *at);
    }
    uint64_t name = load(row + 28, 2), extra = load(row + 30, 2), length = ROW_SIZE + name + extra + load(row + 32, 2);
    if (length > end - *at) {
        return syz_fail(SYZ_EFORMAT, "%s: the zip directory is damaged at byte %" PRIu64, path, *at);
    }
    *e = (syz_zip_entry){.name = (const char *)row + ROW_SIZE,
                         .name_length = (size_t)name,
                         .header = load(row + 42, 4),
                         .size = load(row + 24, 4),
                         .crc = (uint32_t)load(row + 16, 4)};
    uint64_t packed = load(row + 20, 4);
    *at += length;
    if (load(row + 8, 2) & ENCRYPTED) return refuse(path, e, "is encrypted");
    e->compressed = load(row + 10, 2) != 0;
    SYZ_TRY(read_zip64(e, &packed, row + ROW_SIZE + name, (size_t)extra, path));
    if (packed != e->size && !e->compressed) return refuse(path, e, "has two sizes");
    e->size = packed;
    return read_local(e, d->begin, file, path);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    const syz_zip_entry *x = a, *y = b;
    return x->header < y->header ? -1 : x->header > y->header;
}

static int compare_names(const char *a, size_t length, const char *b, size_t other) {
    int order = memcmp(a, b, length < other ? length : other);
    return order ? order : length < other ? -1 : length > other;
}

static int by_name(const void *a, const void *b) {
    const syz_zip_entry *x = a, *y = b;
    return compare_names(x->name, x->name_length, y->name, y->name_length);
}

static syz_status read_entries(syz_zip *zip, const directory *d, const syz_mapping *file, const char *path) {
    uint64_t at = d->begin;
    for (size_t i = 0; i < zip->count; i++)
        SYZ_TRY(read_row(&zip->entries[i], &at, d->begin + d->size, d, file, path));
    if (at != d->begin + d->size) {
        return syz_fail(SYZ_EFORMAT, "%s: the zip directory holds more than its %zu entries", path, zip->count);
    }
    qsort(zip->entries, zip->count, sizeof *zip->entries, by_place);
    for (size_t i = 1; i < zip->count; i++) {
        const syz_zip_entry *before = &zip->entries[i - 1];
        if (before->begin + before->size > zip->entries[i].header)
            return refuse(path, &zip->entries[i], "overlaps the entry before it");
    }
    qsort(zip->entries, zip->count, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->count; i++)
        if (by_name(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return refuse(path, &zip->entries[i], "is there twice");
    return SYZ_OK;
}

syz_status syz_zip_open(syz_zip *zip, const syz_mapping *file, const char *path) {
    *zip = (syz_zip){0};
    directory d;
    SYZ_TRY(find_directory(&d, file, path));
    zip->entries = syz_alloc((size_t)d.count, sizeof *zip->entries);
    zip->count = (size_t)d.count;
    syz_status status = zip->entries ? read_entries(zip, &d, file, path) : syz_error_status();
    if (status != SYZ_OK) syz_zip_close(zip);
    return status;
}

void syz_zip_close(syz_zip *zip) {
    free(zip->entries);
    *zip = (syz_zip){0};
}

int64_t syz_zip_find(const syz_zip *zip, const char *name, size_t length) {
    size_t low = 0, high = zip->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const syz_zip_entry *e = &zip->entries[middle];
        int order = compare_names(e->name, e->name_length, name, length);
        if (order == 0) return (int64_t)middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}
