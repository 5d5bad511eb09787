/* y[i] = f(x[i], ...): one function of one element of each input. */
#ifndef SYZ_MAP_CUH
#define SYZ_MAP_CUH

#include "kernels/cuda.cuh"

namespace syz_cuda {

template <int N, typename T, typename F, typename... X>
static __device__ inline void map_pack(T *y, F f, const pack<X, N> &...x) {
    pack<T, N> out;
#pragma unroll
    for (int k = 0; k < N; k++)
        out.value[k] = store<T>(f(load(x.value[k])...));
    write(y, out);
}

/* Each thread does N values; the last one what remains of them. y may be one of the inputs. */
template <int N, typename T, typename F, typename... X>
static __global__ void map_kernel(T *y, int64_t n, F f, const X *...x) {
    int64_t i = thread_index() * N;
    if (i + N <= n) {
        map_pack<N>(y + i, f, read<N>(x + i)...);
    } else {
        for (; i < n; i++)
            y[i] = store<T>(f(load(x[i])...));
    }
}

template <typename T, typename F, typename... X>
static int map(T *y, int64_t n, cudaStream_t stream, F f, const X *...x) {
    constexpr int largest = sizeof(T) > 2 || ((sizeof(X) > 2) || ...) ? 4 : 2, N = 16 / largest;
    if (aligned(y, x...))
        return launch(map_kernel<N, T, F, X...>, cuts(n, THREADS * N), THREADS, stream, y, n, f, x...);
    return launch(map_kernel<1, T, F, X...>, cuts(n, THREADS), THREADS, stream, y, n, f, x...);
}

} // namespace syz_cuda

#endif
