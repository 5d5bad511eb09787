/* Normalisation of rows: a warp does a short row, a block a long one. A row is read from memory once and then again
 * from the cache. */
#include "kernels/reduce.cuh"

namespace {

using namespace syz_cuda;

/* The sum over a row of f(index of a pack), for a row whose index every thread of the group knows. */
template <int GROUP, int N, typename F>
static __device__ inline float row_total(int64_t width, F f) {
    float sum = 0;
    for (int64_t i = group_rank<GROUP>() * N; i < width; i += GROUP * N)
        sum += f(i);
    return group_sum<GROUP>(sum);
}

/* ---- layer norm and root-mean-square norm ---- */

template <int N, typename T>
struct pack_sum {
    const T *x;
    __device__ float operator()(int64_t i) const {
        pack<T, N> v = read<N>(x + i);
        float sum = 0;
        for (int k = 0; k < N; k++)
            sum += load(v.value[k]);
        return sum;
    }
};

template <int N, typename T>
struct pack_squares {
    const T *x;
    float around;
    __device__ float operator()(int64_t i) const {
        pack<T, N> v = read<N>(x + i);
        float sum = 0;
        for (int k = 0; k < N; k++)
            sum += (load(v.value[k]) - around) * (load(v.value[k]) - around);
        return sum;
    }
};

/* N values of weight or bias; `otherwise` where there is none. */
template <int N, typename T>
static __device__ inline void read_weight(float (&w)[N], const T *from, float otherwise) {
    if (!from) {
        for (int k = 0; k < N; k++)
            w[k] = otherwise;
        return;
    }
    pack<T, N> v = read<N>(from);
    for (int k = 0; k < N; k++)
        w[k] = load(v.value[k]);
}

template <int GROUP, int N, typename T>
static __global__ void norm_kernel(T *y, float *mean, float *rstd, const T *x, const T *weight, const T *bias,
                                   syz_norm_shape s, float eps) {
    int64_t row = group_row<GROUP>(), at = row < s.rows ? row : 0, weights = at / s.span * s.width;
    const T *from = x + at * s.width;
    float n = (float)s.width, m = mean ? row_total<GROUP, N>(s.width, pack_sum<N, T>{from}) / n : 0.0f;
    float r = 1.0f / sqrtf(row_total<GROUP, N>(s.width, pack_squares<N, T>{from, m}) / n + eps);
    if (row >= s.rows) return;
    float offset = weight ? s.offset : 0.0f;
    for (int64_t i = group_rank<GROUP>() * N; i < s.width; i += GROUP * N) {
        pack<T, N> v = read<N>(from + i), out;
        float w[N], b[N];
        read_weight(w, weight ? weight + weights + i : weight, 1.0f);
        read_weight(b, bias ? bias + weights + i : bias, 0.0f);
        for (int k = 0; k < N; k++)
            out.value[k] = store<T>((load(v.value[k]) - m) * r * (offset + w[k]) + b[k]);
        write(y + row * s.width + i, out);
    }
    if (group_rank<GROUP>() != 0) return;
    if (mean) mean[row] = m;
    rstd[row] = r;
}

/* With g = dy * (offset + weight): dx = rstd * (g - mean(g) - xhat * mean(g * xhat)); the second term only if centred.
 */
template <int GROUP, int N, typename T>
static __global__ void norm_input_gradient(T *dx, const T *dy, const T *x, const float *mean, const float *rstd,
                                           const T *weight, syz_norm_shape s) {
    int64_t row = group_row<GROUP>(), at = row < s.rows ? row : 0;
    const T *weights = weight ? weight + at / s.span * s.width : weight;
    float m = mean ? mean[at] : 0.0f, r = rstd[at], sum = 0, dot = 0, offset = weight ? s.offset : 0.0f;
    dx += at * s.width, dy += at * s.width, x += at * s.width;
    for (int64_t i = group_rank<GROUP>() * N; i < s.width; i += GROUP * N) {
        pack<T, N> g = read<N>(dy + i), v = read<N>(x + i);
        float w[N];
        read_weight(w, weights ? weights + i : weights, 1.0f);
        for (int k = 0; k < N; k++) {
            float slope = load(g.value[k]) * (offset + w[k]);
            sum += slope;
            dot += slope * (load(v.value[k]) - m);
        }
    }
    float along = group_sum<GROUP>(dot) * r * r * r / (float)s.width;
    float level = mean ? group_sum<GROUP>(sum) * r / (float)s.width : 0.0f;
    if (row >= s.rows) return;
    for (int64_t i = group_rank<GROUP>() * N; i < s.width; i += GROUP * N) {
        pack<T, N> g = read<N>(dy + i), v = read<N>(x + i), out;
        float w[N];
        read_weight(w, weights ? weights + i : weights, 1.0f);
        for (int k = 0; k < N; k++)
            out.value[k] = store<T>(r * load(g.value[k]) * (offset + w[k]) - level - (load(v.value[k]) - m) * along);
        write(dx + i, out);
    }
}

/* a: the gradient of the weight, b: that of the bias. */
template <typename T>
struct norm_columns {
    const T *dy, *x;
    const float *mean, *rstd;
    int64_t width;
    template <int N>
    __device__ norm_columns at(int64_t, int64_t column) const {
        return {dy + column, x + column, mean, rstd, width};
    }
    template <int N>
    __device__ void add(int64_t row, float (&a)[N], float (&b)[N]) const {
        pack<T, N> g = read<N>(dy + row * width), v = read<N>(x + row * width);
        float m = mean ? mean[row] : 0.0f, r = rstd[row];
        for (int k = 0; k < N; k++) {
            a[k] += load(g.value[k]) * (load(v.value[k]) - m) * r;
            b[k] += load(g.value[k]);
        }
    }
};

template <int N, typename T>
static int norm_rows(T *y, float *mean, float *rstd, const T *x, const T *weight, const T *bias,
                     const syz_norm_shape &s, float eps, cudaStream_t stream) {
    if (s.width <= WARP_ROW)
        return launch(norm_kernel<WARP, N, T>, group_blocks<WARP>(s.rows), THREADS, stream, y, mean, rstd, x, weight,
                      bias, s, eps);
    return launch(norm_kernel<THREADS, N, T>, group_blocks<THREADS>(s.rows), THREADS, stream, y, mean, rstd, x, weight,
                  bias, s, eps);
}

template <int N, typename T>
static int norm_row_gradients(T *dx, const T *dy, const T *x, const float *mean, const float *rstd, const T *weight,
                              const syz_norm_shape &s, cudaStream_t stream) {
    if (s.width <= WARP_ROW)
        return launch(norm_input_gradient<WARP, N, T>, group_blocks<WARP>(s.rows), THREADS, stream, dx, dy, x, mean,
                      rstd, weight, s);
    return launch(norm_input_gradient<THREADS, N, T>, group_blocks<THREADS>(s.rows), THREADS, stream, dx, dy, x, mean,
                  rstd, weight, s);
}

/* ---- L2 normalisation ---- */

template <int GROUP, typename T>
static __global__ void normalize_kernel(T *y, float *inverse, const T *x, int64_t rows, int64_t width, float eps) {
    int64_t row = group_row<GROUP>(), at = row < rows ? row : 0;
    float length = sqrtf(row_total<GROUP, 1>(width, pack_squares<1, T>{x + at * width, 0.0f}));
    float scale = 1.0f / (length > eps ? length : eps);
    if (row >= rows) return;
    for (int64_t i = group_rank<GROUP>(); i < width; i += GROUP)
        y[row * width + i] = store<T>(load(x[row * width + i]) * scale);
    if (group_rank<GROUP>() == 0) inverse[row] = scale;
}

template <typename T>
struct product_of {
    const T *a, *b;
    __device__ float operator()(int64_t i) const { return load(a[i]) * load(b[i]); }
};

/* dx = inverse * (dy - y * (y . dy)); below eps the length is a constant and the second term is absent */
template <int GROUP, typename T>
static __global__ void normalize_gradient(T *dx, const T *dy, const T *y, const float *inverse, int64_t rows,
                                          int64_t width, float eps) {
    int64_t row = group_row<GROUP>(), at = row < rows ? row : 0;
    float dot = row_total<GROUP, 1>(width, product_of<T>{dy + at * width, y + at * width}), scale = inverse[at];
    if (row >= rows) return;
    if (scale >= 1.0f / eps) dot = 0;
    for (int64_t i = group_rank<GROUP>(); i < width; i += GROUP)
        dx[row * width + i] = store<T>(scale * (load(dy[row * width + i]) - load(y[row * width + i]) * dot));
}

} // namespace

template <typename REAL>
int syz_cuda::norm(REAL *y, float *mean, float *rstd, const REAL *x, const REAL *weight, const REAL *bias,
                   const syz_norm_shape *shape, float eps, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    if (shape->width % N == 0 && aligned(y, x, weight, bias))
        return norm_rows<N>(y, mean, rstd, x, weight, bias, *shape, eps, stream);
    return norm_rows<1>(y, mean, rstd, x, weight, bias, *shape, eps, stream);
}

template <typename REAL>
int syz_cuda::norm_backward(REAL *dx, float *dweight, float *dbias, const REAL *dy, const REAL *x, const float *mean,
                            const float *rstd, const REAL *weight, const syz_norm_shape *shape, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    bool wide = shape->width % N == 0 && aligned(dx, dy, x, weight);
    if (dx && wide && norm_row_gradients<N>(dx, dy, x, mean, rstd, weight, *shape, stream) != 0) return -1;
    if (dx && !wide && norm_row_gradients<1>(dx, dy, x, mean, rstd, weight, *shape, stream) != 0) return -1;
    norm_columns<REAL> f = {dy, x, mean, rstd, shape->width};
    return span_sums<N>(dweight, dbias, *shape, f, wide, stream);
}

template <typename REAL>
int syz_cuda::normalize(REAL *y, float *inverse, const REAL *x, int64_t rows, int64_t width, float eps,
                        cudaStream_t stream) {
    if (width <= WARP_ROW)
        return launch(normalize_kernel<WARP, REAL>, group_blocks<WARP>(rows), THREADS, stream, y, inverse, x, rows,
                      width, eps);
    return launch(normalize_kernel<THREADS, REAL>, group_blocks<THREADS>(rows), THREADS, stream, y, inverse, x, rows,
                  width, eps);
}

template <typename REAL>
int syz_cuda::normalize_backward(REAL *dx, const REAL *dy, const REAL *y, const float *inverse, int64_t rows,
                                 int64_t width, float eps, cudaStream_t stream) {
    if (width <= WARP_ROW)
        return launch(normalize_gradient<WARP, REAL>, group_blocks<WARP>(rows), THREADS, stream, dx, dy, y, inverse,
                      rows, width, eps);
    return launch(normalize_gradient<THREADS, REAL>, group_blocks<THREADS>(rows), THREADS, stream, dx, dy, y, inverse,
                  rows, width, eps);
}

SYZ_BOTH(norm)
SYZ_BOTH(norm_backward)
SYZ_BOTH(normalize)
SYZ_BOTH(normalize_backward)
