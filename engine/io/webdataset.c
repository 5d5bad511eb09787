/* WebDataset shards: a tar file whose neighbouring members with one name up to the first dot form a sample. The file is
 * mapped and its headers are walked once, so that samples can be visited in any order; nothing is ever unpacked, and a
 * member's name is only a label.
 *
 * Understood: ustar, v7, GNU long names, pax `path` and `size`. */
#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, MAX_NAME = 4096, MAX_LABEL = 64 << 10, MAX_FILES = 256 };

typedef struct {
    char *key;
    size_t first, count; /* in the shard's files */
} group;

struct syz_webdataset {
    char *path;
    syz_mapping *file;
    syz_sample_file *files;
    group *groups;
    size_t nfiles, ngroups, file_capacity, group_capacity;
};

/* Where the walk stands, and what extension headers said about the next member. */
typedef struct {
    syz_webdataset *shard;
    uint64_t at; /* of the current header */
    char *name;  /* NULL: take it from the header */
    bool has_size;
    uint64_t size;
} walk;

static syz_status malformed(const walk *w, const char *rule) {
    return syz_fail(SYZ_EFORMAT, "%s: tar member at byte %" PRIu64 ": %s", w->shard->path, w->at, rule);
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

/* Octal digits up to a space or zero, or base 256 when the top bit is set (GNU). */
static bool parse_number(uint64_t *value, const uint8_t *field, size_t size) {
    *value = 0;
    if (field[0] & 0x80) {
        for (size_t i = 0; i < size; i++) {
            if (*value >> 55) return false; /* also refuses negative numbers */
            *value = *value << 8 | (i == 0 ? field[0] & 0x7f : field[i]);
        }
        return true;
    }
    size_t i = 0;
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7' || *value >> 60) return false;
        *value = *value << 3 | (uint64_t)(field[i] - '0');
    }
    return true;
}

static bool checksum_ok(const uint8_t *header) {
    uint64_t stored, sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : header[i];
    return parse_number(&stored, header + 148, 8) && stored == sum;
}

/* The name in the header, with its prefix in POSIX archives; to be freed. */
static char *header_name(const uint8_t *header) {
    const char *name = (const char *)header, *prefix = name + 345;
    int length = (int)strnlen(name, 100), before = (int)strnlen(prefix, 155);
    if (memcmp(header + 257, "ustar", 6) == 0 && before) return syz_format("%.*s/%.*s", before, prefix, length, name);
    return syz_format("%.*s", length, name);
}

/* ---- extension headers ------------------------------------------------------------------------------------------- */

static syz_status set_name(walk *w, const uint8_t *text, size_t size) {
    size_t length = strnlen((const char *)text, size);
    if (length == 0 || length > MAX_NAME) return malformed(w, "a long name must have 1 to 4096 bytes");
    free(w->name);
    w->name = syz_format("%.*s", (int)length, (const char *)text);
    return w->name ? SYZ_OK : syz_error_status();
}

static syz_status read_pax_record(walk *w, const uint8_t *key, size_t key_size, const uint8_t *value, size_t size) {
    if (key_size == 4 && memcmp(key, "path", 4) == 0) {
        if (memchr(value, 0, size)) return malformed(w, "a zero byte in its pax name");
        return set_name(w, value, size);
    }
    if (key_size == 4 && memcmp(key, "size", 4) == 0) {
        w->size = 0;
        for (size_t i = 0; i < size; i++) {
            if (!isdigit(value[i]) || w->size > UINT64_MAX / 100) return malformed(w, "bad pax size");
            w->size = w->size * 10 + (uint64_t)(value[i] - '0');
        }
        w->has_size = size > 0;
        return size > 0 ? SYZ_OK : malformed(w, "bad pax size");
    }
    if (key_size >= 11 && memcmp(key, "GNU.sparse.", 11) == 0) return malformed(w, "sparse files are not supported");
    return SYZ_OK;
}

/* Records of the form "LENGTH key=value\n", where LENGTH counts the whole record. */
static syz_status read_pax(walk *w, const uint8_t *data, size_t size) {
    for (size_t at = 0; at < size;) {
        size_t length = 0, digits = 0;
        while (at + digits < size && isdigit(data[at + digits]) && length <= MAX_LABEL)
            length = length * 10 + (size_t)(data[at + digits++] - '0');
        if (digits == 0 || length < digits + 4 || length > size - at || data[at + digits] != ' ' ||
            data[at + length - 1] != '\n') {
            return malformed(w, "bad pax record");
        }
        const uint8_t *key = data + at + digits + 1, *end = data + at + length - 1;
        const uint8_t *equals = memchr(key, '=', (size_t)(end - key));
        if (!equals) return malformed(w, "pax record without '='");
        SYZ_TRY(read_pax_record(w, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1)));
        at += length;
    }
    return SYZ_OK;
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

/* Make room for one more element. */
static syz_status grow(void *array, size_t *capacity, size_t count, size_t size) {
    if (count < *capacity) return SYZ_OK;
    size_t wanted = *capacity ? 2 * *capacity : 64;
    void *grown = syz_alloc(wanted, size);
    if (!grown) return syz_error_status();
    void *old;
    memcpy(&old, array, sizeof old);
    if (count) memcpy(grown, old, count * size);
    free(old);
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return SYZ_OK;
}

/* Splits a name at the first dot of its last part. False for names that belong to no sample: no dot, nothing before it,
 * folders, and notes like __index__. */
static bool split_name(size_t *key_size, const char *name) {
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name, *dot = strchr(base, '.');
    if (!dot || dot == base || dot[1] == '\0' || strncmp(base, "__", 2) == 0) return false;
    *key_size = (size_t)(dot - name);
    return true;
}

static syz_status add_group(syz_webdataset *shard, const char *name, size_t key_size) {
    group *last = shard->ngroups ? &shard->groups[shard->ngroups - 1] : NULL;
    if (last && strncmp(last->key, name, key_size) == 0 && last->key[key_size] == '\0') return SYZ_OK;
    SYZ_TRY(grow(&shard->groups, &shard->group_capacity, shard->ngroups, sizeof(group)));
    char *key = syz_format("%.*s", (int)key_size, name);
    if (!key) return syz_error_status();
    shard->groups[shard->ngroups++] = (group){.key = key, .first = shard->nfiles};
    return SYZ_OK;
}

static syz_status add_file(walk *w, const char *name, const uint8_t *data, size_t size) {
    syz_webdataset *shard = w->shard;
    size_t key_size;
    if (!split_name(&key_size, name)) return SYZ_OK;
    SYZ_TRY(add_group(shard, name, key_size));
    group *sample = &shard->groups[shard->ngroups - 1];
    if (sample->count == MAX_FILES) return malformed(w, "more than 256 files in one sample");
    SYZ_TRY(grow(&shard->files, &shard->file_capacity, shard->nfiles, sizeof(syz_sample_file)));
    char *extension = syz_strdup(name + key_size + 1);
    if (!extension) return syz_error_status();
    for (char *c = extension; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    shard->files[shard->nfiles++] = (syz_sample_file){.extension = extension, .data = data, .size = size};
    for (size_t i = 0; i < sample->count; i++) {
        if (strcmp(shard->files[sample->first + i].extension, extension) == 0) {
            return syz_fail(SYZ_EFORMAT, "%s: sample \"%s\" has two .%s files", shard->path, sample->key, extension);
        }
    }
    sample->count++;
    return SYZ_OK;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static syz_status read_member(walk *w, const uint8_t *header, const uint8_t *data, size_t size) {
    uint8_t type = header[156];
    bool label = type == 'L' || type == 'x';
    if (label && size > MAX_LABEL) return malformed(w, "an extension header of more than 64 KiB");
    if (type == 'L') return set_name(w, data, size);
    if (type == 'x') return read_pax(w, data, size);
    if (type == 'K' || type == 'g') return SYZ_OK; /* link names and archive-wide notes concern no data */
    if (type == 'S') return malformed(w, "sparse files are not supported");
    syz_status status = SYZ_OK;
    if (type == '0' || type == '\0' || type == '7') {
        char *name = w->name ? w->name : header_name(header);
        status = name ? add_file(w, name, data, size) : syz_error_status();
        if (name != w->name) free(name);
    }
    free(w->name);
    w->name = NULL;
    w->has_size = false;
    return status;
}

static bool is_zero(const uint8_t *block) {
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i]) return false;
    return true;
}

static syz_status walk_members(walk *w) {
    const syz_mapping *file = w->shard->file;
    for (;;) {
        if (file->size - w->at < BLOCK)
            return malformed(w, "the archive ends without its closing block (torn download?)");
        const uint8_t *header = file->bytes + w->at;
        if (is_zero(header)) return SYZ_OK;
        if (!checksum_ok(header))
            return malformed(w, "bad header checksum (is it a tar file? compressed ones are not read)");
        uint64_t size;
        if (!parse_number(&size, header + 124, 12)) return malformed(w, "bad size field");
        bool label = header[156] == 'L' || header[156] == 'x' || header[156] == 'g' || header[156] == 'K';
        if (w->has_size && !label) size = w->size;
        /* Links and folders carry no data, whatever their size field says. */
        if (header[156] >= '1' && header[156] <= '6') size = 0;
        uint64_t left = file->size - w->at - BLOCK;
        if (size > left) return malformed(w, "its data run past the end of the file");
        SYZ_TRY(read_member(w, header, header + BLOCK, (size_t)size));
        uint64_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
        if (padded > left) return malformed(w, "its data run past the end of the file");
        w->at += BLOCK + padded;
    }
}

syz_webdataset *syz_webdataset_open(const char *path) {
    if (syz_failed()) return NULL;
    syz_webdataset *shard = syz_alloc(1, sizeof *shard);
    if (!shard) return NULL;
    walk w = {.shard = shard};
    shard->path = syz_strdup(path);
    shard->file = shard->path ? syz_file_map(path) : NULL;
    if (!shard->file || walk_members(&w) != SYZ_OK) {
        syz_webdataset_close(shard);
        shard = NULL;
    }
    free(w.name);
    return shard;
}

void syz_webdataset_close(syz_webdataset *shard) {
    if (!shard) return;
    for (size_t i = 0; i < shard->nfiles; i++)
        free((char *)(uintptr_t)shard->files[i].extension);
    for (size_t i = 0; i < shard->ngroups; i++)
        free(shard->groups[i].key);
    free(shard->files);
    free(shard->groups);
    syz_mapping_release(shard->file);
    free(shard->path);
    free(shard);
}

int64_t syz_webdataset_count(const syz_webdataset *shard) {
    return (int64_t)shard->ngroups;
}

syz_sample syz_webdataset_sample(const syz_webdataset *shard, int64_t index) {
    if (index < 0 || (size_t)index >= shard->ngroups) return (syz_sample){0};
    const group *sample = &shard->groups[index];
    return (syz_sample){sample->key, shard->files + sample->first, (int64_t)sample->count};
}
