/* A set of byte strings with a number each, for reading the longest or every prefix of a text. */
#ifndef SYZ_TEXT_TRIE_H
#define SYZ_TEXT_TRIE_H

#include "syzygy.h"

typedef struct {
    const char *text; /* borrowed while the trie is built */
    uint32_t size;
    int32_t value; /* >= 0 */
} syz_trie_key;

typedef struct {
    int32_t value;  /* of the string that ends here; -1: none */
    uint32_t child; /* children lie side by side, in the order of their bytes */
    uint16_t children;
    unsigned char byte; /* the one that leads here */
} syz_trie_node;

/* Zero: a trie without strings, in which every step fails. */
typedef struct {
    syz_trie_node *node; /* node[0] is the root */
    uint32_t root[256];  /* its children by byte; 0: none */
} syz_trie;

/* Builds from keys[0..count), which are sorted in place. Of equal strings the largest value counts; empty ones are left
 * out. SYZ_ENOMEM. */
syz_status syz_trie_build(syz_trie *trie, syz_trie_key *keys, size_t count);
void syz_trie_free(syz_trie *trie);

/* The node one byte further, 0 if there is none. Nodes are numbered from 1; start with the root, 0. */
static inline uint32_t syz_trie_step(const syz_trie *trie, uint32_t node, unsigned char byte) {
    if (node == 0) return trie->root[byte];
    uint32_t low = trie->node[node].child, high = low + trie->node[node].children, end = high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (trie->node[middle].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && trie->node[low].byte == byte ? low : 0;
}

/* The value of exactly this string, or -1. */
int32_t syz_trie_find(const syz_trie *trie, const char *text, size_t size);

/* The value of the longest string that text[0..size) begins with, and its length; -1 if none. `node` is where the walk
 * begins: the root, or what a common beginning led to. */
int32_t syz_trie_longest(const syz_trie *trie, uint32_t node, const char *text, size_t size, size_t *length);

#endif
