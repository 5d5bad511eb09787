#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd_math.h"

int syz_cpu_cross_entropy(float *loss, float *lse, const float *x, const int64_t *target, int64_t n, int64_t c) {
#pragma omp parallel for schedule(static) if (n * c > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + i * c;
        float top = -INFINITY, total = 0;
#pragma omp simd reduction(max : top)
        for (int64_t j = 0; j < c; j++)
            top = row[j] > top ? row[j] : top;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < c; j++)
            total += syz_expf(row[j] - top);
        lse[i] = top + logf(total);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)lse[i] - x[i * c + target[i]];
    *loss = (float)(sum / (double)n);
    return 0;
}

int syz_cpu_cross_entropy_backward(float *dx, const float *dloss, const float *x, const float *lse,
                                   const int64_t *target, int64_t n, int64_t c) {
    float scale = *dloss / (float)n;
#pragma omp parallel for schedule(static) if (n * c > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < c; j++)
            dx[i * c + j] = scale * syz_expf(x[i * c + j] - lse[i]);
        dx[i * c + target[i]] -= scale;
    }
    return 0;
}

static double piece_distance(const float *a, const float *b, int64_t n, bool squared) {
    double sum = 0;
    if (squared) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += fabsf(a[i] - b[i]);
    }
    return sum;
}

int syz_cpu_distance(float *loss, const float *a, const float *b, int64_t n, bool squared) {
    double part[SYZ_PIECES];
#pragma omp parallel for schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < SYZ_PIECES; k++) {
        int64_t first = syz_piece(n, k);
        part[k] = piece_distance(a + first, b + first, syz_piece(n, k + 1) - first, squared);
    }
    double sum = 0;
    for (int64_t k = 0; k < SYZ_PIECES; k++)
        sum += part[k];
    *loss = (float)(sum / (double)n);
    return 0;
}

int syz_cpu_distance_backward(float *da, const float *dloss, const float *a, const float *b, int64_t n, bool squared) {
    float scale = *dloss / (float)n;
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        float d = a[i] - b[i];
        da[i] = scale * (squared ? 2 * d : d > 0 ? 1.0f : d < 0 ? -1.0f : d);
    }
    return 0;
}
