#include "kernels/nest.cuh"
#include "kernels/reduce.cuh"

namespace {

using namespace syz_cuda;

/* ---- rows: [rows kept, n summed] ---- */

/* Row r of x [rows,n] is cut into `pieces` of `length`: y [rows,pieces] = scale * their sums. */
template <int GROUP, int N, typename Y, typename X>
static __global__ void row_sums_kernel(Y *y, const X *x, int64_t rows, int64_t n, int64_t pieces, int64_t length,
                                       float scale) {
    int64_t work = group_row<GROUP>(), piece = work % pieces, start = piece * length;
    int64_t stop = start + length < n ? start + length : n;
    float sum = 0;
    if (work < rows * pieces) {
        const X *from = x + work / pieces * n;
        for (int64_t i = start + group_rank<GROUP>() * N; i < stop; i += GROUP * N) {
            pack<X, N> values = read<N>(from + i);
            for (int k = 0; k < N; k++)
                sum += load(values.value[k]);
        }
    }
    sum = group_sum<GROUP>(sum);
    if (work < rows * pieces && group_rank<GROUP>() == 0) y[work] = store<Y>(scale * sum);
}

template <int GROUP, typename Y, typename X>
static int row_pieces(Y *y, const X *x, int64_t rows, int64_t n, int64_t pieces, float scale, cudaStream_t stream) {
    constexpr int N = lanes_of<X>;
    int64_t length = cuts(cuts(n, pieces), N) * N, blocks = group_blocks<GROUP>(rows * pieces);
    if (n % N == 0 && aligned(x))
        return launch(row_sums_kernel<GROUP, N, Y, X>, blocks, THREADS, stream, y, x, rows, n, pieces, length, scale);
    return launch(row_sums_kernel<GROUP, 1, Y, X>, blocks, THREADS, stream, y, x, rows, n, pieces, length, scale);
}

/* A sum of everything has so many terms that f32 would show. */
template <typename T>
struct in_double {
    const T *x;
    __device__ double operator()(int64_t i) const { return load(x[i]); }
};

/* Few long rows are cut into pieces, so that all multiprocessors get work. */
template <typename T>
static int sum_rows(T *y, const T *x, int64_t rows, int64_t n, float scale, cudaStream_t stream) {
    if (n <= WARP_ROW) return row_pieces<WARP>(y, x, rows, n, 1, scale, stream);
    int64_t pieces = rows < 256 ? cuts(n, 16 * WARP_ROW) : 1;
    if (pieces > 512) pieces = 512;
    if (pieces == 1) return row_pieces<THREADS>(y, x, rows, n, 1, scale, stream);
    scratch<float> part(rows * pieces, stream);
    if (!part.data || row_pieces<THREADS>(part.data, x, rows, n, pieces, 1.0f, stream) != 0) return -1;
    return row_pieces<WARP>(y, part.data, rows, pieces, 1, scale, stream);
}

/* ---- columns: [rows summed, width kept], the gradient of a bias ---- */

template <typename T>
static int sum_columns(T *y, const T *x, int64_t rows, int64_t width, float scale, cudaStream_t stream) {
    constexpr int N = lanes_of<T>;
    bool wide = width % N == 0 && aligned(x);
    int64_t strips = cuts(width, wide ? WARP * N : WARP), pieces = cuts(1024, strips);
    if (pieces > cuts(rows, 64)) pieces = cuts(rows, 64);
    scratch<float> part(pieces * width, stream);
    if (!part.data) return -1;
    row_cuts all = {rows, pieces};
    plain_columns<T> f = {x, width};
    int failed = wide ? column_sums<N>(part.data, nullptr, pieces, width, all, f, stream)
                      : column_sums<1>(part.data, nullptr, pieces, width, all, f, stream);
    return failed ? -1 : add_pieces(y, part.data, 1, pieces, width, scale, stream);
}

/* ---- any pattern: one block for each result ---- */

/* `kept` goes over the results (steps of x and y), `summed` over what each is the sum of (steps of x). */
template <typename T>
static __global__ void general_sum_kernel(T *y, const T *x, syz_nest kept, syz_nest summed, int64_t n, float scale) {
    int64_t from, to, offset, unused;
    nest_offsets<int64_t>(kept, blockIdx.x, &from, &to);
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        nest_offsets<int64_t>(summed, i, &offset, &unused);
        sum += load(x[from + offset]);
    }
    sum = group_sum<THREADS>(sum);
    if (threadIdx.x == 0) y[to] = store<T>(scale * sum);
}

template <typename T>
static int general_sum(T *y, const T *x, const syz_nest &nest, float scale, cudaStream_t stream) {
    syz_nest kept = {}, summed = {};
    int64_t step = 1;
    for (int d = nest.n - 1; d >= 0; d--, step *= nest.dim[d + 1]) {
        syz_nest *part = nest.a[d] ? &kept : &summed;
        /* filled from the end, so that the order of the dimensions stays */
        int at = SYZ_KERNEL_DIMS - 1 - part->n++;
        part->dim[at] = nest.dim[d];
        part->a[at] = step;
        part->b[at] = nest.a[d];
    }
    for (syz_nest *part : {&kept, &summed}) {
        int skip = SYZ_KERNEL_DIMS - part->n;
        for (int d = 0; d < part->n; d++) {
            part->dim[d] = part->dim[d + skip];
            part->a[d] = part->a[d + skip];
            part->b[d] = part->b[d + skip];
        }
    }
    return launch(general_sum_kernel<T>, nest_size(kept), THREADS, stream, y, x, kept, summed, nest_size(summed),
                  scale);
}

/* ---- argmax ---- */

/* One thread for each result: rows are short, and this is not on the training path. */
template <typename T>
static __global__ void argmax_kernel(int64_t *y, const T *x, int64_t rows, int64_t n, int64_t inner) {
    int64_t row = thread_index();
    if (row >= rows) return;
    const T *from = x + row / inner * n * inner + row % inner;
    int64_t best = 0;
    float top = load(from[0]);
    for (int64_t i = 1; i < n && top == top; i++) {
        float value = load(from[i * inner]);
        if (value <= top) continue;
        top = value;
        best = i;
    }
    y[row] = best;
}

} // namespace

template <typename REAL>
int syz_cuda::sum(REAL *y, const REAL *x, const syz_nest *nest, float scale, int64_t, cudaStream_t stream) {
    if (nest->n == 1 && nest->a[0] == 0) return total(y, nest->dim[0], in_double<REAL>{x}, 1 / (double)scale, stream);
    if (nest->n == 2 && nest->a[0] != 0 && nest->a[1] == 0)
        return sum_rows(y, x, nest->dim[0], nest->dim[1], scale, stream);
    if (nest->n == 2 && nest->a[0] == 0 && nest->a[1] == 1)
        return sum_columns(y, x, nest->dim[0], nest->dim[1], scale, stream);
    return general_sum(y, x, *nest, scale, stream);
}

template <typename REAL>
int syz_cuda::argmax(int64_t *y, const REAL *x, int64_t outer, int64_t n, int64_t inner, cudaStream_t stream) {
    int64_t rows = outer * inner;
    return launch(argmax_kernel<REAL>, cuts(rows, THREADS), THREADS, stream, y, x, rows, n, inner);
}

SYZ_BOTH(sum)
SYZ_BOTH(argmax)
