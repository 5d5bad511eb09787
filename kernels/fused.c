#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/rowsums.h"

int syz_cpu_modulate(float *y, const float *x, const float *shift, const float *scale, const syz_norm_shape *shape) {
    int64_t n = shape->width;
#pragma omp parallel for schedule(static) if (shape->rows * n > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < shape->rows; row++) {
        const float *restrict from = x + row * n;
        const float *restrict add = shift + row / shape->span * n, *restrict times = scale + row / shape->span * n;
        float *restrict to = y + row * n;
        for (int64_t i = 0; i < n; i++)
            to[i] = from[i] * (1.0f + times[i]) + add[i];
    }
    return 0;
}

int syz_cpu_gate(float *y, const float *x, const float *gate, const float *h, const syz_norm_shape *shape) {
    int64_t n = shape->width;
#pragma omp parallel for schedule(static) if (shape->rows * n > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < shape->rows; row++) {
        const float *restrict base = x + row * n, *restrict add = h + row * n;
        const float *restrict times = gate + row / shape->span * n;
        float *restrict to = y + row * n;
        for (int64_t i = 0; i < n; i++)
            to[i] = base[i] + times[i] * add[i];
    }
    return 0;
}

int syz_cpu_modulate_backward(float *dx, float *dscale, float *dshift, const float *dy, const float *x,
                              const float *scale, const syz_norm_shape *shape) {
    int64_t n = shape->width, blocks = syz_norm_blocks(shape);
    float *partial = NULL;
    if ((dscale || dshift) && !(partial = syz_block_alloc(syz_block_sums_size(shape)))) return -1;
    float *sum_scale = dscale ? partial : NULL, *sum_shift = dshift ? partial + blocks * n : NULL;
#pragma omp parallel for schedule(static) if (shape->rows * n > SYZ_PARALLEL_MIN)
    for (int64_t block = 0; block < blocks; block++) {
        syz_row_range range = syz_block_rows(shape, block);
        const float *restrict times = scale + range.span * n;
        syz_clear_row(sum_scale, block, n);
        syz_clear_row(sum_shift, block, n);
        for (int64_t row = range.start; row < range.stop; row++) {
            const float *restrict g = dy + row * n;
            if (dx) {
                float *restrict to = dx + row * n;
                for (int64_t i = 0; i < n; i++)
                    to[i] = g[i] * (shape->offset + times[i]);
            }
            if (sum_scale) syz_add_scaled(sum_scale + block * n, g, x + row * n, 0.0f, 1.0f, n);
            if (sum_shift) syz_add_row(sum_shift + block * n, g, n);
        }
    }
    syz_sum_blocks(dscale, sum_scale, shape);
    syz_sum_blocks(dshift, sum_shift, shape);
    syz_block_free(partial, syz_block_sums_size(shape));
    return 0;
}
