/* BERT's tokenizer: words cleaned and split at punctuation, each read from the left by its longest pieces. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

/* ---- cleaning ---------------------------------------------------------------------------------------------------- */

/* Control and format characters, private ones, and the replacement character. */
static bool is_dropped(int32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    utf8proc_category_t category = utf8proc_category(c);
    return c == 0xfffd || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CO;
}

static bool is_ideograph(int32_t c) {
    static const int32_t blocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (size_t i = 0; c >= 0x3400 && i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i][0] && c <= blocks[i][1]) return true;
    return false;
}

static bool is_punctuation(int32_t c) {
    if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

static syz_status clean(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n) {
    syz_buffer to = {0};
    syz_buffer_reserve(&to, n);
    for (size_t at = 0, size; at < n; at += size) {
        int32_t c = syz_utf8_next(&size, text, at, n);
        if (tok->clean && is_dropped(c)) continue;
        if (tok->clean && syz_is_space(c)) {
            syz_buffer_put(&to, " ", 1);
            continue;
        }
        bool apart = tok->space_cjk && is_ideograph(c);
        if (apart) syz_buffer_put(&to, " ", 1);
        syz_buffer_put(&to, text + at, size);
        if (apart) syz_buffer_put(&to, " ", 1);
    }
    return syz_buffer_take(&to, out, out_n);
}

/* Canonical decomposition; `*text` is replaced. */
static syz_status decompose(char **text, size_t *n) {
    utf8proc_uint8_t *apart = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)*text, (utf8proc_ssize_t)*n, &apart,
                                         UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    if (size < 0) return syz_fail(SYZ_EINVAL, "text cannot be normalised: %s", utf8proc_errmsg(size));
    free(*text);
    *text = (char *)apart;
    *n = (size_t)size;
    return SYZ_OK;
}

static syz_status strip_and_lower(const syz_tokenizer *tok, char **text, size_t *n) {
    syz_buffer to = {0};
    syz_buffer_reserve(&to, *n);
    for (size_t at = 0, size; at < *n; at += size) {
        int32_t c = syz_utf8_next(&size, *text, at, *n);
        if (c >= 0x80 && tok->strip_accents && utf8proc_category(c) == UTF8PROC_CATEGORY_MN) continue;
        uint8_t lower[4];
        if (tok->lower)
            syz_buffer_put(&to, (char *)lower, syz_text_lower(lower, c));
        else
            syz_buffer_put(&to, *text + at, size);
    }
    free(*text);
    return syz_buffer_take(&to, text, n);
}

static syz_status normalize(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n) {
    bool ascii;
    *out = NULL;
    SYZ_TRY(syz_text_check(&ascii, text, n));
    SYZ_TRY(clean(tok, out, out_n, text, n));
    syz_status status = tok->strip_accents && !ascii ? decompose(out, out_n) : SYZ_OK;
    if (status == SYZ_OK && (tok->lower || tok->strip_accents)) status = strip_and_lower(tok, out, out_n);
    return status;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static size_t count_characters(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += (text[i] & 0xc0) != 0x80;
    return count;
}

/* A word is its longest pieces from the left, or unknown as a whole. */
static void encode_word(syz_encoder *e, const char *word, size_t n) {
    const syz_tokenizer *tok = e->tok;
    size_t before = e->count, length;
    bool known = count_characters(word, n) <= (size_t)tok->longest_word;
    for (size_t at = 0; known && at < n; at += length) {
        uint32_t from = at == 0 ? 0 : tok->continuing;
        int32_t id = at == 0 || from ? syz_trie_longest(&tok->vocabulary, from, word + at, n - at, &length) : -1;
        known = id >= 0;
        if (known) syz_encoder_emit(e, id);
    }
    if (known) return;
    e->count = before;
    syz_encoder_emit(e, tok->special[SYZ_UNK]);
}

static syz_status encode(syz_encoder *e, const char *text, size_t n) {
    size_t start = 0, size;
    for (size_t at = 0; at < n && !syz_encoder_full(e); at += size) {
        int32_t c = syz_utf8_next(&size, text, at, n);
        bool space = syz_is_space(c), mark = !space && is_punctuation(c);
        if (!space && !mark) continue;
        if (at > start) encode_word(e, text + start, at - start);
        if (mark) encode_word(e, text + at, size);
        start = at + size;
    }
    if (start < n && !syz_encoder_full(e)) encode_word(e, text + start, n - start);
    return SYZ_OK;
}

static size_t spell(char *out, size_t n, const char *token) {
    bool continues = strncmp(token, "##", 2) == 0 && token[2];
    if (!continues && n > 0) out[n++] = ' ';
    token += continues ? 2 : 0;
    memcpy(out + n, token, strlen(token));
    return n + strlen(token);
}

const syz_tokenizer_kind syz_kind_wordpiece = {normalize, encode, spell};
