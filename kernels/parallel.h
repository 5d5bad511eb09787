/* When a loop is worth the pool: waking two threads costs about as much as 10^4 simple operations. */
#ifndef SYZ_PARALLEL_H
#define SYZ_PARALLEL_H

#include <stdint.h>

enum { SYZ_PARALLEL_MIN = 16384 };

/* A sum over a whole array is taken in this many pieces, added in order: the same bits for any number of threads. */
enum { SYZ_PIECES = 64 };

/* Where piece k of n values begins; piece SYZ_PIECES begins at n. */
static inline int64_t syz_piece(int64_t n, int64_t k) {
    return n / SYZ_PIECES * k + (n % SYZ_PIECES) * k / SYZ_PIECES;
}

#endif
