/* What an open tokenizer consists of. */
#ifndef SYZ_TEXT_TOKENIZER_H
#define SYZ_TEXT_TOKENIZER_H

#include "text/bpe.h"

enum { SYZ_BOS, SYZ_EOS, SYZ_UNK, SYZ_PAD, SYZ_SPECIALS };

typedef struct {
    char *text;      /* as written in a prompt */
    size_t n;        /* its length */
    int32_t id;      /* in the vocabulary */
    bool normalized; /* looked for in the normalised text instead of the raw one */
} syz_special;

struct syz_tokenizer {
    char **token; /* [size] by id; NULL in a gap */
    int32_t size;
    int64_t max_length;
    int32_t byte_id[2][256]; /* a byte inside a word, and at its end; -1: not in the vocabulary */
    syz_special special[SYZ_SPECIALS];
    syz_merges merges;
};

/* The vocabulary spells every byte as one printable character: itself where Latin-1 prints it, and 256, 257, ... for
 * the others in order. */
int syz_byte_to_code(int byte);
int syz_code_to_byte(int code); /* -1 for a character that stands for no byte */

#endif
