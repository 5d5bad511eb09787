#include "kernels/cuda.cuh"

namespace {

using namespace syz_cuda;

/* One thread for N neighbours along the inner dimension of one output row. The arrays in taps are device memory. */
template <int N, typename T>
static __global__ void resample_kernel(T *y, const T *x, syz_taps taps, int64_t inner, int64_t n) {
    int64_t i = thread_index() * N;
    if (i >= n) return;
    int64_t row = i / inner, column = i - row * inner, outer = row / taps.out, at = row - outer * taps.out;
    const T *from = x + (outer * taps.in + taps.start[at]) * inner + column;
    const float *weight = taps.weight + at * taps.most;
    float sum[N] = {0};
    for (int64_t k = 0; k < taps.count[at]; k++) {
        pack<T, N> v = read<N>(from + k * inner);
        for (int j = 0; j < N; j++)
            sum[j] += weight[k] * load(v.value[j]);
    }
    pack<T, N> out;
    for (int j = 0; j < N; j++)
        out.value[j] = store<T>(sum[j]);
    write(y + i, out);
}

} // namespace

template <typename REAL>
int syz_cuda::resample(REAL *y, const REAL *x, const syz_taps *taps, int64_t outer, int64_t inner,
                       cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t n = outer * taps->out * inner;
    if (inner % N == 0 && aligned(y, x))
        return launch(resample_kernel<N, REAL>, cuts(n, THREADS * N), THREADS, stream, y, x, *taps, inner, n);
    return launch(resample_kernel<1, REAL>, cuts(n, THREADS), THREADS, stream, y, x, *taps, inner, n);
}

SYZ_BOTH(resample)
