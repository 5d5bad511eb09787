/* Root-mean-square norm of each head and its rotation in one pass: a warp for each head. */
#include "kernels/reduce.cuh"

namespace {

using namespace syz_cuda;

/* Where head `row`, counted over [batch,tokens,heads], begins. */
static __device__ inline int64_t head_start(const syz_head_rows &s, const int64_t *step, int64_t row) {
    int64_t token = row / s.heads, batch = token / s.tokens;
    return batch * step[0] + (token - batch * s.tokens) * step[1] + (row - token * s.heads) * s.dim;
}

/* A pair of values as the rotation by `turn` times the angle of sine leaves it. */
struct pair {
    float even, odd;
    __device__ pair rotated(float cosine, float turn) const {
        return {even * cosine - odd * turn, odd * cosine + even * turn};
    }
};

/* N values of a head: N even, or in pairs of single reads where nothing is known of the address. */
template <int N, typename T>
static __device__ inline void read_pairs(float (&to)[N], const T *from) {
    constexpr int AT_ONCE = N > 2 ? N : 1;
    for (int k = 0; k < N; k += AT_ONCE) {
        pack<T, AT_ONCE> values = read<AT_ONCE>(from + k);
        for (int j = 0; j < AT_ONCE; j++)
            to[k + j] = load(values.value[j]);
    }
}

template <int N, typename T>
static __device__ inline void write_pairs(T *to, const float (&from)[N]) {
    constexpr int AT_ONCE = N > 2 ? N : 1;
    for (int k = 0; k < N; k += AT_ONCE) {
        pack<T, AT_ONCE> values;
        for (int j = 0; j < AT_ONCE; j++)
            values.value[j] = store<T>(from[k + j]);
        write(to + k, values);
    }
}

template <int N>
static __device__ inline void rotate(float (&v)[N], const float *cosine, const float *sine, float sign) {
    for (int k = 0; k < N; k += 2) {
        pair turned = pair{v[k], v[k + 1]}.rotated(cosine[k / 2], sign * sine[k / 2]);
        v[k] = turned.even;
        v[k + 1] = turned.odd;
    }
}

template <int N, typename T>
static __global__ void head_norm_kernel(T *y, float *rstd, const T *x, const T *weight, const float *cosine,
                                        const float *sine, syz_head_rows s, int64_t rows, float eps) {
    int64_t row = group_row<WARP>(), at = row < rows ? row : 0, angle = at / s.heads % s.tokens * (s.dim / 2);
    const T *from = x + head_start(s, s.x_step, at);
    T *to = y + head_start(s, s.y_step, at);
    float sum = 0, v[N], w[N];
    for (int64_t i = group_rank<WARP>() * N; i < s.dim; i += WARP * N) {
        read_pairs(v, from + i);
        for (int k = 0; k < N; k++)
            sum += v[k] * v[k];
    }
    float r = 1.0f / sqrtf(group_sum<WARP>(sum) / (float)s.dim + eps);
    if (row >= rows) return;
    for (int64_t i = group_rank<WARP>() * N; i < s.dim; i += WARP * N) {
        read_pairs(v, from + i);
        read_pairs(w, weight + i);
        for (int k = 0; k < N; k++)
            v[k] *= r * w[k];
        rotate(v, cosine + angle + i / 2, sine + angle + i / 2, 1.0f);
        write_pairs(to + i, v);
    }
    if (rstd && group_rank<WARP>() == 0) rstd[row] = r;
}

/* With g = weight * dy rotated back, xhat = x * rstd: dx = rstd * (g - xhat * mean(g * xhat)). */
template <int N, typename T>
static __global__ void head_norm_gradient(T *dx, const T *dy, const T *x, const float *rstd, const T *weight,
                                          const float *cosine, const float *sine, syz_head_rows s, int64_t rows) {
    int64_t row = group_row<WARP>(), at = row < rows ? row : 0, angle = at / s.heads % s.tokens * (s.dim / 2);
    const T *from = x + head_start(s, s.x_step, at), *slope = dy + head_start(s, s.y_step, at);
    T *to = dx + head_start(s, s.x_step, at);
    float r = rstd[at], dot = 0, g[N], v[N], w[N];
    for (int64_t i = group_rank<WARP>() * N; i < s.dim; i += WARP * N) {
        read_pairs(g, slope + i);
        read_pairs(v, from + i);
        read_pairs(w, weight + i);
        rotate(g, cosine + angle + i / 2, sine + angle + i / 2, -1.0f);
        for (int k = 0; k < N; k++)
            dot += g[k] * w[k] * v[k] * r;
    }
    float along = group_sum<WARP>(dot) / (float)s.dim;
    if (row >= rows) return;
    for (int64_t i = group_rank<WARP>() * N; i < s.dim; i += WARP * N) {
        read_pairs(g, slope + i);
        read_pairs(v, from + i);
        read_pairs(w, weight + i);
        rotate(g, cosine + angle + i / 2, sine + angle + i / 2, -1.0f);
        for (int k = 0; k < N; k++)
            g[k] = r * (g[k] * w[k] - v[k] * r * along);
        write_pairs(to + i, g);
    }
}

/* a: the gradient of the weight, dy rotated back times xhat. A column's partner is its neighbour in the pair. */
template <typename T>
struct weight_columns {
    const T *dy, *x;
    const float *rstd, *cosine, *sine;
    syz_head_rows s;
    int64_t column;
    template <int N>
    __device__ weight_columns at(int64_t, int64_t first) const {
        return {dy, x, rstd, cosine, sine, s, first};
    }
    template <int N>
    __device__ void add(int64_t row, float (&a)[N], float (&)[N]) const {
        const T *g = dy + head_start(s, s.y_step, row), *v = x + head_start(s, s.x_step, row);
        int64_t angle = row / s.heads % s.tokens * (s.dim / 2);
        for (int k = 0; k < N; k++) {
            int64_t c = column + k, even = c / 2 * 2;
            float turn = -sine[angle + c / 2];
            pair back = pair{load(g[even]), load(g[even + 1])}.rotated(cosine[angle + c / 2], turn);
            a[k] += (c == even ? back.even : back.odd) * load(v[c]) * rstd[row];
        }
    }
};

/* Whether rows at these steps begin on 16-byte boundaries. */
template <typename T>
static bool wide(const syz_head_rows &s) {
    bool fits = s.dim % lanes_of<T> == 0;
    for (int k = 0; k < 2; k++)
        fits = fits && s.x_step[k] % lanes_of<T> == 0 && s.y_step[k] % lanes_of<T> == 0;
    return fits;
}

} // namespace

template <typename REAL>
int syz_cuda::head_norm(REAL *y, float *rstd, const REAL *x, const REAL *weight, const float *cosine, const float *sine,
                        const syz_head_rows *s, float eps, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t rows = s->batch * s->tokens * s->heads, blocks = group_blocks<WARP>(rows);
    if (wide<REAL>(*s) && aligned(y, x, weight))
        return launch(head_norm_kernel<N, REAL>, blocks, THREADS, stream, y, rstd, x, weight, cosine, sine, *s, rows,
                      eps);
    return launch(head_norm_kernel<2, REAL>, blocks, THREADS, stream, y, rstd, x, weight, cosine, sine, *s, rows, eps);
}

template <typename REAL>
int syz_cuda::head_norm_backward(REAL *dx, float *dweight, const REAL *dy, const REAL *x, const float *rstd,
                                 const REAL *weight, const float *cosine, const float *sine, const syz_head_rows *s,
                                 cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t rows = s->batch * s->tokens * s->heads, blocks = group_blocks<WARP>(rows);
    weight_columns<REAL> f = {dy, x, rstd, cosine, sine, *s, 0};
    syz_norm_shape all = {rows, s->dim, rows, 0};
    if (span_sums<2>(dweight, nullptr, all, f, true, stream) != 0) return -1; /* first: dx may take the place of dy */
    if (wide<REAL>(*s) && aligned(dx, dy, x, weight))
        return launch(head_norm_gradient<N, REAL>, blocks, THREADS, stream, dx, dy, x, rstd, weight, cosine, sine, *s,
                      rows);
    return launch(head_norm_gradient<2, REAL>, blocks, THREADS, stream, dx, dy, x, rstd, weight, cosine, sine, *s,
                  rows);
}

SYZ_BOTH(head_norm)
SYZ_BOTH(head_norm_backward)
