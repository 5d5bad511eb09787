#include "kernels/adamw.h"
#include "kernels/parallel.h"
#include "kernels/philox.h"

int syz_cpu_adamw(float *p, float *m, float *v, const float *g, const float *factor, const syz_adamw_numbers *s,
                  int64_t n) {
    const syz_adamw_numbers k = *s;
    const float times = factor ? *factor : 1.0f;
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        p[i] = syz_adamw_one(p[i], &m[i], &v[i], syz_rounded_product(times, g[i]), &k);
    return 0;
}

/* ---- a master in two halves ---- */

int syz_cpu_split_master(uint16_t *weight, int16_t *remainder, const float *master, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        syz_split(&weight[i], &remainder[i], master[i]);
    return 0;
}

int syz_cpu_join_master(float *master, const uint16_t *weight, const int16_t *remainder, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        master[i] = syz_join(weight[i], remainder[i]);
    return 0;
}

int syz_cpu_adamw_split(uint16_t *weight, int16_t *remainder, float *m, float *v, const float *g, const float *factor,
                        const syz_adamw_numbers *s, int64_t n) {
    const syz_adamw_numbers k = *s;
    const float times = factor ? *factor : 1.0f;
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++) {
        float p = syz_join(weight[i], remainder[i]);
        syz_split(&weight[i], &remainder[i], syz_adamw_one(p, &m[i], &v[i], syz_rounded_product(times, g[i]), &k));
    }
    return 0;
}

/* ---- moments in 8 bits ---- */

enum { BLOCK = SYZ_MOMENT_BLOCK };

typedef struct {
    float m[BLOCK], v[BLOCK];
} moments;

/* Beside the block's new scales; value i of the array takes half of word i % 4 of the counter i / 4 for each moment. */
static void store(uint8_t *m, uint8_t *v, float *m_scale, float *v_scale, const moments *from, int64_t first,
                  int64_t count, uint64_t seed, uint64_t sequence) {
    float top_m = 0, top_v = 0;
    for (int64_t i = 0; i < count; i++) {
        top_m = syz_larger(fabsf(from->m[i]), top_m);
        top_v = syz_larger(from->v[i], top_v);
    }
    *m_scale = syz_scale_for(top_m, SYZ_M_BITS);
    *v_scale = syz_scale_for(top_v, SYZ_V_BITS);
    float per_m = *m_scale > 0 ? 1.0f / *m_scale : 0.0f, per_v = *v_scale > 0 ? 1.0f / *v_scale : 0.0f;
    for (int64_t i = 0; i < count; i += 4) {
        syz_philox4 noise = syz_philox(seed, sequence, (uint64_t)(first + i) / 4);
        for (int64_t j = i; j < i + 4 && j < count; j++) {
            m[j] = syz_encode_m(from->m[j] * per_m, noise.word[j - i] & 0xffffu);
            v[j] = syz_encode_v(from->v[j] * per_v, noise.word[j - i] >> 16);
        }
    }
}

int syz_cpu_adamw_8bit(uint16_t *weight, int16_t *remainder, uint8_t *m, uint8_t *v, float *m_scale, float *v_scale,
                       const float *g, const float *factor, const syz_adamw_numbers *s, uint64_t seed,
                       uint64_t sequence, int64_t n) {
    const syz_adamw_numbers k = *s;
    const float times = factor ? *factor : 1.0f;
#pragma omp parallel for schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t block = first / BLOCK, count = n - first < BLOCK ? n - first : BLOCK;
        moments block_moments;
        for (int64_t i = 0; i < count; i++) {
            block_moments.m[i] = syz_decode_m(m[first + i], m_scale[block]);
            block_moments.v[i] = syz_decode_v(v[first + i], v_scale[block]);
            float p = syz_join(weight[first + i], remainder[first + i]);
            p = syz_adamw_one(p, &block_moments.m[i], &block_moments.v[i], syz_rounded_product(times, g[first + i]),
                              &k);
            syz_split(&weight[first + i], &remainder[first + i], p);
        }
        store(m + first, v + first, m_scale + block, v_scale + block, &block_moments, first, count, seed, sequence);
    }
    return 0;
}

/* ---- the global norm, averages ---- */

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

int syz_cpu_clip_factor(float *factor, double *norm, const double *squares, int64_t count, double max_norm) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++)
        sum += squares[k];
    *norm = sqrt(sum);
    double times = max_norm / (*norm + 1e-6);
    *factor = max_norm > 0 && *norm - *norm == 0 && times < 1 ? (float)times : 1.0f;
    return 0;
}

int syz_cpu_lerp(float *y, const float *x, float weight, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > SYZ_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i++)
        y[i] += weight * (x[i] - y[i]);
    return 0;
}
