#include "text/trie.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"

static int by_text(const void *a, const void *b) {
    const syz_trie_key *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    if (order != 0) return order;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* The keys below a node: all of keys[first..last) share the node's first `depth` bytes. */
typedef struct {
    uint32_t first, last, depth;
} range;

/* Gives `node` its value and its children, which begin at `free`; returns how many there are. */
static uint32_t expand(syz_trie *trie, range *below, const syz_trie_key *keys, uint32_t node, uint32_t free) {
    range r = below[node];
    syz_trie_node *n = &trie->node[node];
    n->value = -1;
    n->child = free;
    for (; r.first < r.last && keys[r.first].size == r.depth; r.first++)
        n->value = r.depth > 0 ? keys[r.first].value : -1;
    for (uint32_t i = r.first, next; i < r.last; i = next) {
        unsigned char byte = (unsigned char)keys[i].text[r.depth];
        for (next = i + 1; next < r.last && (unsigned char)keys[next].text[r.depth] == byte; next++)
            ;
        uint32_t child = free + n->children++;
        trie->node[child].byte = byte;
        below[child] = (range){i, next, r.depth + 1};
        if (node == 0) trie->root[byte] = child;
    }
    return n->children;
}

/* How many nodes sorted keys need: one for each byte that a key does not share with the one before it. */
static size_t count_nodes(const syz_trie_key *keys, size_t count) {
    size_t nodes = 1;
    for (size_t i = 0; i < count; i++) {
        size_t shared = 0;
        while (i > 0 && shared < keys[i].size && shared < keys[i - 1].size &&
               keys[i].text[shared] == keys[i - 1].text[shared])
            shared++;
        nodes += keys[i].size - shared;
    }
    return nodes;
}

syz_status syz_trie_build(syz_trie *trie, syz_trie_key *keys, size_t count) {
    *trie = (syz_trie){0};
    if (count > 0) qsort(keys, count, sizeof *keys, by_text);
    size_t nodes = count_nodes(keys, count);
    if (count > INT32_MAX || nodes > INT32_MAX) return syz_fail(SYZ_EFORMAT, "a vocabulary of too many bytes");
    trie->node = syz_alloc(nodes, sizeof *trie->node);
    range *below = syz_alloc(nodes, sizeof *below);
    if (trie->node && below) {
        below[0] = (range){0, (uint32_t)count, 0};
        for (uint32_t node = 0, free = 1; node < nodes; node++)
            free += expand(trie, below, keys, node, free);
    }
    free(below);
    if (trie->node && below) return SYZ_OK;
    syz_trie_free(trie);
    return SYZ_ENOMEM;
}

void syz_trie_free(syz_trie *trie) {
    free(trie->node);
    *trie = (syz_trie){0};
}

int32_t syz_trie_longest(const syz_trie *trie, uint32_t node, const char *text, size_t size, size_t *length) {
    int32_t found = -1;
    *length = 0;
    for (size_t i = 0; i < size && (node = syz_trie_step(trie, node, (unsigned char)text[i])); i++) {
        if (trie->node[node].value < 0) continue;
        found = trie->node[node].value;
        *length = i + 1;
    }
    return found;
}

int32_t syz_trie_find(const syz_trie *trie, const char *text, size_t size) {
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++)
        if (!(node = syz_trie_step(trie, node, (unsigned char)text[i]))) return -1;
    return size > 0 ? trie->node[node].value : -1;
}
