#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <string.h>

/* One output row as a weighted sum of input rows. */
static void weighted_rows(float *restrict y, const float *restrict x, const float *weight, int64_t count,
                          int64_t inner) {
    memset(y, 0, (size_t)inner * sizeof *y);
    for (int64_t k = 0; k < count; k++) {
        const float *restrict from = x + k * inner;
        float w = weight[k];
        for (int64_t i = 0; i < inner; i++)
            y[i] += w * from[i];
    }
}

/* Colour pixels: three sums in registers. */
static void weighted_pixel(float *restrict y, const float *restrict x, const float *weight, int64_t count) {
    float r = 0, g = 0, b = 0;
    for (int64_t k = 0; k < count; k++) {
        r += weight[k] * x[3 * k];
        g += weight[k] * x[3 * k + 1];
        b += weight[k] * x[3 * k + 2];
    }
    y[0] = r;
    y[1] = g;
    y[2] = b;
}

int syz_cpu_resample(float *y, const float *x, const syz_taps *taps, int64_t outer, int64_t inner) {
    int64_t rows = outer * taps->out;
#pragma omp parallel for schedule(static) if (rows * inner * taps->most > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < rows; row++) {
        int64_t i = row % taps->out;
        const float *from = x + (row / taps->out * taps->in + taps->start[i]) * inner;
        if (inner == 3)
            weighted_pixel(y + row * 3, from, taps->weight + i * taps->most, taps->count[i]);
        else
            weighted_rows(y + row * inner, from, taps->weight + i * taps->most, taps->count[i], inner);
    }
    return 0;
}
