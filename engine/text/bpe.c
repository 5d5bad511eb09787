#include "text/bpe.h"

#include <stdlib.h>

#include "core/alloc.h"
#include "core/error.h"

/* ---- merges ------------------------------------------------------------------------------------------------------ */

static size_t hash_pair(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h ^ h >> 32);
}

syz_status syz_merges_init(syz_merges *merges, size_t count) {
    size_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    merges->slot = syz_alloc(slots, sizeof *merges->slot);
    if (!merges->slot) return SYZ_ENOMEM;
    merges->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        merges->slot[i].left = -1;
    return SYZ_OK;
}

void syz_merges_free(syz_merges *merges) {
    free(merges->slot);
    merges->slot = NULL;
}

static syz_merge *probe(const syz_merges *merges, int32_t left, int32_t right) {
    size_t i = hash_pair(left, right) & merges->mask;
    while (merges->slot[i].left >= 0 && (merges->slot[i].left != left || merges->slot[i].right != right))
        i = (i + 1) & merges->mask;
    return &merges->slot[i];
}

void syz_merges_add(syz_merges *merges, syz_merge merge) {
    syz_merge *slot = probe(merges, merge.left, merge.right);
    if (slot->left < 0) *slot = merge;
}

const syz_merge *syz_merges_find(const syz_merges *merges, int32_t left, int32_t right) {
    const syz_merge *slot = probe(merges, left, right);
    return slot->left < 0 ? NULL : slot;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

/* A token of the piece, in a doubly linked list by index; -1 ends it. */
struct syz_symbol {
    int32_t id, previous, next; /* id < 0: merged into its left neighbour */
};

/* A pair that could be merged when it was pushed. It is stale if either side has changed since. */
struct syz_candidate {
    int32_t rank, at, left, right, id;
};

void syz_bpe_free(syz_bpe *bpe) {
    free(bpe->symbol);
    free(bpe->heap);
    *bpe = (syz_bpe){0};
}

static syz_status reserve(syz_bpe *bpe, size_t n) {
    if (n <= bpe->capacity) return SYZ_OK;
    if (n > INT32_MAX / 4) return syz_fail(SYZ_EINVAL, "a word of %zu bytes is too long to tokenize", n);
    n = n < 256 ? 256 : n;
    syz_bpe_free(bpe);
    bpe->symbol = syz_alloc(n, sizeof *bpe->symbol);
    bpe->heap = syz_alloc(3 * n, sizeof *bpe->heap); /* n - 1 pairs at first, and at most 2 more per merge */
    if (!bpe->symbol || !bpe->heap) return SYZ_ENOMEM;
    bpe->capacity = n;
    return SYZ_OK;
}

static bool before(const struct syz_candidate *a, const struct syz_candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(syz_bpe *bpe, const syz_merges *merges, int32_t at) {
    if (at < 0 || bpe->symbol[at].next < 0) return;
    int32_t left = bpe->symbol[at].id, right = bpe->symbol[bpe->symbol[at].next].id;
    const syz_merge *merge = syz_merges_find(merges, left, right);
    if (!merge) return;
    struct syz_candidate new = {merge->rank, at, left, right, merge->id};
    size_t i = bpe->heap_n++;
    for (; i > 0 && before(&new, &bpe->heap[(i - 1) / 2]); i = (i - 1) / 2)
        bpe->heap[i] = bpe->heap[(i - 1) / 2];
    bpe->heap[i] = new;
}

static struct syz_candidate pop(syz_bpe *bpe) {
    struct syz_candidate top = bpe->heap[0], last = bpe->heap[--bpe->heap_n];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < bpe->heap_n) {
        if (child + 1 < bpe->heap_n && before(&bpe->heap[child + 1], &bpe->heap[child])) child++;
        if (!before(&bpe->heap[child], &last)) break;
        bpe->heap[i] = bpe->heap[child];
        i = child;
    }
    bpe->heap[i] = last;
    return top;
}

static bool fresh(const struct syz_symbol *symbol, const struct syz_candidate *c) {
    return symbol[c->at].id == c->left && symbol[c->at].next >= 0 && symbol[symbol[c->at].next].id == c->right;
}

syz_status syz_bpe_apply(syz_bpe *bpe, const syz_merges *merges, int32_t *ids, size_t n, size_t *out_n) {
    SYZ_TRY(reserve(bpe, n));
    struct syz_symbol *symbol = bpe->symbol;
    for (size_t i = 0; i < n; i++)
        symbol[i] = (struct syz_symbol){ids[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    bpe->heap_n = 0;
    for (size_t i = 0; i < n; i++)
        push(bpe, merges, (int32_t)i);
    while (bpe->heap_n > 0) {
        struct syz_candidate c = pop(bpe);
        if (!fresh(symbol, &c)) continue;
        int32_t right = symbol[c.at].next, next = symbol[right].next;
        symbol[c.at].id = c.id;
        symbol[c.at].next = next;
        symbol[right].id = -1;
        if (next >= 0) symbol[next].previous = c.at;
        push(bpe, merges, symbol[c.at].previous);
        push(bpe, merges, c.at);
    }
    *out_n = 0;
    for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = symbol[i].next)
        ids[(*out_n)++] = symbol[i].id;
    return SYZ_OK;
}
