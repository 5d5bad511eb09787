/* Random tensors from the counter-based generator: element i depends on (seed, stream, offset + i) alone. */
#include "kernels/philox.h"
#include "tensor/tensor.h"

#include <math.h>

static void advance(syz_rng *rng, int64_t n) {
    rng->offset += (uint64_t)(n + 3) / 4;
}

/* 24 bits, in [0,1). */
static float unit(uint32_t word) {
    return (float)(word >> 8) * 0x1p-24f;
}

/* Two normals from two words (Box-Muller); the first word is moved off 0, whose logarithm is infinite. */
static void normal_pair(float *out, uint32_t a, uint32_t b) {
    float radius = sqrtf(-2.0f * logf((float)(a >> 8) * 0x1p-24f + 0x1p-25f));
    float angle = 6.28318531f * unit(b);
    out[0] = radius * cosf(angle);
    out[1] = radius * sinf(angle);
}

syz_tensor *syz_randn(syz_rng *rng, syz_shape shape) {
    syz_tensor *t = syz_host_zeros(SYZ_F32, shape);
    if (!t) return NULL;
    int64_t n = syz_numel(t);
    for (int64_t i = 0; i < n; i += 4) {
        syz_philox4 r = syz_philox(rng->seed, rng->stream, rng->offset + (uint64_t)i / 4);
        float four[4];
        normal_pair(four, r.word[0], r.word[1]);
        normal_pair(four + 2, r.word[2], r.word[3]);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            syz_f32(t)[i + k] = four[k];
    }
    advance(rng, n);
    return syz_copy_to(t, syz_device_current());
}

syz_tensor *syz_rand(syz_rng *rng, syz_shape shape) {
    syz_tensor *t = syz_host_zeros(SYZ_F32, shape);
    if (!t) return NULL;
    int64_t n = syz_numel(t);
    for (int64_t i = 0; i < n; i += 4) {
        syz_philox4 r = syz_philox(rng->seed, rng->stream, rng->offset + (uint64_t)i / 4);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            syz_f32(t)[i + k] = unit(r.word[k]);
    }
    advance(rng, n);
    return syz_copy_to(t, syz_device_current());
}

syz_tensor *syz_randint(syz_rng *rng, int64_t low, int64_t high, syz_shape shape) {
    if (high <= low || high - low > (int64_t)1 << 32)
        return syz_fail_null(SYZ_EINVAL, "randint: the range %lld..%lld is empty or too wide", (long long)low,
                             (long long)high);
    syz_tensor *t = syz_host_zeros(SYZ_I64, shape);
    if (!t) return NULL;
    int64_t n = syz_numel(t);
    for (int64_t i = 0; i < n; i++) {
        uint32_t word = syz_philox(rng->seed, rng->stream, rng->offset + (uint64_t)i / 4).word[i % 4];
        syz_i64(t)[i] = low + (int64_t)((uint64_t)word * (uint64_t)(high - low) >> 32);
    }
    advance(rng, n);
    return t;
}
