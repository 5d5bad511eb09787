/* Root-mean-square norm of each head and its rotation while the head is in the cache. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/rowsums.h"

#include <math.h>

/* Where the heads of a token, counted over [batch,tokens], begin. */
static inline int64_t token_start(const syz_head_rows *s, const int64_t step[2], int64_t token) {
    return token / s->tokens * step[0] + token % s->tokens * step[1];
}

/* y = rotate(x * scale * w); w NULL: 1. y may be x. */
static inline void turn(float *y, const float *x, const float *w, float scale, const float *cosine, const float *sine,
                        float direction, int64_t dim) {
#pragma omp simd
    for (int64_t i = 0; i < dim / 2; i++) {
        float even = x[2 * i] * scale, odd = x[2 * i + 1] * scale, s = direction * sine[i];
        if (w) {
            even *= w[2 * i];
            odd *= w[2 * i + 1];
        }
        y[2 * i] = even * cosine[i] - odd * s;
        y[2 * i + 1] = odd * cosine[i] + even * s;
    }
}

static inline float root_of_squares(const float *x, int64_t dim, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < dim; i++)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(sum / (float)dim + eps);
}

int syz_cpu_head_norm(float *y, float *rstd, const float *x, const float *weight, const float *cosine,
                      const float *sine, const syz_head_rows *s, float eps) {
    int64_t tokens = s->batch * s->tokens, dim = s->dim;
#pragma omp parallel for schedule(static) if (tokens * s->heads * dim > SYZ_PARALLEL_MIN)
    for (int64_t token = 0; token < tokens; token++) {
        const float *from = x + token_start(s, s->x_step, token);
        float *to = y + token_start(s, s->y_step, token);
        int64_t angle = token % s->tokens * (dim / 2);
        for (int64_t h = 0; h < s->heads; h++, from += dim, to += dim) {
            float r = root_of_squares(from, dim, eps);
            turn(to, from, weight, r, cosine + angle, sine + angle, 1, dim);
            if (rstd) rstd[token * s->heads + h] = r;
        }
    }
    return 0;
}

/* dx holds dy rotated back, g; sum += g * xhat. Then, with g *= w: dx = rstd * (g - xhat * mean(g * xhat)). */
static inline void head_gradient(float *restrict dx, float *restrict sum, const float *restrict x,
                                 const float *restrict w, float rstd, int64_t dim) {
    float dot = 0;
    for (int64_t i = 0; sum && i < dim; i++)
        sum[i] += dx[i] * x[i] * rstd;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < dim; i++)
        dot += dx[i] * w[i] * x[i];
    float along = dot * rstd * rstd * rstd / (float)dim;
    for (int64_t i = 0; i < dim; i++)
        dx[i] = rstd * dx[i] * w[i] - x[i] * along;
}

int syz_cpu_head_norm_backward(float *dx, float *dweight, const float *dy, const float *x, const float *rstd,
                               const float *weight, const float *cosine, const float *sine, const syz_head_rows *s) {
    syz_norm_shape all = {.rows = s->batch * s->tokens, .width = s->dim, .span = s->batch * s->tokens};
    int64_t blocks = syz_norm_blocks(&all), dim = s->dim;
    float *partial = NULL;
    if (dweight && !(partial = syz_block_alloc(syz_block_sums_size(&all)))) return -1;
#pragma omp parallel for schedule(static) if (all.rows * s->heads * dim > SYZ_PARALLEL_MIN)
    for (int64_t block = 0; block < blocks; block++) {
        syz_row_range range = syz_block_rows(&all, block);
        syz_clear_row(partial, block, dim);
        for (int64_t token = range.start; token < range.stop; token++) {
            int64_t at = token_start(s, s->x_step, token), angle = token % s->tokens * (dim / 2);
            const float *g = dy + token_start(s, s->y_step, token);
            for (int64_t h = 0; h < s->heads; h++, at += dim, g += dim) {
                turn(dx + at, g, NULL, 1, cosine + angle, sine + angle, -1, dim);
                head_gradient(dx + at, partial ? partial + block * dim : NULL, x + at, weight,
                              rstd[token * s->heads + h], dim);
            }
        }
    }
    syz_sum_blocks(dweight, partial, &all);
    syz_block_free(partial, syz_block_sums_size(&all));
    return 0;
}
