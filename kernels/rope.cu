#include "kernels/cuda.cuh"

namespace {

using namespace syz_cuda;

/* A thread turns N / 2 pairs; a lone pair is read as two values, since nothing is known of its address. */
template <int N, typename T>
static __global__ void rope_kernel(T *y, const T *x, const float *cosine, const float *sine, int64_t tokens,
                                   int64_t heads, int64_t dim, int64_t n, float direction) {
    int64_t i = thread_index() * N;
    if (i >= n) return;
    int64_t row = i / dim, angle = row / heads % tokens * (dim / 2) + (i - row * dim) / 2;
    pack<T, N> v;
    if constexpr (N > 2) {
        v = read<N>(x + i);
    } else {
        v.value[0] = x[i];
        v.value[1] = x[i + 1];
    }
    for (int k = 0; k < N; k += 2) {
        float even = load(v.value[k]), odd = load(v.value[k + 1]);
        float c = cosine[angle + k / 2], turn = direction * sine[angle + k / 2];
        v.value[k] = store<T>(even * c - odd * turn);
        v.value[k + 1] = store<T>(odd * c + even * turn);
    }
    if constexpr (N > 2) {
        write(y + i, v);
    } else {
        y[i] = v.value[0];
        y[i + 1] = v.value[1];
    }
}

/* One thread for a frequency of one value. */
template <typename T>
static __global__ void timestep_kernel(T *y, const T *t, int64_t n, int64_t half) {
    int64_t i = thread_index();
    if (i >= n * half) return;
    int64_t row = i / half, k = i % half;
    float exponent = (float)-9.210340371976184 * (float)k / (float)half; /* log(10000) */
    float angle = load(t[row]) * (float)exp((double)exponent);
    y[row * half * 2 + k] = store<T>((float)cos((double)angle));
    y[row * half * 2 + half + k] = store<T>((float)sin((double)angle));
}

} // namespace

template <typename REAL>
int syz_cuda::rope(REAL *y, const REAL *x, const float *cosine, const float *sine, const int64_t shape[4],
                   float direction, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t tokens = shape[1], heads = shape[2], dim = shape[3], n = shape[0] * tokens * heads * dim;
    if (dim % N == 0 && aligned(y, x))
        return launch(rope_kernel<N, REAL>, cuts(n, THREADS * N), THREADS, stream, y, x, cosine, sine, tokens, heads,
                      dim, n, direction);
    return launch(rope_kernel<2, REAL>, cuts(n, THREADS * 2), THREADS, stream, y, x, cosine, sine, tokens, heads, dim,
                  n, direction);
}

template <typename REAL>
int syz_cuda::timestep_embedding(REAL *y, const REAL *t, int64_t n, int64_t dim, cudaStream_t stream) {
    return launch(timestep_kernel<REAL>, cuts(n * (dim / 2), THREADS), THREADS, stream, y, t, n, dim / 2);
}

SYZ_BOTH(rope)
SYZ_BOTH(timestep_embedding)
