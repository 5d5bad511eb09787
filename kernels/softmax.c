#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd_math.h"

/* [outer,n,inner] is cut into strips of columns; every loop runs over a strip's columns. With inner == 1 (the usual
 * last dimension) the rows have loops of their own. */
enum { STRIP = 64 };

static void row(float *y, const float *x, int64_t n, bool logarithm) {
    float top = -INFINITY, sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        y[i] = syz_expf(x[i] - top);
        sum += y[i];
    }
    if (logarithm) {
        float shift = top + logf(sum);
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] - shift;
    } else {
        float factor = 1 / sum;
        for (int64_t i = 0; i < n; i++)
            y[i] *= factor;
    }
}

static void columns(float *y, const float *x, int64_t n, int64_t inner, int64_t m, bool logarithm) {
    float top[STRIP], sum[STRIP] = {0};
    for (int64_t j = 0; j < m; j++)
        top[j] = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            top[j] = x[i * inner + j] > top[j] ? x[i * inner + j] : top[j];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < m; j++) {
            float e = syz_expf(x[i * inner + j] - top[j]);
            y[i * inner + j] = e;
            sum[j] += e;
        }
    }
    for (int64_t j = 0; j < m; j++)
        sum[j] = logarithm ? top[j] + logf(sum[j]) : 1 / sum[j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            y[i * inner + j] = logarithm ? x[i * inner + j] - sum[j] : y[i * inner + j] * sum[j];
}

int syz_cpu_softmax(float *y, const float *x, int64_t outer, int64_t n, int64_t inner, bool logarithm) {
    int64_t strips = (inner + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) if (outer * n * inner > SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < outer * strips; k++) {
        int64_t first = k % strips * STRIP, at = k / strips * n * inner + first;
        if (inner == 1)
            row(y + at, x + at, n, logarithm);
        else
            columns(y + at, x + at, n, inner, inner - first < STRIP ? inner - first : STRIP, logarithm);
    }
    return 0;
}

/* softmax: dx = y (dy - sum(dy y)); logarithm: dx = dy - exp(y) sum(dy) */
static void row_backward(float *dx, const float *dy, const float *y, int64_t n, bool logarithm) {
    float sum = 0;
    if (logarithm) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += dy[i];
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] - syz_expf(y[i]) * sum;
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += dy[i] * y[i];
        for (int64_t i = 0; i < n; i++)
            dx[i] = y[i] * (dy[i] - sum);
    }
}

static void columns_backward(float *dx, const float *dy, const float *y, int64_t n, int64_t inner, int64_t m,
                             bool logarithm) {
    float sum[STRIP] = {0};
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            sum[j] += logarithm ? dy[i * inner + j] : dy[i * inner + j] * y[i * inner + j];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < m; j++) {
            float g = dy[i * inner + j], v = y[i * inner + j];
            dx[i * inner + j] = logarithm ? g - syz_expf(v) * sum[j] : v * (g - sum[j]);
        }
    }
}

int syz_cpu_softmax_backward(float *dx, const float *dy, const float *y, int64_t outer, int64_t n, int64_t inner,
                             bool logarithm) {
    int64_t strips = (inner + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) if (outer * n * inner > SYZ_PARALLEL_MIN)
    for (int64_t k = 0; k < outer * strips; k++) {
        int64_t first = k % strips * STRIP, at = k / strips * n * inner + first;
        if (inner == 1)
            row_backward(dx + at, dy + at, y + at, n, logarithm);
        else
            columns_backward(dx + at, dy + at, y + at, n, inner, inner - first < STRIP ? inner - first : STRIP,
                             logarithm);
    }
    return 0;
}
