/* Byte-pair merging: the ranked merges and the loop that applies them. */
#ifndef SYZ_TEXT_BPE_H
#define SYZ_TEXT_BPE_H

#include "syzygy.h"

/* Merges by pair of token ids: open addressing, a power of two of slots, at most half of them in use. */
typedef struct {
    int32_t left, right; /* left < 0: empty */
    int32_t rank, id;    /* smaller ranks go first; the token that replaces the pair */
} syz_merge;

typedef struct {
    syz_merge *slot;
    size_t mask;
} syz_merges;

/* Room for `count` merges. SYZ_ENOMEM. */
syz_status syz_merges_init(syz_merges *merges, size_t count);
void syz_merges_free(syz_merges *merges);
/* The first of two equal pairs stays. */
void syz_merges_add(syz_merges *merges, syz_merge merge);
const syz_merge *syz_merges_find(const syz_merges *merges, int32_t left, int32_t right); /* NULL if none */

/* Working memory for one piece, kept from piece to piece. Zero to begin with. */
typedef struct {
    struct syz_symbol *symbol;
    struct syz_candidate *heap;
    size_t capacity, heap_n;
} syz_bpe;

void syz_bpe_free(syz_bpe *bpe);
/* Merges ids[0..n) in place, always the pair of lowest rank and of those the leftmost, in O(n log n).
 * `*out_n` ids are left. SYZ_ENOMEM. */
syz_status syz_bpe_apply(syz_bpe *bpe, const syz_merges *merges, int32_t *ids, size_t n, size_t *out_n);

#endif
