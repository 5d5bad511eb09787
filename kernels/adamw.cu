/* AdamW: in f32; on a bf16 weight with the rest of its f32 master beside it; with 8-bit moments. */
#include "kernels/adamw.h"
#include "kernels/map.cuh"
#include "kernels/philox.h"
#include "kernels/reduce.cuh"

namespace {

using namespace syz_cuda;

/* ---- f32 ---- */

template <int N>
static __global__ void adamw_kernel(float *p, float *m, float *v, const float *g, const float *factor,
                                    syz_adamw_numbers s, int64_t n) {
    int64_t i = thread_index() * N;
    float times = factor ? *factor : 1.0f;
    if (i + N <= n) {
        pack<float, N> weight = read<N>(p + i), first = read<N>(m + i), second = read<N>(v + i), slope = read<N>(g + i);
        for (int k = 0; k < N; k++)
            weight.value[k] = syz_adamw_one(weight.value[k], &first.value[k], &second.value[k],
                                            syz_rounded_product(times, slope.value[k]), &s);
        write(p + i, weight);
        write(m + i, first);
        write(v + i, second);
    } else {
        for (; i < n; i++)
            p[i] = syz_adamw_one(p[i], m + i, v + i, syz_rounded_product(times, g[i]), &s);
    }
}

/* ---- a master in two halves ---- */

static __global__ void split_kernel(uint16_t *weight, int16_t *remainder, const float *master, int64_t n) {
    int64_t i = thread_index();
    if (i < n) syz_split(weight + i, remainder + i, master[i]);
}

static __global__ void join_kernel(float *master, const uint16_t *weight, const int16_t *remainder, int64_t n) {
    int64_t i = thread_index();
    if (i < n) master[i] = syz_join(weight[i], remainder[i]);
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
            float p = syz_join(high.value[k], low.value[k]);
            p = syz_adamw_one(p, &first.value[k], &second.value[k], syz_rounded_product(times, slope.value[k]), &s);
            syz_split(&high.value[k], &low.value[k], p);
        }
        write(weight + i, high);
        write(remainder + i, low);
        write(m + i, first);
        write(v + i, second);
    } else {
        for (; i < n; i++) {
            float p = syz_join(weight[i], remainder[i]);
            p = syz_adamw_one(p, m + i, v + i, syz_rounded_product(times, g[i]), &s);
            syz_split(weight + i, remainder + i, p);
        }
    }
}

/* ---- moments in 8 bits ---- */

enum { QUANT_BLOCK = SYZ_MOMENT_BLOCK, EACH = QUANT_BLOCK / WARP };

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
    float scale_m = syz_scale_for(group_reduce<WARP>(top_m, maximum()), SYZ_M_BITS);
    float scale_v = syz_scale_for(group_reduce<WARP>(top_v, maximum()), SYZ_V_BITS);
    float per_m = scale_m > 0 ? 1.0f / scale_m : 0.0f, per_v = scale_v > 0 ? 1.0f / scale_v : 0.0f;
#pragma unroll
    for (int k = 0; k < EACH; k += 4) {
        syz_philox4 noise = syz_philox(state.seed, state.sequence, (uint64_t)(first + k) / 4);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            code_m[k + j] = syz_encode_m(m[k + j] * per_m, noise.word[j] & 0xffffu);
            code_v[k + j] = syz_encode_v(v[k + j] * per_v, noise.word[j] >> 16);
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
        m[k] = syz_decode_m(code_m[k], scale_m);
        v[k] = syz_decode_v(code_v[k], scale_v);
        float p = syz_adamw_one(syz_join(high[k], low[k]), &m[k], &v[k], syz_rounded_product(times, slope[k]), &s);
        syz_split(&high[k], &low[k], p);
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

/* One thread: a model has hundreds of parameters, and their order makes the CPU's bits. */
static __global__ void clip_kernel(float *factor, double *norm, const double *squares, int64_t count, double max_norm) {
    if (threadIdx.x != 0) return;
    double sum = 0;
    for (int64_t k = 0; k < count; k++)
        sum += squares[k];
    sum = sqrt(sum);
    double times = max_norm / (sum + 1e-6);
    *norm = sum;
    *factor = max_norm > 0 && sum - sum == 0 && times < 1 ? (float)times : 1.0f;
}

struct towards {
    float weight;
    __device__ float operator()(float y, float x) const { return y + weight * (x - y); }
};

} // namespace

template <typename REAL>
int syz_cuda::adamw(float *p, float *m, float *v, const float *g, const float *factor, const syz_adamw_numbers *s,
                    int64_t n, cudaStream_t stream) {
    if (aligned(p, m, v, g))
        return launch(adamw_kernel<4>, cuts(n, THREADS * 4), THREADS, stream, p, m, v, g, factor, *s, n);
    return launch(adamw_kernel<1>, cuts(n, THREADS), THREADS, stream, p, m, v, g, factor, *s, n);
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
int syz_cuda::clip_factor(float *factor, double *norm, const double *squares, int64_t count, double max_norm,
                          cudaStream_t stream) {
    return launch(clip_kernel, 1, WARP, stream, factor, norm, squares, count, max_norm);
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
