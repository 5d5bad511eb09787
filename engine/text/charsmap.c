#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"
#include "text/unigram.h"

#define MAX_UNITS ((size_t)1 << 24)

static uint32_t read32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

syz_status syz_charsmap_read(syz_charsmap *map, const uint8_t *blob, size_t size, const char *name) {
    *map = (syz_charsmap){0};
    if (size == 0) return SYZ_OK;
    size_t bytes = size < 4 ? 0 : read32(blob);
    if (bytes == 0 || bytes % 4 != 0 || bytes > size - 4 || bytes / 4 > MAX_UNITS)
        return syz_fail(SYZ_EFORMAT, "%s: the precompiled_charsmap of %zu bytes has no trie of the length it states",
                        name, size);
    map->n = bytes / 4;
    map->text_n = size - 4 - bytes;
    map->unit = syz_alloc(map->n, sizeof *map->unit);
    map->text = syz_alloc(map->text_n + 1, 1);
    if (!map->unit || !map->text) {
        syz_charsmap_free(map);
        return SYZ_ENOMEM;
    }
    for (size_t i = 0; i < map->n; i++)
        map->unit[i] = read32(blob + 4 + 4 * i);
    memcpy(map->text, blob + 4 + bytes, map->text_n);
    if (syz_utf8_check(map->text, map->text_n) == SYZ_OK) return SYZ_OK;
    syz_error_clear();
    syz_charsmap_free(map);
    return syz_fail(SYZ_EFORMAT, "%s: the strings of the precompiled_charsmap are not UTF-8", name);
}

void syz_charsmap_free(syz_charsmap *map) {
    free(map->unit);
    free(map->text);
    *map = (syz_charsmap){0};
}

/* A unit of the double array: bits 0-7 the byte that leads to it (bit 31 marks a value instead), bit 8 whether a value
 * hangs below, bits 10-30 the distance to its children, times 256 if bit 9 is set. */
static size_t distance(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 1 << 9) >> 6);
}

bool syz_charsmap_find(const syz_charsmap *map, const char *text, size_t n, const char **out, size_t *out_n) {
    if (map->n == 0) return false;
    size_t at = distance(map->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= map->n || (map->unit[at] & (UINT32_C(1) << 31 | 0xff)) != byte) return false;
        uint32_t unit = map->unit[at];
        at ^= distance(unit);
        if (!(unit & 1 << 8)) continue;
        if (at >= map->n) return false;
        size_t begin = map->unit[at] & INT32_MAX;
        /* A hostile map could point into the middle of a character. */
        if (begin >= map->text_n || (map->text[begin] & 0xc0) == 0x80) return false;
        *out = map->text + begin;
        *out_n = strlen(*out);
        return true;
    }
    return false;
}

/* The end of the cluster (what a reader sees as one character) that begins at `at`. */
static size_t cluster_end(const char *text, size_t at, size_t n) {
    utf8proc_int32_t c, next, state = 0;
    size_t size;
    c = syz_utf8_next(&size, text, at, n);
    for (at += size; at < n; at += size, c = next) {
        next = syz_utf8_next(&size, text, at, n);
        if (utf8proc_grapheme_break_stateful(c, next, &state)) break;
    }
    return at;
}

static void apply_part(const syz_charsmap *map, syz_buffer *out, const char *text, size_t n) {
    const char *found;
    size_t found_n;
    if (syz_charsmap_find(map, text, n, &found, &found_n))
        syz_buffer_put(out, found, found_n);
    else
        syz_buffer_put(out, text, n);
}

static void apply_cluster(const syz_charsmap *map, syz_buffer *out, const char *text, size_t n) {
    const char *found;
    size_t found_n, size;
    if (n < 6 && syz_charsmap_find(map, text, n, &found, &found_n)) {
        syz_buffer_put(out, found, found_n);
        return;
    }
    for (size_t at = 0; at < n; at += size) {
        syz_utf8_next(&size, text, at, n);
        apply_part(map, out, text + at, size);
    }
}

syz_status syz_charsmap_apply(const syz_charsmap *map, char **out, size_t *out_n, const char *text, size_t n) {
    syz_buffer to = {0};
    bool plain[128]; /* ASCII that stays as it is, which most of a prompt is */
    const char *found;
    size_t found_n;
    for (int c = 0; c < 128; c++)
        plain[c] = c != '\r' && !syz_charsmap_find(map, &(char){(char)c}, 1, &found, &found_n);
    syz_buffer_reserve(&to, n);
    for (size_t at = 0, end; at < n; at = end) {
        for (end = at; end < n && !(text[end] & 0x80) && plain[(int)text[end]]; end++)
            ;
        if (end > at && end < n && (text[end] & 0x80)) end--; /* a mark may follow it */
        syz_buffer_put(&to, text + at, end - at);
        if (end >= n) break;
        at = end;
        end = cluster_end(text, at, n);
        apply_cluster(map, &to, text + at, end - at);
    }
    return syz_buffer_take(&to, out, out_n);
}
