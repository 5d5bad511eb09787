/* CLIP's tokenizer with the text cleaned as open_clip does it: ftfy's repairs, HTML references, Python's lower(). */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"
#include "text/entities.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

/* A reference may hide another; ftfy goes on until nothing changes. Nobody nests them this deep. */
#define MAX_ROUNDS 16

/* ---- ftfy -------------------------------------------------------------------------------------------------------- */

static void unescape(syz_buffer *out, const char *text, size_t n, bool leniently) {
    for (size_t at = 0, size; at < n; at += size) {
        int32_t code;
        size = text[at] == '&' ? syz_entity(text + at, n - at, leniently, &code) : 0;
        if (size > 0 && code >= 0) syz_buffer_put_char(out, code);
        if (size > 0) continue;
        size = 1;
        syz_buffer_put(out, text + at, 1);
    }
}

/* The letters that a Latin ligature stands for, or NULL. */
static const char *ligature(int32_t c) {
    static const struct {
        int32_t code;
        const char *letters;
    } all[] = {{0x132, "IJ"},       {0x133, "ij"},      {0x149, "\u02bcn"}, {0x1f1, "DZ"},      {0x1f2, "Dz"},
               {0x1f3, "dz"},       {0x1c4, "D\u017d"}, {0x1c5, "D\u017e"}, {0x1c6, "d\u017e"}, {0x1c7, "LJ"},
               {0x1c8, "Lj"},       {0x1c9, "lj"},      {0x1ca, "NJ"},      {0x1cb, "Nj"},      {0x1cc, "nj"},
               {0xfb00, "ff"},      {0xfb01, "fi"},     {0xfb02, "fl"},     {0xfb03, "ffi"},    {0xfb04, "ffl"},
               {0xfb05, "\u017ft"}, {0xfb06, "st"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].code == c) return all[i].letters;
    return NULL;
}

static bool is_control(int32_t c) {
    return c < 0x09 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f || (c >= 0x206a && c <= 0x206f) ||
           c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

/* The length of a terminal's escape sequence, such as ESC [1;31m; 0 if it is none. */
static size_t terminal_escape(const char *text, size_t n) {
    size_t at = 2;
    if (n < 3 || text[0] != 0x1b || text[1] != '[') return 0;
    while (at < n && ((text[at] >= '0' && text[at] <= '9') || text[at] == ';'))
        at++;
    return at < n && (text[at] | 32) >= 'a' && (text[at] | 32) <= 'z' ? at + 1 : 0;
}

/* The usual width of a character that has another, U+FF01 to U+FFEF. */
static void put_usual_width(syz_buffer *out, const char *text, size_t size) {
    utf8proc_uint8_t *usual = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &usual,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    if (n < 0) (void)syz_fail(SYZ_ENOMEM, "text cannot be normalised: %s", utf8proc_errmsg(n));
    out->failed = out->failed || n < 0;
    if (n > 0) syz_buffer_put(out, (char *)usual, (size_t)n);
    free(usual);
}

/* One character's repair. ftfy makes them one after another over the whole text; none makes work for an earlier one
 * that the next round would not do. */
static void put_repaired(syz_buffer *out, const char *text, size_t size, int32_t c) {
    const char *letters = ligature(c);
    if (letters)
        syz_buffer_put(out, letters, strlen(letters));
    else if (c == 0x3000)
        syz_buffer_put(out, " ", 1);
    else if (c > 0xff00 && c < 0xfff0)
        put_usual_width(out, text, size);
    else if ((c >= 0x2018 && c <= 0x201b) || c == 0x2bc)
        syz_buffer_put(out, "'", 1);
    else if (c >= 0x201c && c <= 0x201f)
        syz_buffer_put(out, "\"", 1);
    else if (c == '\r' || c == 0x2028 || c == 0x2029)
        syz_buffer_put(out, "\n", 1);
    else if (!is_control(c))
        syz_buffer_put_char(out, c);
}

static void repair(syz_buffer *out, const char *text, size_t n) {
    for (size_t at = 0, size; at < n; at += size) {
        if ((size = terminal_escape(text + at, n - at)) > 0) continue;
        int32_t c = syz_utf8_next(&size, text, at, n);
        put_repaired(out, text + at, size, syz_windows_code(c));
    }
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

/* Replaces *text by what was made of it. */
static syz_status replace(char **text, size_t *n, syz_buffer *made) {
    char *old = *text;
    syz_status status = syz_buffer_take(made, text, n);
    free(old);
    return status;
}

static syz_status compose(char **text, size_t *n) {
    bool ascii;
    SYZ_TRY(syz_text_check(&ascii, *text, *n));
    if (ascii) return SYZ_OK;
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)*text, (utf8proc_ssize_t)*n, &composed,
                                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (size < 0) return syz_fail(SYZ_EINVAL, "text cannot be normalised: %s", utf8proc_errmsg(size));
    free(*text);
    *text = (char *)composed;
    *n = (size_t)size;
    return SYZ_OK;
}

/* One line of the text, with the break that ends it. A text with tags means its references: they stay for later. */
static syz_status fix_line(char **line, size_t *n, bool references) {
    for (int round = 0; round < MAX_ROUNDS; round++) {
        syz_buffer made = {0};
        char *before = *line;
        size_t before_n = *n;
        if (references)
            unescape(&made, before, before_n, false);
        else
            syz_buffer_put(&made, before, before_n);
        syz_status status = syz_buffer_take(&made, line, n);
        if (status == SYZ_OK) {
            repair(&made, *line, *n);
            status = replace(line, n, &made);
        }
        if (status == SYZ_OK) status = compose(line, n);
        bool same = status == SYZ_OK && *n == before_n && memcmp(*line, before, *n) == 0;
        free(before);
        if (status != SYZ_OK || same) return status;
    }
    return SYZ_OK;
}

static syz_status fix_text(syz_buffer *out, const char *text, size_t n) {
    bool references = true;
    for (size_t start = 0, end; start < n; start = end) {
        const char *stop = memchr(text + start, '\n', n - start);
        end = stop ? (size_t)(stop - text) + 1 : n;
        references = references && !memchr(text + start, '<', end - start);
        syz_buffer line = {0};
        char *fixed;
        size_t fixed_n;
        syz_buffer_put(&line, text + start, end - start);
        SYZ_TRY(syz_buffer_take(&line, &fixed, &fixed_n));
        syz_status status = fix_line(&fixed, &fixed_n, references);
        if (status == SYZ_OK) syz_buffer_put(out, fixed, fixed_n);
        free(fixed);
        SYZ_TRY(status);
    }
    return SYZ_OK;
}

/* ---- lower case -------------------------------------------------------------------------------------------------- */

static bool is_cased(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT ||
           c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9);
}

/* Marks and punctuation inside words. */
static bool is_passed_over(int32_t c) {
    static const int32_t inside[] = {'\'',   '.',    ':',    '^',    '`',    0xa8,   0xb7,   0x387,  0x55f,  0x5f4,
                                     0x2018, 0x2019, 0x2024, 0x2027, 0xfe13, 0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        if (c == inside[i]) return true;
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK;
}

/* Capital sigma at a word's end: `cased` tells what stands before it. */
static bool ends_word(const char *text, size_t at, size_t n) {
    for (size_t size; at < n; at += size) {
        int32_t c = syz_utf8_next(&size, text, at, n);
        if (!is_passed_over(c)) return !is_cased(c);
    }
    return true;
}

static void lower(syz_buffer *out, const char *text, size_t n) {
    bool cased = false;
    for (size_t at = 0, size; at < n; at += size) {
        uint8_t bytes[4];
        int32_t c = syz_utf8_next(&size, text, at, n);
        bool final = c == 0x3a3 && cased && ends_word(text, at + size, n);
        syz_buffer_put(out, (char *)bytes, syz_text_lower(bytes, final ? 0x3c2 : c));
        if (!is_passed_over(c)) cased = is_cased(c);
    }
}

/* ---- the kind ---------------------------------------------------------------------------------------------------- */

static syz_status normalize(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n) {
    (void)tok;
    syz_buffer made = {0};
    *out = NULL;
    SYZ_TRY(syz_utf8_check(text, n));
    syz_status status = fix_text(&made, text, n);
    if (status != SYZ_OK) {
        syz_buffer_free(&made);
        return status;
    }
    SYZ_TRY(syz_buffer_take(&made, out, out_n));
    for (int i = 0; i < 2 && status == SYZ_OK; i++) {
        unescape(&made, *out, *out_n, true);
        status = replace(out, out_n, &made);
    }
    if (status == SYZ_OK) {
        lower(&made, *out, *out_n);
        status = replace(out, out_n, &made);
    }
    return status;
}

static syz_status encode(syz_encoder *e, const char *text, size_t n) {
    static const char *const marks[] = {"<start_of_text>", "<end_of_text>"};
    syz_text_scan scan = {.text = text, .n = n, .marks = marks};
    while (!syz_encoder_full(e) && syz_text_piece(&scan)) {
        if (scan.mark > 0)
            syz_encoder_emit(e, e->tok->special[scan.mark == 1 ? SYZ_BOS : SYZ_EOS]);
        else
            SYZ_TRY(syz_clip_piece(e, text + scan.start, scan.end - scan.start));
    }
    return SYZ_OK;
}

const syz_tokenizer_kind syz_kind_open_clip = {normalize, encode, syz_clip_spell};
