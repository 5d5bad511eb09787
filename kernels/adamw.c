#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <math.h>

/* PyTorch's order of operations. */
int syz_cpu_adamw(float *p, float *m, float *v, const float *g, const syz_adamw_numbers *s, int64_t n) {
    const syz_adamw_numbers k = *s;
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        m[i] += k.rest1 * (g[i] - m[i]);
        v[i] = k.beta2 * v[i] + k.rest2 * g[i] * g[i];
        p[i] = k.decay * p[i] - k.step * m[i] / (sqrtf(v[i]) / k.root + k.eps);
    }
    return 0;
}

int syz_cpu_lerp(float *y, const float *x, float weight, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] += weight * (x[i] - y[i]);
    return 0;
}

static double piece_squares(const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

int syz_cpu_sum_squares(double *sum, const float *x, int64_t n) {
    double part[SYZ_PIECES];
#pragma omp parallel for schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < SYZ_PIECES; k++)
        part[k] = piece_squares(x + syz_piece(n, k), syz_piece(n, k + 1) - syz_piece(n, k));
    *sum = 0;
    for (int64_t k = 0; k < SYZ_PIECES; k++)
        *sum += part[k];
    return 0;
}
