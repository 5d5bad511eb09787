#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"

/* Sorting a run of combining marks is quadratic in its length, and no writing system stacks more than a few. */
#define MAX_MARKS 1024

enum { SPACE, LETTER, NUMBER, OTHER };

syz_status syz_text_check(bool *ascii, const char *text, size_t n) {
    *ascii = true;
    size_t marks = 0, size;
    for (size_t at = 0; at < n; at += size) {
        size = 1;
        if (!(text[at] & 0x80)) {
            marks = 0;
            continue;
        }
        *ascii = false;
        utf8proc_int32_t c = syz_utf8_next(&size, text, at, n);
        if (c < 0) return syz_fail(SYZ_EINVAL, "text is not UTF-8 (byte 0x%02x at offset %zu)", text[at] & 0xff, at);
        marks = utf8proc_get_property(c)->combining_class ? marks + 1 : 0;
        if (marks > MAX_MARKS)
            return syz_fail(SYZ_EINVAL, "text has more than %d combining marks in a row (offset %zu)", MAX_MARKS, at);
    }
    return SYZ_OK;
}

static syz_status lower_ascii(char **out, size_t *out_n, const char *text, size_t n) {
    char *lower = syz_alloc(n + 1, 1);
    if (!lower) return SYZ_ENOMEM;
    for (size_t i = 0; i < n; i++)
        lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + ('a' - 'A')) : text[i];
    *out = lower;
    *out_n = n;
    return SYZ_OK;
}

size_t syz_text_lower(uint8_t *to, int32_t c) {
    if (c != 0x130) return (size_t)utf8proc_encode_char(utf8proc_tolower(c), to);
    memcpy(to, "i\xcc\x87", 3);
    return 3;
}

syz_status syz_text_normalize(char **out, size_t *out_n, const char *text, size_t n) {
    bool ascii;
    *out = NULL;
    SYZ_TRY(syz_text_check(&ascii, text, n));
    if (ascii) return lower_ascii(out, out_n, text, n);
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &composed,
                                           UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (length < 0) return syz_fail(SYZ_EINVAL, "text cannot be normalised: %s", utf8proc_errmsg(length));
    /* A lower-case letter takes at most one byte more than its capital (2 to 3 bytes). */
    utf8proc_uint8_t *lower = syz_alloc((size_t)length * 2 + 1, 1);
    size_t used = 0, size;
    for (size_t at = 0; lower && at < (size_t)length; at += size)
        used += syz_text_lower(lower + used, syz_utf8_next(&size, (const char *)composed, at, (size_t)length));
    free(composed);
    if (!lower) return SYZ_ENOMEM;
    *out = (char *)lower;
    *out_n = used;
    return SYZ_OK;
}

static int classify(utf8proc_int32_t c) {
    if (syz_is_space(c)) return SPACE;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    default:
        return OTHER;
    }
}

/* The English contractions, which stand before the general classes, in this order. */
static size_t contraction(const char *text, size_t n) {
    static const char *const words[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if (n >= length && memcmp(text, words[i], length) == 0) return length;
    }
    return 0;
}

/* CLIP's markers reach the scanner only when they were not taken as special tokens (written in capitals, say).
 * transformers then reads one as three pieces that do not run on into what follows. */
static size_t marker(const char *text, size_t n) {
    static const char *const words[] = {"<|startoftext|>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if (n >= length && memcmp(text, words[i], length) == 0) return length;
    }
    return 0;
}

/* open_clip's pattern ignores case, and so takes the one mark with a capital letter for a letter where it excludes
 * letters, but not where it wants them: nothing matches it. */
static int classify_in(const syz_text_scan *scan, size_t at, size_t *size) {
    int32_t c = syz_utf8_next(size, scan->text, at, scan->n);
    return scan->marks && c == 0x345 ? SPACE : classify(c);
}

bool syz_text_piece(syz_text_scan *scan) {
    const char *text = scan->text;
    size_t at = scan->end, size = 0, fixed;
    int class = SPACE;
    while (at < scan->n && (class = classify_in(scan, at, &size)) == SPACE)
        at += size;
    if (at >= scan->n) return false;
    scan->start = at;
    if (text[at] == '\'' && (fixed = contraction(text + at, scan->n - at))) {
        scan->end = at + fixed;
        return true;
    }
    scan->mark = 0;
    for (int i = 0; scan->marks && i < 2; i++) {
        fixed = strlen(scan->marks[i]);
        if (fixed > scan->n - at || memcmp(text + at, scan->marks[i], fixed) != 0) continue;
        scan->mark = i + 1;
        scan->end = at + fixed;
        return true;
    }
    if (text[at] == '<' && !scan->marks && at >= scan->limit) scan->limit = at + marker(text + at, scan->n - at);
    size_t limit = at < scan->limit ? scan->limit : scan->n;
    for (at += size; class != NUMBER && at < limit; at += size)
        if (classify_in(scan, at, &size) != class) break;
    scan->end = at;
    return true;
}
