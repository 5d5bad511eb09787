/* Softmax over the middle dimension of [outer,n,inner]: a warp or a block for each row where inner is 1, otherwise a
 * thread for each column, whose neighbours read beside it. */
#include "kernels/reduce.cuh"
#include "kernels/simd_math.h"

namespace {

using namespace syz_cuda;

/* ---- rows ---- */

template <int GROUP, int N, typename T>
static __global__ void softmax_rows(T *y, const T *x, int64_t rows, int64_t n, bool logarithm) {
    int64_t row = group_row<GROUP>();
    const T *from = x + (row < rows ? row : 0) * n;
    float top = -INFINITY, sum = 0;
    for (int64_t i = group_rank<GROUP>() * N; i < n; i += GROUP * N) {
        pack<T, N> v = read<N>(from + i);
        for (int k = 0; k < N; k++)
            top = maximum()(load(v.value[k]), top);
    }
    top = group_reduce<GROUP>(top, maximum());
    for (int64_t i = group_rank<GROUP>() * N; i < n; i += GROUP * N) {
        pack<T, N> v = read<N>(from + i);
        for (int k = 0; k < N; k++)
            sum += syz_expf(load(v.value[k]) - top);
    }
    sum = group_sum<GROUP>(sum);
    if (row >= rows) return;
    float shift = top + logf(sum), factor = 1.0f / sum;
    for (int64_t i = group_rank<GROUP>() * N; i < n; i += GROUP * N) {
        pack<T, N> v = read<N>(from + i), out;
        for (int k = 0; k < N; k++) {
            float value = load(v.value[k]);
            out.value[k] = store<T>(logarithm ? value - shift : syz_expf(value - top) * factor);
        }
        write(y + row * n + i, out);
    }
}

/* softmax: dx = y (dy - sum(dy y)); logarithm: dx = dy - exp(y) sum(dy) */
static __device__ inline float slope(float dy, float y, float sum, bool logarithm) {
    return logarithm ? dy - syz_expf(y) * sum : y * (dy - sum);
}

template <int GROUP, int N, typename T>
static __global__ void softmax_row_gradients(T *dx, const T *dy, const T *y, int64_t rows, int64_t n, bool logarithm) {
    int64_t row = group_row<GROUP>(), at = (row < rows ? row : 0) * n;
    float sum = 0;
    for (int64_t i = group_rank<GROUP>() * N; i < n; i += GROUP * N) {
        pack<T, N> g = read<N>(dy + at + i), v = read<N>(y + at + i);
        for (int k = 0; k < N; k++)
            sum += load(g.value[k]) * (logarithm ? 1.0f : load(v.value[k]));
    }
    sum = group_sum<GROUP>(sum);
    if (row >= rows) return;
    for (int64_t i = group_rank<GROUP>() * N; i < n; i += GROUP * N) {
        pack<T, N> g = read<N>(dy + at + i), v = read<N>(y + at + i), out;
        for (int k = 0; k < N; k++)
            out.value[k] = store<T>(slope(load(g.value[k]), load(v.value[k]), sum, logarithm));
        write(dx + at + i, out);
    }
}

template <int N, typename T>
static int forward_rows(T *y, const T *x, int64_t rows, int64_t n, bool logarithm, cudaStream_t stream) {
    if (n <= WARP_ROW)
        return launch(softmax_rows<WARP, N, T>, group_blocks<WARP>(rows), THREADS, stream, y, x, rows, n, logarithm);
    return launch(softmax_rows<THREADS, N, T>, group_blocks<THREADS>(rows), THREADS, stream, y, x, rows, n, logarithm);
}

template <int N, typename T>
static int backward_rows(T *dx, const T *dy, const T *y, int64_t rows, int64_t n, bool logarithm, cudaStream_t stream) {
    if (n <= WARP_ROW)
        return launch(softmax_row_gradients<WARP, N, T>, group_blocks<WARP>(rows), THREADS, stream, dx, dy, y, rows, n,
                      logarithm);
    return launch(softmax_row_gradients<THREADS, N, T>, group_blocks<THREADS>(rows), THREADS, stream, dx, dy, y, rows,
                  n, logarithm);
}

/* ---- columns ---- */

template <typename T>
static __global__ void softmax_columns(T *y, const T *x, int64_t columns, int64_t n, int64_t inner, bool logarithm) {
    int64_t column = thread_index();
    if (column >= columns) return;
    int64_t at = column / inner * n * inner + column % inner;
    float top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        top = maximum()(load(x[at + i * inner]), top);
    for (int64_t i = 0; i < n; i++)
        sum += syz_expf(load(x[at + i * inner]) - top);
    float shift = top + logf(sum), factor = 1.0f / sum;
    for (int64_t i = 0; i < n; i++) {
        float value = load(x[at + i * inner]);
        y[at + i * inner] = store<T>(logarithm ? value - shift : syz_expf(value - top) * factor);
    }
}

template <typename T>
static __global__ void softmax_column_gradients(T *dx, const T *dy, const T *y, int64_t columns, int64_t n,
                                                int64_t inner, bool logarithm) {
    int64_t column = thread_index();
    if (column >= columns) return;
    int64_t at = column / inner * n * inner + column % inner;
    float sum = 0;
    for (int64_t i = at; i < at + n * inner; i += inner)
        sum += load(dy[i]) * (logarithm ? 1.0f : load(y[i]));
    for (int64_t i = at; i < at + n * inner; i += inner)
        dx[i] = store<T>(slope(load(dy[i]), load(y[i]), sum, logarithm));
}

} // namespace

template <typename REAL>
int syz_cuda::softmax(REAL *y, const REAL *x, int64_t outer, int64_t n, int64_t inner, bool logarithm,
                      cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    if (inner > 1)
        return launch(softmax_columns<REAL>, cuts(outer * inner, THREADS), THREADS, stream, y, x, outer * inner, n,
                      inner, logarithm);
    return n % N == 0 && aligned(y, x) ? forward_rows<N>(y, x, outer, n, logarithm, stream)
                                       : forward_rows<1>(y, x, outer, n, logarithm, stream);
}

template <typename REAL>
int syz_cuda::softmax_backward(REAL *dx, const REAL *dy, const REAL *y, int64_t outer, int64_t n, int64_t inner,
                               bool logarithm, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    if (inner > 1)
        return launch(softmax_column_gradients<REAL>, cuts(outer * inner, THREADS), THREADS, stream, dx, dy, y,
                      outer * inner, n, inner, logarithm);
    return n % N == 0 && aligned(dx, dy, y) ? backward_rows<N>(dx, dy, y, outer, n, logarithm, stream)
                                            : backward_rows<1>(dx, dy, y, outer, n, logarithm, stream);
}

SYZ_BOTH(softmax)
SYZ_BOTH(softmax_backward)
