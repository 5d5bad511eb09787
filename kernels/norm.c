/* Layer and root-mean-square normalisation of rows, with weights per row span; L2 normalisation. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/rowsums.h"

#include <math.h>

static inline float row_mean(const float *x, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (float)n;
}

/* Around *mean, which the second pass corrects: what the first sum lost to rounding depends on how wide the processor's
 * vectors are. */
static inline float centred_variance(const float *x, float *mean, int64_t n) {
    float rest = 0, square = 0, around = *mean;
#pragma omp simd reduction(+ : rest, square)
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - around;
        rest += d;
        square += d * d;
    }
    float shift = rest / (float)n;
    *mean += shift;
    return square / (float)n - shift * shift;
}

static inline float mean_square(const float *x, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum / (float)n;
}

static inline void apply_row(float *restrict y, const float *restrict x, const float *restrict w,
                             const float *restrict b, float mean, float rstd, float offset, int64_t n) {
    if (w && b) {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * (offset + w[i]) + b[i];
    } else if (w) {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * (offset + w[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd + (b ? b[i] : 0.0f);
    }
}

int syz_cpu_norm(float *y, float *mean, float *rstd, const float *x, const float *weight, const float *bias,
                 const syz_norm_shape *shape, float eps) {
    int64_t n = shape->width;
#pragma omp parallel for schedule(static) if (shape->rows * n > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < shape->rows; row++) {
        const float *from = x + row * n;
        int64_t at = row / shape->span * n;
        float m = mean ? row_mean(from, n) : 0.0f;
        float spread = mean ? centred_variance(from, &m, n) : mean_square(from, n), r = 1.0f / sqrtf(spread + eps);
        apply_row(y + row * n, from, weight ? weight + at : NULL, bias ? bias + at : NULL, m, r, shape->offset, n);
        if (mean) mean[row] = m;
        rstd[row] = r;
    }
    return 0;
}

/* With g = dy * (offset + weight): dx = rstd * (g - mean(g) - xhat * mean(g * xhat)); without centring the second term
 * is absent. */
static inline void input_gradient(float *restrict dx, const float *restrict dy, const float *restrict x,
                                  const float *restrict w, float offset, float mean, float rstd, bool centred,
                                  int64_t n) {
    float sum = 0, dot = 0;
    if (w) {
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t i = 0; i < n; i++) {
            float g = dy[i] * (offset + w[i]);
            sum += g;
            dot += g * (x[i] - mean);
        }
    } else {
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t i = 0; i < n; i++) {
            sum += dy[i];
            dot += dy[i] * (x[i] - mean);
        }
    }
    float along = dot * rstd * rstd * rstd / (float)n, level = centred ? sum * rstd / (float)n : 0.0f;
    if (w) {
        for (int64_t i = 0; i < n; i++)
            dx[i] = rstd * dy[i] * (offset + w[i]) - level - (x[i] - mean) * along;
    } else {
        for (int64_t i = 0; i < n; i++)
            dx[i] = rstd * dy[i] - level - (x[i] - mean) * along;
    }
}

int syz_cpu_norm_backward(float *dx, float *dweight, float *dbias, const float *dy, const float *x, const float *mean,
                          const float *rstd, const float *weight, const syz_norm_shape *shape) {
    int64_t n = shape->width, blocks = syz_norm_blocks(shape);
    float *partial = NULL;
    if ((dweight || dbias) && !(partial = syz_block_alloc(syz_block_sums_size(shape)))) return -1;
    float *sum_w = dweight ? partial : NULL, *sum_b = dbias ? partial + blocks * n : NULL;
#pragma omp parallel for schedule(static) if (shape->rows * n > SYZ_PARALLEL_MIN)
    for (int64_t block = 0; block < blocks; block++) {
        syz_row_range range = syz_block_rows(shape, block);
        syz_clear_row(sum_w, block, n);
        syz_clear_row(sum_b, block, n);
        for (int64_t row = range.start; row < range.stop; row++) {
            const float *g = dy + row * n, *from = x + row * n;
            float m = mean ? mean[row] : 0.0f;
            if (dx)
                input_gradient(dx + row * n, g, from, weight ? weight + range.span * n : NULL, shape->offset, m,
                               rstd[row], mean != NULL, n);
            if (sum_w) syz_add_scaled(sum_w + block * n, g, from, m, rstd[row], n);
            if (sum_b) syz_add_row(sum_b + block * n, g, n);
        }
    }
    syz_sum_blocks(dweight, sum_w, shape);
    syz_sum_blocks(dbias, sum_b, shape);
    syz_block_free(partial, syz_block_sums_size(shape));
    return 0;
}

int syz_cpu_normalize(float *y, float *inverse, const float *x, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static) if (rows * width > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width;
        float *to = y + row * width, length = sqrtf(mean_square(from, width) * (float)width);
        float scale = 1.0f / (length > eps ? length : eps);
        for (int64_t i = 0; i < width; i++)
            to[i] = from[i] * scale;
        inverse[row] = scale;
    }
    return 0;
}

/* dx = inverse * (dy - y * (y . dy)); below eps the length is a constant and the second term is absent */
int syz_cpu_normalize_backward(float *dx, const float *dy, const float *y, const float *inverse, int64_t rows,
                               int64_t width, float eps) {
#pragma omp parallel for schedule(static) if (rows * width > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < rows; row++) {
        const float *g = dy + row * width, *from = y + row * width;
        float dot = 0, *to = dx + row * width;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; i++)
            dot += g[i] * from[i];
        if (inverse[row] >= 1.0f / eps) dot = 0;
        for (int64_t i = 0; i < width; i++)
            to[i] = inverse[row] * (g[i] - from[i] * dot);
    }
    return 0;
}
