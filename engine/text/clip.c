/* CLIP's tokenizer: pieces of normalised text, their bytes merged by rank. */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

/* ---- bytes as characters ----------------------------------------------------------------------------------------- */

static bool printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

int syz_byte_to_code(int byte) {
    if (printable(byte)) return byte;
    int code = 256;
    for (int b = 0; b < byte; b++)
        code += !printable(b);
    return code;
}

int syz_code_to_byte(int code) {
    if (code < 256) return printable(code) ? code : -1;
    for (int b = 0; b < 256; b++)
        if (!printable(b) && code-- == 256) return b;
    return -1;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

syz_status syz_clip_piece(syz_encoder *e, const char *text, size_t n) {
    if (n > e->piece_n) {
        free(e->piece);
        e->piece_n = n < 256 ? 256 : n;
        if (!(e->piece = syz_alloc(e->piece_n, sizeof *e->piece))) return SYZ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id = e->tok->byte_id[i + 1 == n][(unsigned char)text[i]];
        e->piece[i] = id < 0 ? e->tok->special[SYZ_UNK] : id;
    }
    SYZ_TRY(syz_bpe_apply(&e->bpe, &e->tok->merges, e->piece, n, &n));
    for (size_t i = 0; i < n; i++)
        syz_encoder_emit(e, e->piece[i]);
    return SYZ_OK;
}

/* White space needs no normalising: pieces never contain it. */
static syz_status normalize(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n) {
    (void)tok;
    return syz_text_normalize(out, out_n, text, n);
}

static syz_status encode(syz_encoder *e, const char *text, size_t n) {
    syz_text_scan scan = {.text = text, .n = n};
    while (!syz_encoder_full(e) && syz_text_piece(&scan))
        SYZ_TRY(syz_clip_piece(e, text + scan.start, scan.end - scan.start));
    return SYZ_OK;
}

size_t syz_clip_spell(char *out, size_t n, const char *token) {
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

const syz_tokenizer_kind syz_kind_clip = {normalize, encode, syz_clip_spell};
