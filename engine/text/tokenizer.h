/* What an open tokenizer consists of. */
#ifndef SYZ_TEXT_TOKENIZER_H
#define SYZ_TEXT_TOKENIZER_H

#include "text/bpe.h"
#include "text/trie.h"
#include "text/unigram.h"

enum { SYZ_BOS, SYZ_EOS, SYZ_UNK, SYZ_PAD, SYZ_SPECIALS };

/* A token that is found in the text before anything else is done with it, and never cut up. */
typedef struct {
    char *text; /* as written in a prompt */
    size_t n;   /* its length */
    int32_t id;
    bool normalized;              /* looked for in the normalised text instead of the raw one */
    bool single_word;             /* not where a letter or digit precedes or follows */
    bool strip_left, strip_right; /* takes the white space beside it along */
    bool special;                 /* left out of decoded text */
} syz_added;

/* Growing working memory of one call of encode. Zero to begin with. */
typedef struct {
    const syz_tokenizer *tok;
    int64_t *ids;
    size_t capacity, count;
    bool stop_when_full; /* else go on counting */
    syz_bpe bpe;
    int32_t *piece; /* [piece_n] of bpe.c */
    size_t piece_n;
    syz_lattice lattice;
} syz_encoder;

/* What differs from kind to kind. */
typedef struct {
    /* The normalised form of text[0..n), UTF-8, which the caller frees. */
    syz_status (*normalize)(const syz_tokenizer *tok, char **out, size_t *out_n, const char *text, size_t n);
    syz_status (*encode)(syz_encoder *e, const char *text, size_t n); /* emits the ids of normalised text */
    /* Appends to out[0..n) what a token says, at most strlen(token) + 1 bytes; returns the new length. */
    size_t (*spell)(char *out, size_t n, const char *token);
} syz_tokenizer_kind;

extern const syz_tokenizer_kind syz_kind_clip, syz_kind_open_clip, syz_kind_unigram, syz_kind_wordpiece;

struct syz_tokenizer {
    const syz_tokenizer_kind *kind;
    char **token; /* [size] by id; NULL in a gap */
    int32_t size, room;
    int64_t max_length;
    int32_t special[SYZ_SPECIALS]; /* ids; only that of SYZ_BOS may be -1: no such token */
    syz_trie vocabulary;           /* of the model's own tokens, without those that were added later */

    syz_added *added;
    size_t added_n, added_room;
    syz_trie raw, normalized; /* the added tokens by where they are looked for; values index `added` */

    int32_t byte_id[2][256]; /* CLIP: a byte inside a word, and at its end; -1: not in the vocabulary */
    syz_merges merges;

    syz_unigram unigram; /* T5 */

    uint32_t continuing; /* BERT: the node of `vocabulary` that "##" leads to; 0: no such token */
    bool lower, strip_accents, clean, space_cjk;
    int32_t longest_word; /* in characters; a longer one is unknown */
};

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static inline bool syz_encoder_full(const syz_encoder *e) {
    return e->stop_when_full && e->count >= e->capacity;
}

static inline void syz_encoder_emit(syz_encoder *e, int32_t id) {
    if (e->count < e->capacity) e->ids[e->count] = id;
    e->count++;
}

/* What CLIP's two kinds share: the ids of a piece, and the bytes of a token, "</w>" as one space. */
syz_status syz_clip_piece(syz_encoder *e, const char *text, size_t n);
size_t syz_clip_spell(char *out, size_t n, const char *token);

/* ---- bytes as characters ----------------------------------------------------------------------------------------- */

/* CLIP's vocabulary spells every byte as one printable character: itself where Latin-1 prints it, and 256, 257, ... for
 * the others in order. */
int syz_byte_to_code(int byte);
int syz_code_to_byte(int code); /* -1 for a character that stands for no byte */

#endif
