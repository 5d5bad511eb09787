/* Small matrix products whose operands lie in the cache: C[m,n] (+)= A[m,k] B[k,n].
 *
 * B and C have contiguous rows of a multiple of SYZ_LANES columns; A is read one value at a time with any steps, so a
 * transposed A costs nothing. Up to 6 x 2 vectors are accumulated in registers, each over k in order. */
#ifndef SYZ_TILE_H
#define SYZ_TILE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __AVX512F__
enum { SYZ_LANES = 16 };
#else
enum { SYZ_LANES = 8 };
#endif

typedef float syz_lanes __attribute__((vector_size(SYZ_LANES * 4), aligned(4), may_alias));

static inline int64_t syz_lanes_up(int64_t n) {
    return (n + SYZ_LANES - 1) / SYZ_LANES * SYZ_LANES;
}

typedef struct {
    float *c;
    const float *a, *b;
    int64_t ldc, a_row, a_col, ldb, k;
    bool add;
} syz_tile;

/* `rows` (1..6) and `vectors` (1..2) are constants at every call: the loops unroll and acc lives in registers. */
static inline __attribute__((always_inline)) void syz_tile_run(const syz_tile *t, const int rows, const int vectors) {
    syz_lanes acc[6][2];
    float *c = t->c;
    const float *a = t->a, *b = t->b;
    int64_t ldc = t->ldc, a_row = t->a_row, a_col = t->a_col, ldb = t->ldb;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            acc[i][v] = t->add ? *(syz_lanes *)(c + i * ldc + v * SYZ_LANES) : (syz_lanes){0};
    for (int64_t k = t->k; k > 0; k--, a += a_col, b += ldb) {
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                acc[i][v] += a[i * a_row] * *(const syz_lanes *)(b + v * SYZ_LANES);
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            *(syz_lanes *)(c + i * ldc + v * SYZ_LANES) = acc[i][v];
}

#define SYZ_TILE_CASE(rows, vectors)                                                                                   \
    case rows:                                                                                                         \
        syz_tile_run(t, rows, vectors);                                                                                \
        break;

/* One tile of 1..6 rows and two vectors, or one vector. */
static inline void syz_tile_rows(const syz_tile *t, int64_t rows) {
    switch (rows) {
        SYZ_TILE_CASE(1, 2)
        SYZ_TILE_CASE(2, 2)
        SYZ_TILE_CASE(3, 2)
        SYZ_TILE_CASE(4, 2)
        SYZ_TILE_CASE(5, 2)
        SYZ_TILE_CASE(6, 2)
    }
}

static inline void syz_tile_rows_narrow(const syz_tile *t, int64_t rows) {
    switch (rows) {
        SYZ_TILE_CASE(1, 1)
        SYZ_TILE_CASE(2, 1)
        SYZ_TILE_CASE(3, 1)
        SYZ_TILE_CASE(4, 1)
        SYZ_TILE_CASE(5, 1)
        SYZ_TILE_CASE(6, 1)
    }
}

/* The rows are shared out evenly (32 as 5 5 5 5 6 6, not five times 6 and 2), since a thin tile leaves the units
 * waiting. */
static inline void syz_tile_product(syz_tile whole, int64_t m, int64_t n) {
    int64_t strips = (m + 5) / 6;
    for (int64_t j = 0; j < n; j += 2 * SYZ_LANES) {
        for (int64_t s = 0; s < strips; s++) {
            int64_t first = m * s / strips, rows = m * (s + 1) / strips - first;
            syz_tile t = whole;
            t.c += first * t.ldc + j;
            t.a += first * t.a_row;
            t.b += j;
            if (n - j > SYZ_LANES)
                syz_tile_rows(&t, rows);
            else
                syz_tile_rows_narrow(&t, rows);
        }
    }
}

#endif
