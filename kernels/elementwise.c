#include "kernels/kernels.h"
#include "kernels/parallel.h"

#include <math.h>

/* One innermost row: y[i] = a[i * sa] (op) b[i * sb], with the steps that matter (0 and 1) as constants so that each
 * combination vectorises. */
#define ROW(expression)                                                                                                \
    if (sa == 1 && sb == 1) {                                                                                          \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float p = a[i], q = b[i];                                                                                  \
            y[i] = expression;                                                                                         \
        }                                                                                                              \
    } else if (sa == 1 && sb == 0) {                                                                                   \
        float q = b[0];                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float p = a[i];                                                                                            \
            y[i] = expression;                                                                                         \
        }                                                                                                              \
    } else {                                                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float p = a[i * sa], q = b[i * sb];                                                                        \
            y[i] = expression;                                                                                         \
        }                                                                                                              \
    }

static void binary_row(float *restrict y, const float *a, int64_t sa, const float *b, int64_t sb, int64_t n,
                       syz_binary op) {
    switch (op) {
    case SYZ_BINARY_ADD:
        ROW(p + q) break;
    case SYZ_BINARY_SUB:
        ROW(p - q) break;
    case SYZ_BINARY_MUL:
        ROW(p * q) break;
    case SYZ_BINARY_DIV:
        ROW(p / q) break;
    case SYZ_BINARY_MAX:
        ROW(p > q ? p : q) break;
    case SYZ_BINARY_MIN:
        ROW(p < q ? p : q) break;
    }
}

int syz_cpu_binary(float *y, const float *a, const float *b, const syz_nest *nest, syz_binary op) {
    int last = nest->n - 1;
    int64_t inner = nest->dim[last], outer = 1, chunk = inner, pieces = 1;
    for (int d = 0; d < last; d++)
        outer *= nest->dim[d];
    /* A single long row is cut so that all threads get a part. */
    if (outer == 1 && inner > SYZ_PARALLEL_MIN) {
        chunk = SYZ_PARALLEL_MIN / 2;
        pieces = (inner + chunk - 1) / chunk;
    }
#pragma omp parallel for schedule(static) if (outer * inner > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < outer * pieces; row++) {
        int64_t rest = row / pieces, start = row % pieces * chunk, pa = 0, pb = 0;
        for (int d = last - 1; d >= 0; d--) {
            int64_t index = rest % nest->dim[d];
            rest /= nest->dim[d];
            pa += index * nest->a[d];
            pb += index * nest->b[d];
        }
        int64_t n = inner - start < chunk ? inner - start : chunk;
        binary_row(y + row / pieces * inner + start, a + pa + start * nest->a[last], nest->a[last],
                   b + pb + start * nest->b[last], nest->b[last], n, op);
    }
    return 0;
}

int syz_cpu_affine(float *y, const float *x, float scale, float shift, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * x[i] + shift;
    return 0;
}

int syz_cpu_axpy(float *y, const float *x, float scale, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] += scale * x[i];
    return 0;
}

int syz_cpu_clamp(float *y, const float *x, float low, float high, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
    return 0;
}

int syz_cpu_clamp_backward(float *dx, const float *dy, const float *x, float low, float high, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        dx[i] = x[i] >= low && x[i] <= high ? dy[i] : 0.0f;
    return 0;
}

int syz_cpu_pow(float *y, const float *x, float exponent, int64_t n) {
#pragma omp parallel for schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] = powf(x[i], exponent);
    return 0;
}
