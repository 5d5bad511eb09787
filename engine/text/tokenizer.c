/* CLIP's tokenizer: text to ids, ids to text. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/unicode.h"

#define MAX_TEXT ((size_t)16 << 20)

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const syz_tokenizer *tok;
    int64_t *ids;
    size_t capacity, count;
    bool stop_when_full; /* else go on counting */
    syz_bpe bpe;
    int32_t *piece; /* [piece_n] working space */
    size_t piece_n;
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->count < e->capacity) e->ids[e->count] = id;
    e->count++;
}

static bool full(const encoder *e) {
    return e->stop_when_full && e->count >= e->capacity;
}

static syz_status encode_piece(encoder *e, const char *text, size_t n) {
    if (n > e->piece_n) {
        free(e->piece);
        e->piece_n = n < 256 ? 256 : n;
        if (!(e->piece = syz_alloc(e->piece_n, sizeof *e->piece))) return SYZ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id = e->tok->byte_id[i + 1 == n][(unsigned char)text[i]];
        e->piece[i] = id < 0 ? e->tok->special[SYZ_UNK].id : id;
    }
    SYZ_TRY(syz_bpe_apply(&e->bpe, &e->tok->merges, e->piece, n, &n));
    for (size_t i = 0; i < n; i++)
        emit(e, e->piece[i]);
    return SYZ_OK;
}

static syz_status encode_pieces(encoder *e, const char *text, size_t n) {
    syz_text_scan scan = {.text = text, .n = n};
    while (!full(e) && syz_text_piece(&scan))
        SYZ_TRY(encode_piece(e, text + scan.start, scan.end - scan.start));
    return SYZ_OK;
}

/* The first special token from `*at` on, the longest where several start together; `*at` moves to it, or to n. */
static const syz_special *find_special(const syz_tokenizer *tok, const char *text, size_t n, bool normalized,
                                       size_t *at) {
    const syz_special *found = NULL;
    for (; *at < n && !found; *at += !found) {
        for (int i = 0; i < SYZ_SPECIALS; i++) {
            const syz_special *s = &tok->special[i];
            if (s->normalized == normalized && s->text[0] == text[*at] && s->n <= n - *at &&
                memcmp(s->text, text + *at, s->n) == 0 && (!found || s->n > found->n))
                found = s;
        }
    }
    return found;
}

static syz_status encode_raw(encoder *e, const char *text, size_t n);

/* Cuts the text at special tokens and encodes what lies between. */
static syz_status encode_around(encoder *e, const char *text, size_t n, bool normalized) {
    const syz_special *found;
    for (size_t start = 0, at = 0; !full(e); start = at) {
        found = find_special(e->tok, text, n, normalized, &at);
        SYZ_TRY((normalized ? encode_pieces : encode_raw)(e, text + start, at - start));
        if (!found || full(e)) break;
        emit(e, found->id);
        at += found->n;
    }
    return SYZ_OK;
}

/* White space needs no normalising: pieces never contain it. */
static syz_status encode_raw(encoder *e, const char *text, size_t n) {
    char *normal;
    SYZ_TRY(syz_text_normalize(&normal, &n, text, n));
    syz_status status = encode_around(e, normal, n, true);
    free(normal);
    return status;
}

static syz_status encode(encoder *e, const char *text) {
    size_t n = strnlen(text, MAX_TEXT + 1);
    if (n > MAX_TEXT) return syz_fail(SYZ_EINVAL, "a text to tokenize is longer than %zu MiB", MAX_TEXT >> 20);
    syz_status status = encode_around(e, text, n, false);
    syz_bpe_free(&e->bpe);
    free(e->piece);
    return status;
}

syz_status syz_tokenizer_encode(const syz_tokenizer *tok, const char *text, int64_t *ids, size_t capacity,
                                size_t *count) {
    encoder e = {.tok = tok, .ids = ids, .capacity = capacity};
    syz_status status = encode(&e, text);
    *count = status == SYZ_OK ? e.count : 0;
    return status;
}

syz_status syz_tokenizer_encode_padded(const syz_tokenizer *tok, const char *text, int64_t pad, int64_t *ids,
                                       size_t length, size_t *used) {
    if (length < 2) return syz_fail(SYZ_EINVAL, "token length %zu leaves no room for the two end marks", length);
    if (pad >= tok->size)
        return syz_fail(SYZ_EINVAL, "padding id %lld is not below the vocabulary's size %d", (long long)pad, tok->size);
    encoder e = {.tok = tok, .ids = ids + 1, .capacity = length - 2, .stop_when_full = true};
    SYZ_TRY(encode(&e, text));
    size_t count = e.count < e.capacity ? e.count : e.capacity;
    ids[0] = tok->special[SYZ_BOS].id;
    ids[count + 1] = tok->special[SYZ_EOS].id;
    for (size_t i = count + 2; i < length; i++)
        ids[i] = pad < 0 ? tok->special[SYZ_PAD].id : pad;
    if (used) *used = count + 2;
    return SYZ_OK;
}

/* ---- decoding and questions -------------------------------------------------------------------------------------- */

static bool is_special(const syz_tokenizer *tok, int64_t id) {
    for (int i = 0; i < SYZ_SPECIALS; i++)
        if (tok->special[i].id == id) return true;
    return false;
}

/* Appends the bytes that a token spells, each "</w>" as one space. Room for strlen(token) bytes is enough. */
static size_t spell(char *out, const char *token) {
    size_t n = 0;
    while (*token) {
        unsigned char c = (unsigned char)*token;
        if (strncmp(token, "</w>", 5) == 0) {
            out[n++] = ' ';
            break;
        }
        int code = c < 0x80 ? c : (c & 0x1f) << 6 | (token[1] & 0x3f);
        int byte = c < 0x80 || (c >= 0xc0 && c < 0xe0) ? syz_code_to_byte(code) : -1;
        out[n++] = (char)(byte < 0 ? c : byte);
        token += byte < 0 || c < 0x80 ? 1 : 2;
    }
    return n;
}

char *syz_tokenizer_decode(const syz_tokenizer *tok, const int64_t *ids, size_t count) {
    size_t room = 1, n = 0;
    for (size_t i = 0; i < count; i++) {
        const char *token = syz_tokenizer_token(tok, ids[i]);
        if (!token) return syz_fail_null(SYZ_EINVAL, "token id %lld is not in the vocabulary", (long long)ids[i]);
        room += strlen(token);
    }
    char *text = syz_alloc(room, 1);
    if (!text) return NULL;
    for (size_t i = 0; i < count; i++)
        if (!is_special(tok, ids[i])) n += spell(text + n, tok->token[ids[i]]);
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
    return (syz_special_ids){tok->special[SYZ_BOS].id, tok->special[SYZ_EOS].id, tok->special[SYZ_PAD].id,
                             tok->special[SYZ_UNK].id};
}
