/* Group normalisation of [n,area,channels] with an optional SiLU behind it.
 *
 * Channel sums are taken in blocks of positions and combined in double; blocks do not depend on the threads. With at
 * least one sample for each thread, a thread does a whole sample, so that the second pass finds it in the cache. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd_math.h"

#include <omp.h>
#include <string.h>

static int64_t block_count(const syz_group_norm_shape *s) {
    return (s->area + SYZ_GROUP_NORM_BLOCK - 1) / SYZ_GROUP_NORM_BLOCK;
}

/* Bytes of scratch: see `task`. */
static size_t scratch_size(const syz_group_norm_shape *s) {
    return (size_t)(s->channels * s->n * (3 * block_count(s) + 4)) * sizeof(float);
}

static int64_t block_size(const syz_group_norm_shape *s, int64_t block) {
    int64_t rest = s->area - block * SYZ_GROUP_NORM_BLOCK;
    return rest < SYZ_GROUP_NORM_BLOCK ? rest : SYZ_GROUP_NORM_BLOCK;
}

/* Everything one direction needs; the passes below are functions of (task, sample, block). */
typedef struct {
    const syz_group_norm_shape *shape;
    const float *x, *dy, *weight, *bias;
    float *y, *dx, *mean, *rstd, *dweight, *dbias;
    float *rows; /* scratch: three rows for each (sample, block), then four for each sample */
    float eps;
} task;

static float *block_rows(const task *t, int64_t n, int64_t block) {
    return t->rows + (n * block_count(t->shape) + block) * 3 * t->shape->channels;
}

static float *sample_rows(const task *t, int64_t n) {
    return t->rows + t->shape->n * block_count(t->shape) * 3 * t->shape->channels + n * 4 * t->shape->channels;
}

static const float *positions(const task *t, const float *x, int64_t n, int64_t block) {
    return x + (n * t->shape->area + block * SYZ_GROUP_NORM_BLOCK) * t->shape->channels;
}

/* ---- forward ---- */

/* Sums of x - first and (x - first)^2 over the block's positions, `first` being the sample's first position: without
 * that shift the variance of channels far from 0 would cancel. */
static void moments(const task *t, int64_t n, int64_t block) {
    int64_t channels = t->shape->channels, size = block_size(t->shape, block);
    float *restrict sum = block_rows(t, n, block), *restrict square = sum + channels;
    const float *restrict first = t->x + n * t->shape->area * channels;
    const float *restrict x = positions(t, t->x, n, block);
    memset(sum, 0, (size_t)channels * 2 * sizeof *sum);
    for (int64_t p = 0; p < size; p++, x += channels) {
        for (int64_t c = 0; c < channels; c++) {
            float d = x[c] - first[c];
            sum[c] += d;
            square[c] += d * d;
        }
    }
}

/* scale and shift so that y = x * scale + shift */
static void channel_factors(const task *t, int64_t n, float *scale, float *shift) {
    int64_t width = t->shape->channels / t->shape->groups;
    for (int64_t c = 0; c < t->shape->channels; c++) {
        int64_t at = n * t->shape->groups + c / width;
        scale[c] = t->rstd[at] * t->weight[c];
        shift[c] = t->bias[c] - t->mean[at] * scale[c];
    }
}

static void statistics(const task *t, int64_t n) {
    const syz_group_norm_shape *s = t->shape;
    int64_t channels = s->channels, width = channels / s->groups, blocks = block_count(s);
    const float *first = t->x + n * s->area * channels;
    float *scale = sample_rows(t, n), *shift = scale + channels, *mean = scale + 2 * channels;
    for (int64_t g = 0; g < s->groups; g++) {
        double total = 0, within = 0, between = 0;
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
            double sum = 0, square = 0;
            for (int64_t b = 0; b < blocks; b++) {
                sum += block_rows(t, n, b)[c];
                square += block_rows(t, n, b)[channels + c];
            }
            mean[c] = (float)(first[c] + sum / (double)s->area);
            total += first[c] + sum / (double)s->area;
            within += square - sum * sum / (double)s->area;
        }
        double center = total / (double)width;
        for (int64_t c = g * width; c < (g + 1) * width; c++)
            between += (mean[c] - center) * (mean[c] - center);
        double variance = (within + between * (double)s->area) / (double)(width * s->area);
        t->mean[n * s->groups + g] = (float)center;
        t->rstd[n * s->groups + g] = (float)(1.0 / sqrt(variance + t->eps));
    }
    channel_factors(t, n, scale, shift);
}

static void apply(const task *t, int64_t n, int64_t block) {
    int64_t channels = t->shape->channels, size = block_size(t->shape, block);
    const float *restrict scale = sample_rows(t, n), *restrict shift = scale + channels;
    const float *restrict x = positions(t, t->x, n, block);
    float *restrict y = t->y + (x - t->x);
    for (int64_t p = 0; p < size; p++, x += channels, y += channels) {
        if (t->shape->silu) {
            for (int64_t c = 0; c < channels; c++) {
                float z = x[c] * scale[c] + shift[c];
                y[c] = z * syz_sigmoidf(z);
            }
        } else {
            for (int64_t c = 0; c < channels; c++)
                y[c] = x[c] * scale[c] + shift[c];
        }
    }
}

/* ---- backward ---- */

/* One position: dz, the gradient before the SiLU, and its share of the sums of dz and dz * x. */
static void gradient_row(float *restrict sum, float *restrict dot, float *restrict dz, const float *restrict dy,
                         const float *restrict x, const float *restrict scale, const float *restrict shift,
                         int64_t channels) {
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        float g = dy[c] * syz_silu_slope(x[c] * scale[c] + shift[c]);
        dz[c] = g;
        sum[c] += g;
        dot[c] += g * x[c];
    }
}

static void plain_row(float *restrict sum, float *restrict dot, const float *restrict dy, const float *restrict x,
                      int64_t channels) {
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        sum[c] += dy[c];
        dot[c] += dy[c] * x[c];
    }
}

/* Block sums of dz and dz * x. Behind a SiLU dz stays in dx when that is wanted, or goes to a row of scratch. */
static void gradient_sums(const task *t, int64_t n, int64_t block) {
    int64_t channels = t->shape->channels, size = block_size(t->shape, block);
    float *sum = block_rows(t, n, block), *dot = sum + channels, *spare = sum + 2 * channels;
    const float *scale = sample_rows(t, n), *shift = scale + channels;
    const float *x = positions(t, t->x, n, block), *dy = t->dy + (x - t->x);
    memset(sum, 0, (size_t)channels * 2 * sizeof *sum);
    for (int64_t p = 0; p < size; p++, x += channels, dy += channels) {
        if (t->shape->silu)
            gradient_row(sum, dot, t->dx ? t->dx + (x - t->x) : spare, dy, x, scale, shift, channels);
        else
            plain_row(sum, dot, dy, x, channels);
    }
}

/* Per channel: sample sums of dz and dz * xhat (rows 2 and 3, for the weights' gradients), then, over rows 0 and 1, the
 * factors of dx = dz * weight * rstd + x * slope + level (rows 2 and 3 afterwards belong to the weights). */
static void gradient_factors(const task *t, int64_t n) {
    const syz_group_norm_shape *s = t->shape;
    int64_t channels = s->channels, width = channels / s->groups, blocks = block_count(s);
    float *slope = sample_rows(t, n), *level = slope + channels, *sum = slope + 2 * channels, *dot = sum + channels;
    for (int64_t g = 0; g < s->groups; g++) {
        double mean = t->mean[n * s->groups + g], rstd = t->rstd[n * s->groups + g], c1 = 0, c2 = 0;
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
            double total = 0, with_x = 0;
            for (int64_t b = 0; b < blocks; b++) {
                total += block_rows(t, n, b)[c];
                with_x += block_rows(t, n, b)[channels + c];
            }
            double with_xhat = (with_x - mean * total) * rstd;
            sum[c] = (float)total;
            dot[c] = (float)with_xhat;
            c1 += t->weight[c] * total;
            c2 += t->weight[c] * with_xhat;
        }
        double count = (double)(width * s->area);
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
            slope[c] = (float)(-rstd * rstd * c2 / count);
            level[c] = (float)(-rstd * c1 / count + rstd * rstd * mean * c2 / count);
        }
    }
}

static void apply_gradient(const task *t, int64_t n, int64_t block) {
    int64_t channels = t->shape->channels, size = block_size(t->shape, block);
    int64_t groups = t->shape->groups, width = channels / groups;
    const float *restrict slope = sample_rows(t, n), *restrict level = slope + channels;
    const float *restrict x = positions(t, t->x, n, block);
    const float *restrict dz = t->shape->silu ? t->dx + (x - t->x) : t->dy + (x - t->x);
    float *dx = t->dx + (x - t->x);
    float *scale = block_rows(t, n, block); /* its sums have been used */
    for (int64_t c = 0; c < channels; c++)
        scale[c] = t->weight[c] * t->rstd[n * groups + c / width];
    for (int64_t p = 0; p < size; p++, x += channels, dz += channels, dx += channels) {
#pragma omp simd
        for (int64_t c = 0; c < channels; c++)
            dx[c] = dz[c] * scale[c] + x[c] * slope[c] + level[c];
    }
}

static void sum_samples(float *y, const task *t, int64_t row) {
    if (!y) return;
    for (int64_t c = 0; c < t->shape->channels; c++) {
        double sum = 0;
        for (int64_t n = 0; n < t->shape->n; n++)
            sum += sample_rows(t, n)[row * t->shape->channels + c];
        y[c] = (float)sum;
    }
}

/* ---- both directions: sums over blocks, factors of the sample, then one more pass ---- */

typedef void (*block_pass)(const task *t, int64_t n, int64_t block);
typedef void (*sample_pass)(const task *t, int64_t n);

static void run(const task *t, block_pass sums, sample_pass factors, block_pass last) {
    int64_t blocks = block_count(t->shape), samples = t->shape->n;
    bool small = samples * t->shape->area * t->shape->channels <= SYZ_PARALLEL_MIN;
    if (samples >= omp_get_max_threads() || small) {
#pragma omp parallel for schedule(static) if (!small)
        for (int64_t n = 0; n < samples; n++) {
            for (int64_t b = 0; b < blocks; b++)
                sums(t, n, b);
            factors(t, n);
            for (int64_t b = 0; last && b < blocks; b++)
                last(t, n, b);
        }
        return;
    }
#pragma omp parallel
    for (int64_t n = 0; n < samples; n++) {
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; b++)
            sums(t, n, b);
#pragma omp single
        factors(t, n);
        if (!last) continue;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; b++)
            last(t, n, b);
    }
}

int syz_cpu_group_norm(float *y, float *mean, float *rstd, const float *x, const float *weight, const float *bias,
                       const syz_group_norm_shape *shape, float eps) {
    task t = {.shape = shape, .x = x, .weight = weight, .bias = bias, .y = y};
    t.mean = mean;
    t.rstd = rstd;
    t.eps = eps;
    if (!(t.rows = syz_block_alloc(scratch_size(shape)))) return -1;
    run(&t, moments, statistics, apply);
    syz_block_free(t.rows, scratch_size(shape));
    return 0;
}

int syz_cpu_group_norm_backward(float *dx, float *dweight, float *dbias, const float *dy, const float *x,
                                const float *mean, const float *rstd, const float *weight, const float *bias,
                                const syz_group_norm_shape *shape) {
    task t = {.shape = shape, .x = x, .dy = dy, .weight = weight, .bias = bias, .dx = dx};
    t.mean = (float *)(uintptr_t)mean; /* only forward writes them */
    t.rstd = (float *)(uintptr_t)rstd;
    if (!(t.rows = syz_block_alloc(scratch_size(shape)))) return -1;
    for (int64_t n = 0; n < shape->n; n++)
        channel_factors(&t, n, sample_rows(&t, n), sample_rows(&t, n) + shape->channels);
    run(&t, gradient_sums, gradient_factors, dx ? apply_gradient : NULL);
    sum_samples(dbias, &t, 2);
    sum_samples(dweight, &t, 3);
    syz_block_free(t.rows, scratch_size(shape));
    return 0;
}
