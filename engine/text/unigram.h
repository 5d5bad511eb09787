/* Unigram segmentation, and the text that T5's tokenizer makes of a prompt before it. */
#ifndef SYZ_TEXT_UNIGRAM_H
#define SYZ_TEXT_UNIGRAM_H

#include "text/trie.h"

/* The compiled map of a sentencepiece model: a double array of `n` units, whose strings lie in `text`. */
typedef struct {
    uint32_t *unit;
    size_t n;
    char *text; /* [text_n], and a NUL behind it */
    size_t text_n;
} syz_charsmap;

/* Reads the map from its published form: 4 bytes of length, the units, the strings. An empty blob gives an empty map.
 * SYZ_EFORMAT, with `name` to blame; SYZ_ENOMEM. */
syz_status syz_charsmap_read(syz_charsmap *map, const uint8_t *blob, size_t size, const char *name);
void syz_charsmap_free(syz_charsmap *map);
/* What the map makes of text[0..n): the string of its shortest prefix that is a key. `*out` borrows from the map; false
 * if no prefix is a key. */
bool syz_charsmap_find(const syz_charsmap *map, const char *text, size_t n, const char **out, size_t *out_n);
/* The whole text, in the manner of the tokenizers library: a cluster of fewer than 6 bytes is looked up as one, any
 * other character by character. The result is the caller's. SYZ_ENOMEM. */
syz_status syz_charsmap_apply(const syz_charsmap *map, char **out, size_t *out_n, const char *text, size_t n);

typedef struct {
    double *score;  /* by id, of the model's own tokens */
    double unknown; /* the score of a character that no token covers */
    syz_charsmap map;
    bool byte_fallback;
    int32_t byte_id[256]; /* of <0x00> ..., for byte_fallback; -1: no such token */
} syz_unigram;

/* The best way to each byte of a word. */
typedef struct {
    struct syz_lattice_node *node;
    size_t room;
    char *word; /* with its space marks */
    size_t word_room;
} syz_lattice;

void syz_lattice_free(syz_lattice *lattice);
void syz_unigram_free(syz_unigram *unigram);

#endif
