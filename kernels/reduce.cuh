/* Sums whose order depends on the shape alone: within a warp, a block, down columns, over everything. */
#ifndef SYZ_REDUCE_CUH
#define SYZ_REDUCE_CUH

#include "kernels/cuda.cuh"

namespace syz_cuda {

/* ---- within a group of threads: one warp, or the whole block of THREADS ---- */

struct plus {
    template <typename V>
    __device__ V operator()(V a, V b) const {
        return a + b;
    }
};
struct maximum {
    __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; } /* NaN stays */
};

/* Every thread of the group gets the result. */
template <int GROUP, typename F, typename V>
static __device__ inline V group_reduce(V value, F f) {
    for (int bits = WARP / 2; bits > 0; bits /= 2)
        value = f(value, __shfl_xor_sync(0xffffffffu, value, bits));
    if constexpr (GROUP > WARP) {
        __shared__ V part[GROUP / WARP];
        if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = value;
        __syncthreads();
        value = part[0];
        for (int k = 1; k < GROUP / WARP; k++)
            value = f(value, part[k]);
        __syncthreads(); /* the next call writes to the same array */
    }
    return value;
}

template <int GROUP, typename V>
static __device__ inline V group_sum(V value) {
    return group_reduce<GROUP>(value, plus());
}

/* Which row this thread's group works on, and its place in the group. */
template <int GROUP>
static __device__ inline int64_t group_row() {
    return (int64_t)blockIdx.x * (THREADS / GROUP) + threadIdx.x / GROUP;
}
template <int GROUP>
static __device__ inline int group_rank() {
    return threadIdx.x % GROUP;
}
template <int GROUP>
static inline int64_t group_blocks(int64_t rows) {
    return cuts(rows, THREADS / GROUP);
}

/* A warp does a row of up to this many values, a block a longer one. */
enum { WARP_ROW = 1024 };

/* ---- down the columns ---- */

/* Rows in spans of `span`, each cut into `cuts` pieces; piece k belongs to span k / cuts. */
struct row_cuts {
    int64_t span, cuts;

    __device__ int64_t start(int64_t piece) const { return piece / cuts * span + span * (piece % cuts) / cuts; }
    __device__ int64_t stop(int64_t piece) const { return piece / cuts * span + span * (piece % cuts + 1) / cuts; }
};

enum { ROW_LANES = THREADS / WARP };

template <int N>
static __device__ inline void add_row_lanes(float *to, float part[ROW_LANES][WARP * N], int64_t first, int64_t width) {
    for (int c = threadIdx.x; c < WARP * N && first + c < width; c += THREADS) {
        float sum = part[0][c];
        for (int r = 1; r < ROW_LANES; r++)
            sum += part[r][c];
        to[first + c] = sum;
    }
}

/* a, b [pieces,width] = over the rows of each piece, the sums of what f adds to a and b; either may be NULL. A block
 * does WARP * N columns of one piece, its warps every eighth row. f.template at<N>(row, column) gives what is the same
 * for all rows of a piece; its add(row, a, b) is then called for each row. */
template <int N, typename F>
static __global__ void column_sums_kernel(float *a, float *b, int64_t width, int64_t strips, row_cuts rows, F f) {
    __shared__ float part_a[ROW_LANES][WARP * N], part_b[ROW_LANES][WARP * N];
    int64_t piece = blockIdx.x / strips, first = blockIdx.x % strips * (WARP * N);
    int lane = threadIdx.x % WARP, row_lane = threadIdx.x / WARP;
    int64_t column = first + lane * N, stop = rows.stop(piece);
    float sum_a[N] = {0}, sum_b[N] = {0};
    if (column < width) {
        int64_t row = rows.start(piece);
        auto columns = f.template at<N>(row, column);
        for (row += row_lane; row < stop; row += ROW_LANES)
            columns.add(row, sum_a, sum_b);
    }
    for (int k = 0; k < N; k++) {
        part_a[row_lane][lane * N + k] = sum_a[k];
        part_b[row_lane][lane * N + k] = sum_b[k];
    }
    __syncthreads();
    if (a) add_row_lanes<N>(a + piece * width, part_a, first, width);
    if (b) add_row_lanes<N>(b + piece * width, part_b, first, width);
}

template <int N, typename F>
static int column_sums(float *a, float *b, int64_t pieces, int64_t width, row_cuts rows, F f, cudaStream_t stream) {
    int64_t strips = syz_cuda::cuts(width, WARP * N);
    return launch(column_sums_kernel<N, F>, pieces * strips, THREADS, stream, a, b, width, strips, rows, f);
}

/* y [spans,width] = scale * the sum of the `cuts` pieces of each span, in order */
template <typename T>
static __global__ void add_pieces_kernel(T *y, const float *pieces, int64_t cuts, int64_t width, int64_t n,
                                         float scale) {
    int64_t i = thread_index();
    if (i >= n) return;
    const float *from = pieces + i / width * cuts * width + i % width;
    float sum = 0;
    for (int64_t k = 0; k < cuts; k++)
        sum += from[k * width];
    y[i] = store<T>(scale * sum);
}

template <typename T>
static int add_pieces(T *y, const float *pieces, int64_t spans, int64_t cuts, int64_t width, float scale,
                      cudaStream_t stream) {
    int64_t n = spans * width;
    return launch(add_pieces_kernel<T>, syz_cuda::cuts(n, THREADS), THREADS, stream, y, pieces, cuts, width, n, scale);
}

/* a, b [spans,width] = the sums over each span's rows; either may be NULL. `wide` allows N columns at a time. The
 * number of pieces fills a device of some hundred multiprocessors, and depends on the shape alone. */
template <int N, typename F>
static int span_sums(float *a, float *b, const syz_norm_shape &s, F f, bool wide, cudaStream_t stream) {
    if (!a && !b) return 0;
    int64_t strips = cuts(s.width, wide ? WARP * N : WARP), spans = s.rows / s.span,
            pieces = cuts(1024, strips * spans);
    if (pieces > cuts(s.span, 64)) pieces = cuts(s.span, 64);
    int64_t rows = spans * pieces, size = rows * s.width;
    scratch<float> part((a ? size : 0) + (b ? size : 0), stream);
    if (!part.data) return -1;
    float *part_a = a ? part.data : nullptr, *part_b = b ? part.data + (a ? size : 0) : nullptr;
    row_cuts cut = {s.span, pieces};
    if ((wide ? column_sums<N>(part_a, part_b, rows, s.width, cut, f, stream)
              : column_sums<1>(part_a, part_b, rows, s.width, cut, f, stream)) != 0)
        return -1;
    if (a && add_pieces(a, part_a, spans, pieces, s.width, 1.0f, stream) != 0) return -1;
    return b ? add_pieces(b, part_b, spans, pieces, s.width, 1.0f, stream) : 0;
}

/* For these sums: a += the columns of x [rows,width]. */
template <typename T>
struct plain_columns {
    const T *x;
    int64_t width;
    template <int N>
    __device__ plain_columns at(int64_t, int64_t column) const {
        return {x + column, width};
    }
    template <int N>
    __device__ void add(int64_t row, float (&sum)[N], float (&)[N]) const {
        pack<T, N> values = read<N>(x + row * width);
        for (int k = 0; k < N; k++)
            sum[k] += load(values.value[k]);
    }
};

/* ---- over everything, in double ---- */

template <typename V>
static __device__ inline V rounded(double x) {
    if constexpr (sizeof(V) == sizeof(double))
        return x;
    else
        return store<V>((float)x);
}

/* Threads sum f32 values of f(i) for every (blocks * THREADS)-th i, or double ones where f gives these. */
template <typename V, typename F>
static __global__ void total_kernel(V *part, int64_t n, F f, double count) {
    decltype(f(0)) sum = 0;
    for (int64_t i = thread_index(); i < n; i += (int64_t)gridDim.x * THREADS)
        sum += f(i);
    double total = group_sum<THREADS>((double)sum);
    if (threadIdx.x == 0) part[blockIdx.x] = rounded<V>(total / count);
}

struct partial_sums {
    const double *part;
    __device__ double operator()(int64_t i) const { return part[i]; }
};

/* *y = the sum of f(0) .. f(n - 1), divided by `count` */
template <typename V, typename F>
static int total(V *y, int64_t n, F f, double count, cudaStream_t stream) {
    int64_t blocks = cuts(n, THREADS * 8);
    if (blocks > 1024) blocks = 1024;
    if (blocks < 1) blocks = 1;
    scratch<double> part(blocks, stream);
    if (!part.data || launch(total_kernel<double, F>, blocks, THREADS, stream, part.data, n, f, 1.0) != 0) return -1;
    return launch(total_kernel<V, partial_sums>, 1, THREADS, stream, y, blocks, partial_sums{part.data}, count);
}

} // namespace syz_cuda

#endif
