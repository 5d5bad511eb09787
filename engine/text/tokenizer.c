/* Text to ids and ids to text, for every kind of tokenizer: added tokens first, the kind's own reading between them. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/buffer.h"

#define MAX_TEXT ((size_t)16 << 20)

/* ---- added tokens ------------------------------------------------------------------------------------------------ */

/* A letter, mark, digit or connector, as in the \w of regular expressions. */
static bool is_word(int32_t c) {
    utf8proc_category_t category = c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC ||
           c == 0x200c || c == 0x200d;
}

/* The character before `at`, and where it begins. */
static int32_t previous(size_t *begin, const char *text, size_t at) {
    size_t size;
    *begin = at - 1;
    while (*begin > 0 && (text[*begin] & 0xc0) == 0x80)
        --*begin;
    return syz_utf8_next(&size, text, *begin, at);
}

static bool stands_alone(const char *text, size_t begin, size_t end, size_t n) {
    size_t ignored;
    return !(begin > 0 && is_word(previous(&ignored, text, begin))) &&
           !(end < n && is_word(syz_utf8_next(&ignored, text, end, n)));
}

/* An added token in a text, and what it covers there. */
typedef struct {
    const syz_added *token;
    size_t begin, end;
} match;

/* The first added token from `from` on, the longest where several start together; without one, begin = end = n. */
static match find_added(const syz_tokenizer *tok, const char *text, size_t from, size_t n, bool normalized) {
    const syz_trie *trie = normalized ? &tok->normalized : &tok->raw;
    size_t length, size, begin;
    for (size_t at = from; at < n; at++) {
        if (!trie->root[(unsigned char)text[at]]) continue;
        int32_t index = syz_trie_longest(trie, 0, text + at, n - at, &length);
        if (index < 0) continue;
        match m = {&tok->added[index], at, at + length};
        if (m.token->single_word && !stands_alone(text, m.begin, m.end, n)) {
            at = m.end - 1;
            continue;
        }
        while (m.token->strip_left && m.begin > from && syz_is_space(previous(&begin, text, m.begin)))
            m.begin = begin;
        while (m.token->strip_right && m.end < n && syz_is_space(syz_utf8_next(&size, text, m.end, n)))
            m.end += size;
        return m;
    }
    return (match){NULL, n, n};
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static syz_status encode_raw(syz_encoder *e, const char *text, size_t n);

/* Cuts the text at added tokens and encodes what lies between. */
static syz_status encode_around(syz_encoder *e, const char *text, size_t n, bool normalized) {
    for (size_t start = 0; !syz_encoder_full(e);) {
        match m = find_added(e->tok, text, start, n, normalized);
        if (m.begin > start)
            SYZ_TRY((normalized ? e->tok->kind->encode : encode_raw)(e, text + start, m.begin - start));
        if (!m.token || syz_encoder_full(e)) break;
        syz_encoder_emit(e, m.token->id);
        start = m.end;
    }
    return SYZ_OK;
}

static syz_status encode_raw(syz_encoder *e, const char *text, size_t n) {
    char *normal = NULL;
    syz_status status = e->tok->kind->normalize(e->tok, &normal, &n, text, n);
    if (status == SYZ_OK) status = encode_around(e, normal, n, true);
    free(normal);
    return status;
}

static syz_status encode(syz_encoder *e, const char *text) {
    size_t n = strnlen(text, MAX_TEXT + 1);
    if (n > MAX_TEXT) return syz_fail(SYZ_EINVAL, "a text to tokenize is longer than %zu MiB", MAX_TEXT >> 20);
    syz_status status = encode_around(e, text, n, false);
    syz_bpe_free(&e->bpe);
    free(e->piece);
    syz_lattice_free(&e->lattice);
    return status;
}

syz_status syz_tokenizer_encode(const syz_tokenizer *tok, const char *text, int64_t *ids, size_t capacity,
                                size_t *count) {
    syz_encoder e = {.tok = tok, .ids = ids, .capacity = capacity};
    syz_status status = encode(&e, text);
    *count = status == SYZ_OK ? e.count : 0;
    return status;
}

syz_status syz_tokenizer_encode_padded(const syz_tokenizer *tok, const char *text, int64_t pad, int64_t *ids,
                                       size_t length, size_t *used) {
    size_t front = tok->special[SYZ_BOS] >= 0, frame = front + 1;
    if (length < frame)
        return syz_fail(SYZ_EINVAL, "token length %zu leaves no room for the end mark%s", length, front ? "s" : "");
    if (pad >= tok->size)
        return syz_fail(SYZ_EINVAL, "padding id %lld is not below the vocabulary's size %d", (long long)pad, tok->size);
    syz_encoder e = {.tok = tok, .ids = ids + front, .capacity = length - frame, .stop_when_full = true};
    SYZ_TRY(encode(&e, text));
    size_t count = e.count < e.capacity ? e.count : e.capacity;
    if (front) ids[0] = tok->special[SYZ_BOS];
    ids[front + count] = tok->special[SYZ_EOS];
    for (size_t i = count + frame; i < length; i++)
        ids[i] = pad < 0 ? tok->special[SYZ_PAD] : pad;
    if (used) *used = count + frame;
    return SYZ_OK;
}

/* ---- decoding and questions -------------------------------------------------------------------------------------- */

static bool is_special(const syz_tokenizer *tok, int64_t id) {
    for (int i = 0; i < SYZ_SPECIALS; i++)
        if (tok->special[i] == id) return true;
    for (size_t i = 0; i < tok->added_n; i++)
        if (tok->added[i].id == id) return tok->added[i].special;
    return false;
}

char *syz_tokenizer_decode(const syz_tokenizer *tok, const int64_t *ids, size_t count) {
    size_t room = 1, n = 0;
    for (size_t i = 0; i < count; i++) {
        const char *token = syz_tokenizer_token(tok, ids[i]);
        if (!token) return syz_fail_null(SYZ_EINVAL, "token id %lld is not in the vocabulary", (long long)ids[i]);
        room += strlen(token) + 1;
    }
    char *text = syz_alloc(room, 1);
    if (!text) return NULL;
    for (size_t i = 0; i < count; i++)
        if (!is_special(tok, ids[i])) n = tok->kind->spell(text, n, tok->token[ids[i]]);
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
    return text;
}

const char *syz_tokenizer_token(const syz_tokenizer *tok, int64_t id) {
    return id >= 0 && id < tok->size ? tok->token[id] : NULL;
}

int64_t syz_tokenizer_size(const syz_tokenizer *tok) {
    return tok->size;
}

int64_t syz_tokenizer_max_length(const syz_tokenizer *tok) {
    return tok->max_length;
}

syz_special_ids syz_tokenizer_specials(const syz_tokenizer *tok) {
    const int32_t *special = tok->special;
    return (syz_special_ids){special[SYZ_BOS], special[SYZ_EOS], special[SYZ_PAD], special[SYZ_UNK]};
}
