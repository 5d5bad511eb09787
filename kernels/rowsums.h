/* Sums over rows in two phases with an order that does not depend on the threads: each block of rows into a row of
 * its own, then the blocks of a span together. */
#ifndef SYZ_ROWSUMS_H
#define SYZ_ROWSUMS_H

#include "kernels/kernels.h"

#include <string.h>

/* How many blocks of rows the sums are cut into, whatever the number of threads. */
static inline int64_t syz_norm_blocks(const syz_norm_shape *s) {
    int64_t spans = s->rows / s->span, cuts = spans >= 16 ? 1 : 16 / spans;
    return spans * (cuts < s->span ? cuts : s->span);
}

/* Bytes of scratch for the block sums of two outputs. */
static inline size_t syz_block_sums_size(const syz_norm_shape *s) {
    return 2 * (size_t)(syz_norm_blocks(s) * s->width) * sizeof(float);
}

typedef struct {
    int64_t span, start, stop; /* which row of weights, and the rows of this block */
} syz_row_range;

static inline syz_row_range syz_block_rows(const syz_norm_shape *s, int64_t block) {
    int64_t cuts = syz_norm_blocks(s) / (s->rows / s->span), span = block / cuts, cut = block % cuts;
    return (syz_row_range){span, span * s->span + s->span * cut / cuts, span * s->span + s->span * (cut + 1) / cuts};
}

static inline void syz_clear_row(float *rows, int64_t row, int64_t n) {
    if (rows) memset(rows + row * n, 0, (size_t)n * sizeof *rows);
}

static inline void syz_add_row(float *restrict sum, const float *restrict g, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        sum[i] += g[i];
}

/* sum += g * (x - mean) * scale */
static inline void syz_add_scaled(float *restrict sum, const float *restrict g, const float *restrict x, float mean,
                                  float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        sum[i] += g[i] * (x[i] - mean) * scale;
}

/* y [spans,width] = the blocks of each span added in order; nothing when y is NULL */
static inline void syz_sum_blocks(float *y, const float *blocks, const syz_norm_shape *s) {
    int64_t spans = s->rows / s->span, cuts = syz_norm_blocks(s) / spans, n = s->width;
    if (!y) return;
    for (int64_t span = 0; span < spans; span++) {
        memcpy(y + span * n, blocks + span * cuts * n, (size_t)n * sizeof *y);
        for (int64_t cut = 1; cut < cuts; cut++)
            syz_add_row(y + span * n, blocks + (span * cuts + cut) * n, n);
    }
}

#endif
