#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <string.h>

typedef struct {
    int64_t index[SYZ_KERNEL_DIMS], a, b; /* position, and its offset in x and y */
} odometer;

static void odometer_set(odometer *o, const syz_nest *nest, int dims, int64_t row) {
    o->a = o->b = 0;
    for (int d = dims - 1; d >= 0; d--) {
        o->index[d] = row % nest->dim[d];
        row /= nest->dim[d];
        o->a += o->index[d] * nest->a[d];
        o->b += o->index[d] * nest->b[d];
    }
}

/* Forward by `count` rows, which must not pass the end of the last dimension. */
static void odometer_advance(odometer *o, const syz_nest *nest, int dims, int64_t count) {
    for (int d = dims - 1; d >= 0; d--) {
        o->a += count * nest->a[d];
        o->b += count * nest->b[d];
        if ((o->index[d] += count) < nest->dim[d]) return;
        o->a -= nest->dim[d] * nest->a[d];
        o->b -= nest->dim[d] * nest->b[d];
        o->index[d] = 0;
        count = 1;
    }
}

/* Runs up to 1 KiB cost more in calls to memcpy than in moving. */
static inline void copy_bytes(char *restrict y, const char *restrict x, size_t bytes) {
    if (bytes <= 1024 && bytes % 32 == 0) {
        for (size_t i = 0; i < bytes; i += 32)
            memcpy(y + i, x + i, 32);
    } else if (bytes <= 256 && bytes % 16 == 0) {
        for (size_t i = 0; i < bytes; i += 16)
            memcpy(y + i, x + i, 16);
    } else {
        memcpy(y, x, bytes);
    }
}

/* A repeated element is the common case besides real steps, and vectorises. */
#define STRIDED(type)                                                                                                  \
    {                                                                                                                  \
        type *restrict to = y;                                                                                         \
        const type *restrict from = x;                                                                                 \
        if (a == 0 && b == 1) {                                                                                        \
            type value = *from;                                                                                        \
            for (int64_t i = 0; i < n; i++)                                                                            \
                to[i] = value;                                                                                         \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++)                                                                            \
                to[i * b] = from[i * a];                                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    break

static void strided_row(void *y, int64_t b, const void *x, int64_t a, int64_t n, size_t size) {
    switch (size) {
    case 1:
        STRIDED(uint8_t);
    case 2:
        STRIDED(uint16_t);
    case 4:
        STRIDED(uint32_t);
    default:
        STRIDED(uint64_t);
    }
}

/* `rows` rows along the last dimension, at steps of the one before it. */
static void copy_rows(char *y, const char *x, const syz_nest *nest, int64_t rows, size_t size) {
    int last = nest->n - 1;
    int64_t n = nest->dim[last], a = nest->a[last], b = nest->b[last], bytes = (int64_t)size;
    int64_t down_a = last ? nest->a[last - 1] * bytes : 0, down_b = last ? nest->b[last - 1] * bytes : 0;
    for (int64_t row = 0; row < rows; row++) {
        if (a == 1 && b == 1)
            copy_bytes(y + row * down_b, x + row * down_a, (size_t)(n * bytes));
        else
            strided_row(y + row * down_b, b, x + row * down_a, a, n, size);
    }
}

/* The dimension along which x is contiguous, when that is not the last one and the elements are 4 bytes; else -1. */
static int crossing(const syz_nest *nest, size_t size) {
    int last = nest->n - 1;
    if (size != 4 || nest->b[last] != 1 || nest->a[last] <= 1) return -1;
    for (int d = 0; d < last; d++)
        if (nest->a[d] == 1 && nest->dim[d] >= 4) return d;
    return -1;
}

/* Transposes planes (d, last) in tiles, so that both sides stay in the first cache. */
static void copy_crossing(uint32_t *y, const uint32_t *x, const syz_nest *nest, int d) {
    enum { TILE = 32 };
    int last = nest->n - 1, dims = 0;
    int64_t rows = nest->dim[d], columns = nest->dim[last], planes = 1;
    int64_t step_y = nest->b[d], step_x = nest->a[last];
    syz_nest outer = {0};
    for (int k = 0; k < last; k++) {
        if (k == d) continue;
        outer.dim[dims] = nest->dim[k];
        outer.a[dims] = nest->a[k];
        outer.b[dims++] = nest->b[k];
        planes *= nest->dim[k];
    }
    int64_t tiles = (rows + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) if (planes * rows * columns > SYZ_PARALLEL_MIN)
    for (int64_t work = 0; work < planes * tiles; work++) {
        odometer o;
        odometer_set(&o, &outer, dims, work / tiles);
        int64_t r0 = work % tiles * TILE, r1 = r0 + TILE < rows ? r0 + TILE : rows;
        for (int64_t c0 = 0; c0 < columns; c0 += TILE) {
            int64_t c1 = c0 + TILE < columns ? c0 + TILE : columns;
            for (int64_t r = r0; r < r1; r++)
                for (int64_t c = c0; c < c1; c++)
                    y[o.b + r * step_y + c] = x[o.a + r + c * step_x];
        }
    }
}

int syz_cpu_copy(void *y, const void *x, const syz_nest *nest, size_t size) {
    int last = nest->n - 1, cross = crossing(nest, size);
    if (cross >= 0) {
        copy_crossing(y, x, nest, cross);
        return 0;
    }
    int64_t inner = nest->dim[last], rows = 1;
    for (int d = 0; d < last; d++)
        rows *= nest->dim[d];
    int64_t chunk = SYZ_PARALLEL_MIN / 2 / inner + 1, chunks = (rows + chunk - 1) / chunk;
#pragma omp parallel for schedule(static) if (rows * inner > SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < chunks; k++) {
        int64_t stop = (k + 1) * chunk < rows ? (k + 1) * chunk : rows;
        odometer o;
        odometer_set(&o, nest, last, k * chunk);
        for (int64_t row = k * chunk, step; row < stop; row += step) {
            step = last ? nest->dim[last - 1] - o.index[last - 1] : 1;
            if (step > stop - row) step = stop - row;
            copy_rows((char *)y + o.b * (int64_t)size, (const char *)x + o.a * (int64_t)size, nest, step, size);
            odometer_advance(&o, nest, last, step);
        }
    }
    return 0;
}

int syz_cpu_fill(void *y, uint64_t element, size_t size, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)y + (size_t)i * size, &element, size == 8 ? 8 : size == 4 ? 4 : size == 2 ? 2 : 1);
    return 0;
}

int syz_cpu_gather(void *y, const void *x, const int64_t *ids, int64_t outer, int64_t n, int64_t count, size_t bytes) {
#pragma omp parallel for schedule(static) if (outer * count * (int64_t)bytes > 4 * SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < outer * count; k++)
        copy_bytes((char *)y + (size_t)k * bytes, (const char *)x + (size_t)(k / count * n + ids[k % count]) * bytes,
                   bytes);
    return 0;
}

/* Strips of the inner dimension run in parallel; inside one, ids are added in order. */
int syz_cpu_scatter_add(float *dx, const float *dy, const int64_t *ids, int64_t outer, int64_t n, int64_t count,
                        int64_t inner) {
    enum { STRIP = 64 };
    int64_t strips = (inner + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) if (outer * count * inner > SYZ_PARALLEL_MIN)
    for (int64_t work = 0; work < outer * strips; work++) {
        int64_t o = work / strips, start = work % strips * STRIP;
        int64_t stop = start + STRIP < inner ? start + STRIP : inner;
        for (int64_t k = 0; k < count; k++) {
            float *to = dx + (o * n + ids[k]) * inner;
            const float *from = dy + (o * count + k) * inner;
            for (int64_t i = start; i < stop; i++)
                to[i] += from[i];
        }
    }
    return 0;
}
