#include "kernels/product.h"
#include "kernels/parallel.h"
#include "kernels/tile.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Blocks of b [DEEP,WIDE] and a [HIGH,DEEP] are packed in turn into panels of PANEL columns and ROWS rows, so that the
 * innermost loop reads both in order: a panel of b stays in the first-level cache, the block of a in the second. */
enum { ROWS = 6, PANEL = 2 * SYZ_LANES, HIGH = 16 * ROWS, WIDE = 32 * PANEL, DEEP = 256 };
enum { WORK = DEEP * (HIGH + WIDE) }; /* floats per thread */

/* to: panels [k][ROWS], padded with zeros; a[i * row + t * col] */
static void pack_rows(float *restrict to, const float *a, int64_t row, int64_t col, int64_t m, int64_t k) {
    for (int64_t i = 0; i < m; i += ROWS, to += ROWS * k) {
        int64_t rows = m - i < ROWS ? m - i : ROWS;
        if (row == 1 && rows == ROWS) {
            for (int64_t t = 0; t < k; t++)
                memcpy(to + t * ROWS, a + i + t * col, ROWS * sizeof *to);
            continue;
        }
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t t = 0; t < k; t++)
                to[t * ROWS + r] = r < rows ? a[(i + r) * row + t * col] : 0;
    }
}

/* to: panels [k][PANEL], padded with zeros; b[t * row + j * col] */
static void pack_columns(float *restrict to, const float *b, int64_t row, int64_t col, int64_t k, int64_t n) {
    for (int64_t j = 0; j < n; j += PANEL, to += PANEL * k) {
        int64_t columns = n - j < PANEL ? n - j : PANEL;
        if (col == 1 && columns == PANEL) {
            for (int64_t t = 0; t < k; t++)
                memcpy(to + t * PANEL, b + t * row + j, PANEL * sizeof *to);
            continue;
        }
        for (int64_t c = 0; c < PANEL; c++)
            for (int64_t t = 0; t < k; t++)
                to[t * PANEL + c] = c < columns ? b[t * row + (j + c) * col] : 0;
    }
}

/* The last columns of y end inside a panel: compute aside, then move what exists. */
static void edge(syz_tile t, int64_t rows, int64_t columns) {
    float aside[ROWS * PANEL];
    syz_tile whole = t;
    whole.c = aside;
    whole.ldc = PANEL;
    whole.add = false;
    syz_tile_rows(&whole, rows);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            t.c[i * t.ldc + j] = (t.add ? t.c[i * t.ldc + j] : 0) + aside[i * PANEL + j];
}

/* y [m,n], rows ldy apart, (+)= the packed blocks */
static void multiply_blocks(float *y, int64_t ldy, const float *a, const float *b, int64_t m, int64_t n, int64_t k,
                            bool add) {
    for (int64_t j = 0; j < n; j += PANEL) {
        for (int64_t i = 0; i < m; i += ROWS) {
            syz_tile t = {y + i * ldy + j, a + i * k, b + j * k, ldy, 1, ROWS, PANEL, k, add};
            int64_t rows = m - i < ROWS ? m - i : ROWS;
            if (n - j < PANEL)
                edge(t, rows, n - j);
            else
                syz_tile_rows(&t, rows);
        }
    }
}

/* One thread's rectangle of y: m x n from (i0, j0). */
static void rectangle(float *y, const float *a, const float *b, const syz_product *p, int64_t i0, int64_t m, int64_t j0,
                      int64_t n, float *work) {
    float *packed_a = work, *packed_b = work + DEEP * HIGH;
    for (int64_t j = j0; j < j0 + n; j += WIDE) {
        int64_t nj = j0 + n - j < WIDE ? j0 + n - j : WIDE;
        for (int64_t t = 0; t < p->k; t += DEEP) {
            int64_t nt = p->k - t < DEEP ? p->k - t : DEEP;
            pack_columns(packed_b, b + t * p->b[1] + j * p->b[2], p->b[1], p->b[2], nt, nj);
            for (int64_t i = i0; i < i0 + m; i += HIGH) {
                int64_t ni = i0 + m - i < HIGH ? i0 + m - i : HIGH;
                pack_rows(packed_a, a + i * p->a[1] + t * p->a[2], p->a[1], p->a[2], ni, nt);
                multiply_blocks(y + i * p->n + j, p->n, packed_a, packed_b, ni, nj, nt, t > 0);
            }
        }
    }
}

/* Grid of rectangles, `down` x `across` = threads, with the shortest sides: least packing. */
static int64_t choose_down(const syz_product *p, int64_t threads) {
    int64_t best = 1;
    double least = 1e300;
    for (int64_t down = 1; down <= threads; down++) {
        double sides = (double)p->m / (double)down + (double)p->n * (double)down / (double)threads;
        if (threads % down == 0 && sides < least) {
            least = sides;
            best = down;
        }
    }
    return best;
}

/* Where part k of `parts` begins among n, in whole panels of `unit`. */
static int64_t begin(int64_t n, int64_t unit, int64_t k, int64_t parts) {
    int64_t panels = (n + unit - 1) / unit, at = panels * k / parts * unit;
    return at < n ? at : n;
}

int syz_packed_product(float *y, const float *a, const float *b, const syz_product *p) {
    static float *work;
    static int64_t room; /* threads it serves */
    int64_t threads = p->m * p->n * p->k > SYZ_PARALLEL_MIN ? omp_get_max_threads() : 1;
    if (room < threads) {
        free(work);
        work = aligned_alloc(64, (size_t)threads * WORK * sizeof *work);
        room = work ? threads : 0;
    }
    if (!work) return -1;
    int64_t down = choose_down(p, threads), across = threads / down;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int64_t k = 0; k < threads; k++) {
        int64_t i = begin(p->m, ROWS, k / across, down), j = begin(p->n, PANEL, k % across, across);
        int64_t m = begin(p->m, ROWS, k / across + 1, down) - i, n = begin(p->n, PANEL, k % across + 1, across) - j;
        rectangle(y, a, b, p, i, m, j, n, work + k * WORK);
    }
    return 0;
}
