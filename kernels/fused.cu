#include "kernels/reduce.cuh"

namespace {

using namespace syz_cuda;

struct modulated {
    __device__ float operator()(float x, float shift, float scale) const { return x * (1.0f + scale) + shift; }
};
struct gated {
    __device__ float operator()(float x, float gate, float h) const { return x + gate * h; }
};
struct scaled {
    float offset;
    __device__ float operator()(float dy, float scale, float) const { return dy * (offset + scale); }
};

/* y = f(x, w, z): x and y by row, w by span, and z by row (a gate's h) or by span (shift and scale). */
template <int N, bool Z_BY_SPAN, typename T, typename F>
static __global__ void rows_kernel(T *y, const T *x, const T *w, const T *z, syz_norm_shape s, F f) {
    int64_t i = thread_index() * N;
    if (i >= s.rows * s.width) return;
    int64_t row = i / s.width, shared = row / s.span * s.width + (i - row * s.width);
    pack<T, N> a = read<N>(x + i), b = read<N>(w + shared), c = read<N>(z + (Z_BY_SPAN ? shared : i)), out;
    for (int k = 0; k < N; k++)
        out.value[k] = store<T>(f(load(a.value[k]), load(b.value[k]), load(c.value[k])));
    write(y + i, out);
}

template <bool Z_BY_SPAN, typename T, typename F>
static int over_rows(T *y, const T *x, const T *w, const T *z, const syz_norm_shape &s, F f, cudaStream_t stream) {
    constexpr int N = lanes_of<T>;
    int64_t n = s.rows * s.width;
    if (s.width % N == 0 && aligned(y, x, w, z))
        return launch(rows_kernel<N, Z_BY_SPAN, T, F>, cuts(n, THREADS * N), THREADS, stream, y, x, w, z, s, f);
    return launch(rows_kernel<1, Z_BY_SPAN, T, F>, cuts(n, THREADS), THREADS, stream, y, x, w, z, s, f);
}

/* a: the gradient of the scale, b: that of the shift. */
template <typename T>
struct scale_columns {
    const T *dy, *x;
    int64_t width;
    template <int N>
    __device__ scale_columns at(int64_t, int64_t column) const {
        return {dy + column, x + column, width};
    }
    template <int N>
    __device__ void add(int64_t row, float (&a)[N], float (&b)[N]) const {
        pack<T, N> g = read<N>(dy + row * width), v = read<N>(x + row * width);
        for (int k = 0; k < N; k++) {
            a[k] += load(g.value[k]) * load(v.value[k]);
            b[k] += load(g.value[k]);
        }
    }
};

} // namespace

template <typename REAL>
int syz_cuda::modulate(REAL *y, const REAL *x, const REAL *shift, const REAL *scale, const syz_norm_shape *shape,
                       cudaStream_t stream) {
    return over_rows<true>(y, x, shift, scale, *shape, modulated(), stream);
}

template <typename REAL>
int syz_cuda::gate(REAL *y, const REAL *x, const REAL *gate, const REAL *h, const syz_norm_shape *shape,
                   cudaStream_t stream) {
    return over_rows<false>(y, x, gate, h, *shape, gated(), stream);
}

template <typename REAL>
int syz_cuda::modulate_backward(REAL *dx, float *dscale, float *dshift, const REAL *dy, const REAL *x,
                                const REAL *scale, const syz_norm_shape *shape, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    if (dx && over_rows<true>(dx, dy, scale, scale, *shape, scaled{shape->offset}, stream) != 0) return -1;
    bool wide = shape->width % N == 0 && aligned(dy, x);
    return span_sums<N>(dscale, dshift, *shape, scale_columns<REAL>{dy, x, shape->width}, wide, stream);
}

SYZ_BOTH(modulate)
SYZ_BOTH(gate)
SYZ_BOTH(modulate_backward)
