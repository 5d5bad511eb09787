#include "kernels/cuda.cuh"

namespace {

using namespace syz_cuda;

/* One thread for N channels of one cell of dx [rows,w,c]. */
template <int N, typename T>
static __global__ void upsample_gradient_kernel(T *dx, const T *dy, int64_t w, int64_t c, int64_t factor, int64_t n) {
    int64_t i = thread_index() * N;
    if (i >= n) return;
    int64_t cell = i / c, channel = i - cell * c, row = cell / w, column = cell - row * w;
    float sum[N] = {0};
    for (int64_t line = row * factor; line < (row + 1) * factor; line++) {
        for (int64_t k = column * factor; k < (column + 1) * factor; k++) {
            pack<T, N> v = read<N>(dy + (line * w * factor + k) * c + channel);
            for (int j = 0; j < N; j++)
                sum[j] += load(v.value[j]);
        }
    }
    pack<T, N> out;
    for (int j = 0; j < N; j++)
        out.value[j] = store<T>(sum[j]);
    write(dx + i, out);
}

} // namespace

template <typename REAL>
int syz_cuda::upsample_gradient(REAL *dx, const REAL *dy, int64_t rows, int64_t w, int64_t c, int64_t factor,
                                cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t n = rows * w * c;
    if (c % N == 0 && aligned(dx, dy))
        return launch(upsample_gradient_kernel<N, REAL>, cuts(n, THREADS * N), THREADS, stream, dx, dy, w, c, factor,
                      n);
    return launch(upsample_gradient_kernel<1, REAL>, cuts(n, THREADS), THREADS, stream, dx, dy, w, c, factor, n);
}

SYZ_BOTH(upsample_gradient)
