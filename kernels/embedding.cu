#include "kernels/cuda.cuh"

namespace {

using namespace syz_cuda;

template <int N, typename T>
static __global__ void gather_rows_kernel(T *y, const T *x, const int64_t *index, int64_t step, int64_t n, int64_t c) {
    int64_t i = thread_index() * N;
    if (i >= n * c) return;
    int64_t row = i / c, column = i - row * c;
    write(y + i, read<N>(x + (row * step + index[row]) * c + column));
}

/* Rows may repeat: each thread owns a column and adds the rows in order. */
template <typename T>
static __global__ void scatter_rows_kernel(float *dx, const T *dy, const int64_t *index, int64_t step, int64_t n,
                                           int64_t c) {
    int64_t column = thread_index();
    if (column >= c) return;
    for (int64_t i = 0; i < n; i++)
        dx[(i * step + index[i]) * c + column] += load(dy[i * c + column]);
}

} // namespace

template <typename REAL>
int syz_cuda::gather_rows(REAL *y, const REAL *x, const int64_t *index, int64_t step, int64_t n, int64_t c,
                          cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    if (c % N == 0 && aligned(y, x))
        return launch(gather_rows_kernel<N, REAL>, cuts(n * c, THREADS * N), THREADS, stream, y, x, index, step, n, c);
    return launch(gather_rows_kernel<1, REAL>, cuts(n * c, THREADS), THREADS, stream, y, x, index, step, n, c);
}

template <typename REAL>
int syz_cuda::scatter_rows(float *dx, const REAL *dy, const int64_t *index, int64_t step, int64_t n, int64_t c,
                           cudaStream_t stream) {
    return launch(scatter_rows_kernel<REAL>, cuts(c, THREADS), THREADS, stream, dx, dy, index, step, n, c);
}

SYZ_BOTH(gather_rows)
SYZ_BOTH(scatter_rows)
