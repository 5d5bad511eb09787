#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <string.h>

/* Sum of one contiguous row in double: long sums (a mean over a batch of images) keep f32 accuracy. */
static double row_sum(const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static int64_t offset_of(const syz_nest *nest, int64_t row, int last, const int64_t *step) {
    int64_t offset = 0;
    for (int d = last - 1; d >= 0; d--) {
        offset += row % nest->dim[d] * step[d];
        row /= nest->dim[d];
    }
    return offset;
}

/* [outer kept, inner summed]: one output per row, rows in parallel. */
static void sum_rows(float *y, const float *x, int64_t outer, int64_t inner, float scale) {
#pragma omp parallel for schedule(static) if (outer > 1 && outer * inner > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < outer; row++)
        y[row] = (float)(scale * row_sum(x + row * inner, inner));
}

/* [outer summed, inner kept], the gradient of a bias: columns in parallel, each added top to bottom. */
static void sum_columns(float *y, const float *x, int64_t outer, int64_t inner, float scale) {
    enum { STRIP = 64 };
#pragma omp parallel for schedule(static) if (outer * inner > SYZ_PARALLEL_MIN)
    for (int64_t start = 0; start < inner; start += STRIP) {
        int64_t n = inner - start < STRIP ? inner - start : STRIP;
        float sum[STRIP] = {0};
        for (int64_t row = 0; row < outer; row++)
            for (int64_t i = 0; i < n; i++)
                sum[i] += x[row * inner + start + i];
        for (int64_t i = 0; i < n; i++)
            y[start + i] = scale * sum[i];
    }
}

/* Any pattern, one thread: row by row into y. */
static void sum_general(float *y, const float *x, const syz_nest *nest, float scale, int64_t ny) {
    int last = nest->n - 1;
    int64_t inner = nest->dim[last], outer = 1;
    for (int d = 0; d < last; d++)
        outer *= nest->dim[d];
    memset(y, 0, (size_t)ny * sizeof *y);
    for (int64_t row = 0; row < outer; row++, x += inner) {
        float *to = y + offset_of(nest, row, last, nest->a);
        if (nest->a[last] == 0) {
            *to += (float)(scale * row_sum(x, inner));
        } else {
            for (int64_t i = 0; i < inner; i++)
                to[i] += scale * x[i];
        }
    }
}

int syz_cpu_sum(float *y, const float *x, const syz_nest *nest, float scale, int64_t ny) {
    if (nest->n == 1 && nest->a[0] == 0)
        sum_rows(y, x, 1, nest->dim[0], scale);
    else if (nest->n == 2 && nest->a[0] != 0 && nest->a[1] == 0)
        sum_rows(y, x, nest->dim[0], nest->dim[1], scale);
    else if (nest->n == 2 && nest->a[0] == 0 && nest->a[1] == 1)
        sum_columns(y, x, nest->dim[0], nest->dim[1], scale);
    else
        sum_general(y, x, nest, scale, ny);
    return 0;
}

int syz_cpu_argmax(int64_t *y, const float *x, int64_t outer, int64_t n, int64_t inner) {
#pragma omp parallel for schedule(static) if (outer * n * inner > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < outer * inner; row++) {
        const float *from = x + row / inner * n * inner + row % inner;
        int64_t best = 0;
        for (int64_t i = 1; i < n && from[best * inner] == from[best * inner]; i++)
            if (!(from[i * inner] <= from[best * inner])) best = i;
        y[row] = best;
    }
    return 0;
}
