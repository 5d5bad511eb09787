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

SYZ_BOTH(rope)
