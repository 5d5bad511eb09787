/* Random numbers by counter: four values from each, the same words as engine/core/rng.c. Uniform numbers and integers
 * equal the CPU's; normal ones do as far as the device's logf, sinf and cosf equal the C library's. */
#include "kernels/cuda.cuh"
#include "kernels/philox.h"

namespace {

using namespace syz_cuda;

struct normal {
    __device__ void operator()(float (&out)[4], const uint32_t *word) const {
        for (int k = 0; k < 4; k += 2) {
            float radius = sqrtf(-2.0f * logf((float)(word[k] >> 8) * 0x1p-24f + 0x1p-25f));
            float angle = 6.28318531f * ((float)(word[k + 1] >> 8) * 0x1p-24f);
            out[k] = radius * cosf(angle);
            out[k + 1] = radius * sinf(angle);
        }
    }
};

struct uniform {
    __device__ void operator()(float (&out)[4], const uint32_t *word) const {
        for (int k = 0; k < 4; k++)
            out[k] = (float)(word[k] >> 8) * 0x1p-24f;
    }
};

struct integer {
    int64_t low;
    uint64_t range;
    __device__ void operator()(int64_t (&out)[4], const uint32_t *word) const {
        for (int k = 0; k < 4; k++)
            out[k] = low + (int64_t)(word[k] * range >> 32);
    }
};

template <typename Y, typename F>
static __global__ void random_kernel(Y *y, uint64_t seed, uint64_t sequence, uint64_t offset, int64_t n, F f) {
    int64_t i = thread_index() * 4;
    if (i >= n) return;
    syz_philox4 words = syz_philox(seed, sequence, offset + (uint64_t)(i / 4));
    Y out[4];
    f(out, words.word);
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (i + k < n) y[i + k] = out[k];
}

template <typename Y, typename F>
static int random_values(Y *y, uint64_t seed, uint64_t sequence, uint64_t offset, int64_t n, F f, cudaStream_t stream) {
    return launch(random_kernel<Y, F>, cuts(n, THREADS * 4), THREADS, stream, y, seed, sequence, offset, n, f);
}

} // namespace

template <typename REAL>
int syz_cuda::random_normal(float *y, uint64_t seed, uint64_t sequence, uint64_t offset, int64_t n,
                            cudaStream_t stream) {
    return random_values(y, seed, sequence, offset, n, normal(), stream);
}

template <typename REAL>
int syz_cuda::random_uniform(float *y, uint64_t seed, uint64_t sequence, uint64_t offset, int64_t n,
                             cudaStream_t stream) {
    return random_values(y, seed, sequence, offset, n, uniform(), stream);
}

template <typename REAL>
int syz_cuda::random_integer(int64_t *y, uint64_t seed, uint64_t sequence, uint64_t offset, int64_t low, uint64_t range,
                             int64_t n, cudaStream_t stream) {
    return random_values(y, seed, sequence, offset, n, integer{low, range}, stream);
}

SYZ_F32(random_normal)
SYZ_F32(random_uniform)
SYZ_F32(random_integer)
