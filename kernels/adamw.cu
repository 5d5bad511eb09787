/* AdamW: in f32; on a bf16 weight with the rest of its f32 master beside it; with 8-bit moments. */
#include "kernels/map.cuh"
#include "kernels/philox.h"
#include "kernels/reduce.cuh"

#include <string.h>

namespace {

using namespace syz_cuda;

/* One step of one weight. Written with fmaf, so that no compiler chooses what is fused: all three forms below, wherever
 * they run, agree to the bit. */
static __device__ inline float step(float p, float *m, float *v, float g, const syz_adamw_numbers &k) {
    *m = fmaf(k.rest1, g - *m, *m);
    *v = fmaf(k.beta2, *v, k.rest2 * g * g);
    return fmaf(k.decay, p, -(k.step * *m / (sqrtf(*v) / k.root + k.eps)));
}

/* ---- f32 ---- */

template <int N>
static __global__ void adamw_kernel(float *p, float *m, float *v, const float *g, syz_adamw_numbers s, int64_t n) {
    int64_t i = thread_index() * N;
    if (i + N <= n) {
        pack<float, N> weight = read<N>(p + i), first = read<N>(m + i), second = read<N>(v + i), slope = read<N>(g + i);
        for (int k = 0; k < N; k++)
            weight.value[k] = step(weight.value[k], &first.value[k], &second.value[k], slope.value[k], s);
        write(p + i, weight);
        write(m + i, first);
        write(v + i, second);
    } else {
        for (; i < n; i++)
            p[i] = step(p[i], m + i, v + i, g[i], s);
    }
}

/* ---- a master in two halves ---- */

static __device__ inline float join(uint16_t weight, int16_t remainder) {
    uint32_t bits = ((uint32_t)weight << 16) + (uint32_t)(int32_t)remainder;
    float master;
    memcpy(&master, &bits, sizeof master);
    return master;
}

static __device__ inline void split(uint16_t *weight, int16_t *remainder, float master) {
    uint32_t bits;
    memcpy(&bits, &master, sizeof bits);
    if (master != master) bits = 0x7fc00000u; /* rounding would turn some into -0 */
    *weight = (uint16_t)((bits + 0x8000u) >> 16);
    *remainder = (int16_t)(uint16_t)bits;
}

static __global__ void split_kernel(uint16_t *weight, int16_t *remainder, const float *master, int64_t n) {
    int64_t i = thread_index();
    if (i < n) split(weight + i, remainder + i, master[i]);
}

static __global__ void join_kernel(float *master, const uint16_t *weight, const int16_t *remainder, int64_t n) {
    int64_t i = thread_index();
    if (i < n) master[i] = join(weight[i], remainder[i]);
}

template <int N>
static __global__ void adamw_split_kernel(uint16_t *weight, int16_t *remainder, float *m, float *v, const float *g,
                                          const float *factor, syz_adamw_numbers s, int64_t n) {
    int64_t i = thread_index() * N;
    float times = factor ? *factor : 1.0f;
    if (i + N <= n) {
        pack<uint16_t, N> high = read<N>(weight + i);
        pack<int16_t, N> low = read<N>(remainder + i);
        pack<float, N> first = read<N>(m + i), second = read<N>(v + i), slope = read<N>(g + i);
        for (int k = 0; k < N; k++) {
            float p = join(high.value[k], low.value[k]);
            p = step(p, &first.value[k], &second.value[k], times * slope.value[k], s);
            split(&high.value[k], &low.value[k], p);
        }
        write(weight + i, high);
        write(remainder + i, low);
        write(m + i, first);
        write(v + i, second);
    } else {
        for (; i < n; i++)
            split(weight + i, remainder + i, step(join(weight[i], remainder[i]), m + i, v + i, times * g[i], s));
    }
}

/* ---- moments in 8 bits ---- */

enum { QUANT_BLOCK = 256, EACH = QUANT_BLOCK / WARP };

/* A number in [0,1) as 4 bits of exponent and MANTISSA bits, with gradual underflow below 2^-15: the top bits of f32.
 * `noise`, 16 random bits, decides which neighbour it is rounded to; the largest code is the largest number. */
template <int MANTISSA>
static __device__ inline uint32_t encode(float x, uint32_t noise) {
    constexpr int SHIFT = 23 - MANTISSA;
    constexpr uint32_t LARGEST = (16u << MANTISSA) - 1;
    uint32_t bits, code;
    if (x < 0x1p-15f) {
        code = (uint32_t)(x * (float)(1 << MANTISSA) * 0x1p15f + (float)noise * 0x1p-16f);
    } else {
        memcpy(&bits, &x, sizeof bits);
        code = ((bits + (noise << (SHIFT - 16))) >> SHIFT) - (111u << MANTISSA);
    }
    return code < LARGEST ? code : LARGEST;
}

template <int MANTISSA>
static __device__ inline float decode(uint32_t code) {
    if (code < 1u << MANTISSA) return (float)code * (0x1p-15f / (float)(1 << MANTISSA));
    uint32_t bits = (code + (111u << MANTISSA)) << (23 - MANTISSA);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* m: a sign, then 3 bits of mantissa; v: 4 bits. v > 0 never becomes 0, which would make a step of m / eps. */
enum { M_BITS = 3, V_BITS = 4 };

static __device__ inline uint8_t encode_m(float x, uint32_t noise) {
    return (uint8_t)(encode<M_BITS>(fabsf(x), noise) | (x < 0 ? 0x80u : 0u));
}
static __device__ inline float decode_m(uint8_t code) {
    float x = decode<M_BITS>(code & 0x7fu);
    return code & 0x80u ? -x : x;
}
static __device__ inline uint8_t encode_v(float x, uint32_t noise) {
    uint32_t code = encode<V_BITS>(x, noise);
    return (uint8_t)(code == 0 && x > 0 ? 1 : code);
}

/* The scale that makes the block's largest value the largest number. */
template <int MANTISSA>
static __device__ inline float scale_for(float largest) {
    return group_reduce<WARP>(largest, maximum()) / decode<MANTISSA>((16u << MANTISSA) - 1);
}

/* A lane's values of one array, of which `left` exist. */
template <bool WIDE, typename T>
static __device__ inline void read_some(T (&to)[EACH], const T *from, int64_t left) {
    constexpr int N = lanes_of<T> < EACH ? lanes_of<T> : EACH;
    if (WIDE && left >= EACH) {
        for (int k = 0; k < EACH; k += N) {
            pack<T, N> values = read<N>(from + k);
            for (int j = 0; j < N; j++)
                to[k + j] = values.value[j];
        }
    } else {
        for (int k = 0; k < EACH; k++)
            to[k] = k < left ? from[k] : T(0);
    }
}

template <bool WIDE, typename T>
static __device__ inline void write_some(T *to, const T (&from)[EACH], int64_t left) {
    constexpr int N = lanes_of<T> < EACH ? lanes_of<T> : EACH;
    if (WIDE && left >= EACH) {
        for (int k = 0; k < EACH; k += N) {
            pack<T, N> values;
            for (int j = 0; j < N; j++)
                values.value[j] = from[k + j];
            write(to + k, values);
        }
    } else {
        for (int k = 0; k < EACH && k < left; k++)
            to[k] = from[k];
    }
}

struct state_8bit {
    uint8_t *m, *v;
    float *m_scale, *v_scale;
    uint64_t seed, sequence;
};

/* The lane's new moments, in codes beside the block's new scales. */
template <bool WIDE>
static __device__ inline void store_moments(state_8bit state, const float (&m)[EACH], const float (&v)[EACH],
                                            int64_t first, int64_t left) {
    float top_m = 0, top_v = 0;
    uint8_t code_m[EACH], code_v[EACH];
    for (int k = 0; k < EACH; k++) {
        top_m = maximum()(fabsf(m[k]), top_m);
        top_v = maximum()(v[k], top_v);
    }
    float scale_m = scale_for<M_BITS>(top_m), scale_v = scale_for<V_BITS>(top_v);
    float per_m = scale_m > 0 ? 1.0f / scale_m : 0.0f, per_v = scale_v > 0 ? 1.0f / scale_v : 0.0f;
#pragma unroll
    for (int k = 0; k < EACH; k += 4) {
        syz_philox4 noise = syz_philox(state.seed, state.sequence, (uint64_t)(first + k) / 4);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            code_m[k + j] = encode_m(m[k + j] * per_m, noise.word[j] & 0xffffu);
            code_v[k + j] = encode_v(v[k + j] * per_v, noise.word[j] >> 16);
        }
    }
    write_some<WIDE>(state.m + first, code_m, left);
    write_some<WIDE>(state.v + first, code_v, left);
    if (left <= 0 || first % QUANT_BLOCK) return;
    state.m_scale[first / QUANT_BLOCK] = scale_m;
    state.v_scale[first / QUANT_BLOCK] = scale_v;
}

/* A warp for each block of 256 values. */
template <bool WIDE>
static __global__ void adamw_8bit_kernel(uint16_t *weight, int16_t *remainder, state_8bit state, const float *g,
                                         const float *factor, syz_adamw_numbers s, int64_t n) {
    int64_t first = group_row<WARP>() * QUANT_BLOCK + group_rank<WARP>() * EACH, left = n - first;
    uint16_t high[EACH];
    int16_t low[EACH];
    uint8_t code_m[EACH], code_v[EACH];
    float slope[EACH], m[EACH], v[EACH], times = factor ? *factor : 1.0f;
    read_some<WIDE>(high, weight + first, left);
    read_some<WIDE>(low, remainder + first, left);
    read_some<WIDE>(code_m, state.m + first, left);
    read_some<WIDE>(code_v, state.v + first, left);
    read_some<WIDE>(slope, g + first, left);
    float scale_m = left > 0 ? state.m_scale[first / QUANT_BLOCK] : 0;
    float scale_v = left > 0 ? state.v_scale[first / QUANT_BLOCK] : 0;
    for (int k = 0; k < EACH; k++) {
        m[k] = decode_m(code_m[k]) * scale_m;
        v[k] = decode<V_BITS>(code_v[k]) * scale_v;
        split(&high[k], &low[k], step(join(high[k], low[k]), &m[k], &v[k], times * slope[k], s));
    }
    write_some<WIDE>(weight + first, high, left);
    write_some<WIDE>(remainder + first, low, left);
    store_moments<WIDE>(state, m, v, first, left);
}

/* ---- the global norm ---- */

template <int N, typename T>
struct squares_of {
    const T *x;
    int64_t n;
    __device__ float operator()(int64_t i) const {
        float sum = 0;
        if (i * N + N <= n) {
            pack<T, N> v = read<N>(x + i * N);
            for (int k = 0; k < N; k++)
                sum += load(v.value[k]) * load(v.value[k]);
        } else {
            for (int64_t k = i * N; k < n; k++)
                sum += load(x[k]) * load(x[k]);
        }
        return sum;
    }
};

static __global__ void clip_kernel(float *factor, const double *squares, float max_norm) {
    double norm = sqrt(*squares), times = max_norm / (norm + 1e-6);
    if (threadIdx.x == 0) *factor = max_norm > 0 && norm - norm == 0 && times < 1 ? (float)times : 1.0f;
}

struct towards {
    float weight;
    __device__ float operator()(float y, float x) const { return y + weight * (x - y); }
};

} // namespace

template <typename REAL>
int syz_cuda::adamw(float *p, float *m, float *v, const float *g, const syz_adamw_numbers *s, int64_t n,
                    cudaStream_t stream) {
    if (aligned(p, m, v, g)) return launch(adamw_kernel<4>, cuts(n, THREADS * 4), THREADS, stream, p, m, v, g, *s, n);
    return launch(adamw_kernel<1>, cuts(n, THREADS), THREADS, stream, p, m, v, g, *s, n);
}

template <typename REAL>
int syz_cuda::split_master(uint16_t *weight, int16_t *remainder, const float *master, int64_t n, cudaStream_t stream) {
    return launch(split_kernel, cuts(n, THREADS), THREADS, stream, weight, remainder, master, n);
}

template <typename REAL>
int syz_cuda::join_master(float *master, const uint16_t *weight, const int16_t *remainder, int64_t n,
                          cudaStream_t stream) {
    return launch(join_kernel, cuts(n, THREADS), THREADS, stream, master, weight, remainder, n);
}

template <typename REAL>
int syz_cuda::clip_factor(float *factor, const double *squares, float max_norm, cudaStream_t stream) {
    return launch(clip_kernel, 1, WARP, stream, factor, squares, max_norm);
}

template <typename REAL>
int syz_cuda::adamw_split(uint16_t *weight, int16_t *remainder, float *m, float *v, const float *g, const float *factor,
                          const syz_adamw_numbers *s, int64_t n, cudaStream_t stream) {
    if (aligned(weight, remainder, m, v, g))
        return launch(adamw_split_kernel<4>, cuts(n, THREADS * 4), THREADS, stream, weight, remainder, m, v, g, factor,
                      *s, n);
    return launch(adamw_split_kernel<1>, cuts(n, THREADS), THREADS, stream, weight, remainder, m, v, g, factor, *s, n);
}

template <typename REAL>
int syz_cuda::adamw_8bit(uint16_t *weight, int16_t *remainder, uint8_t *m, uint8_t *v, float *m_scale, float *v_scale,
                         const float *g, const float *factor, const syz_adamw_numbers *s, uint64_t seed,
                         uint64_t sequence, int64_t n, cudaStream_t stream) {
    state_8bit state = {m, v, m_scale, v_scale, seed, sequence};
    int64_t blocks = group_blocks<WARP>(cuts(n, QUANT_BLOCK));
    if (aligned(weight, remainder, m, v, g))
        return launch(adamw_8bit_kernel<true>, blocks, THREADS, stream, weight, remainder, state, g, factor, *s, n);
    return launch(adamw_8bit_kernel<false>, blocks, THREADS, stream, weight, remainder, state, g, factor, *s, n);
}

template <typename REAL>
int syz_cuda::lerp(float *y, const REAL *x, float weight, int64_t n, cudaStream_t stream) {
    return map(y, n, stream, towards{weight}, (const float *)y, x);
}

template <typename REAL>
int syz_cuda::sum_squares(double *sum, const REAL *x, int64_t n, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    return aligned(x) ? total(sum, cuts(n, N), squares_of<N, REAL>{x, n}, 1.0, stream)
                      : total(sum, n, squares_of<1, REAL>{x, n}, 1.0, stream);
}

SYZ_F32(adamw)
SYZ_F32(split_master)
SYZ_F32(join_master)
SYZ_F32(clip_factor)
SYZ_F32(adamw_split)
SYZ_F32(adamw_8bit)
SYZ_BOTH(lerp)
SYZ_BOTH(sum_squares)
