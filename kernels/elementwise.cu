#include "kernels/map.cuh"
#include "kernels/nest.cuh"

namespace {

using namespace syz_cuda;

/* ---- binary over a nest ---- */

struct add {
    __device__ float operator()(float p, float q) const { return p + q; }
};
struct sub {
    __device__ float operator()(float p, float q) const { return p - q; }
};
struct mul {
    __device__ float operator()(float p, float q) const { return p * q; }
};
struct divide {
    __device__ float operator()(float p, float q) const { return p / q; }
};
struct larger {
    __device__ float operator()(float p, float q) const { return p > q ? p : q; }
};
struct smaller {
    __device__ float operator()(float p, float q) const { return p < q ? p : q; }
};

/* N values along the last dimension, where a and b go by 1 or stand still. */
template <int N, typename T>
static __device__ inline pack<T, N> read_row(const T *from, int64_t step) {
    if (N > 1 && step == 1) return read<N>(from);
    pack<T, N> same;
    for (int k = 0; k < N; k++)
        same.value[k] = *from;
    return same;
}

/* Element by element, or N at a time: then `nest` counts packs along its last dimension, with steps to match. */
template <int N, typename I, typename T, typename F>
static __global__ void binary_kernel(T *y, const T *a, const T *b, syz_nest nest, int64_t step_a, int64_t step_b, I n,
                                     F f) {
    int64_t i = thread_index(), pa, pb;
    if (i >= (int64_t)n) return;
    nest_offsets<I>(nest, (I)i, &pa, &pb);
    map_pack<N>(y + i * N, f, read_row<N>(a + pa, step_a), read_row<N>(b + pb, step_b));
}

template <int N, typename T, typename F>
static int binary_packs(T *y, const T *a, const T *b, const syz_nest &nest, F f, cudaStream_t stream) {
    int last = nest.n - 1;
    syz_nest packs = nest;
    packs.dim[last] /= N;
    packs.a[last] *= N;
    packs.b[last] *= N;
    int64_t n = nest_size(packs), blocks = cuts(n, THREADS), sa = nest.a[last], sb = nest.b[last];
    if (n <= INT32_MAX)
        return launch(binary_kernel<N, uint32_t, T, F>, blocks, THREADS, stream, y, a, b, packs, sa, sb, (uint32_t)n,
                      f);
    return launch(binary_kernel<N, int64_t, T, F>, blocks, THREADS, stream, y, a, b, packs, sa, sb, n, f);
}

/* Whether every pack of N lies in one piece of x, aligned, or is one repeated value. */
template <typename T>
static bool in_packs(const T *x, const syz_nest &nest, const int64_t *step) {
    int last = nest.n - 1;
    if (nest.dim[last] % lanes_of<T> || step[last] < 0 || step[last] > 1) return false;
    if (step[last] == 0) return true;
    for (int d = 0; d < last; d++)
        if (step[d] % lanes_of<T>) return false;
    return aligned(x);
}

template <typename T, typename F>
static int binary_of(T *y, const T *a, const T *b, const syz_nest &nest, F f, cudaStream_t stream) {
    if (nest.n == 1 && nest.a[0] == 1 && nest.b[0] == 1) return map(y, nest.dim[0], stream, f, a, b);
    if (aligned(y) && in_packs(a, nest, nest.a) && in_packs(b, nest, nest.b))
        return binary_packs<lanes_of<T>>(y, a, b, nest, f, stream);
    return binary_packs<1>(y, a, b, nest, f, stream);
}

/* ---- the others ---- */

struct affine_of {
    float scale, shift;
    __device__ float operator()(float x) const { return scale * x + shift; }
};
struct axpy_of {
    float scale;
    __device__ float operator()(float y, float x) const { return y + scale * x; }
};
struct clamp_of {
    float low, high;
    __device__ float operator()(float x) const { return x < low ? low : x > high ? high : x; }
};
struct clamp_slope {
    float low, high;
    __device__ float operator()(float dy, float x) const { return x >= low && x <= high ? dy : 0.0f; }
};
struct pow_of {
    float exponent;
    __device__ float operator()(float x) const { return powf(x, exponent); }
};

} // namespace

template <typename REAL>
int syz_cuda::binary(REAL *y, const REAL *a, const REAL *b, const syz_nest *nest, syz_binary op, cudaStream_t stream) {
    switch (op) {
    case SYZ_BINARY_ADD:
        return binary_of(y, a, b, *nest, add(), stream);
    case SYZ_BINARY_SUB:
        return binary_of(y, a, b, *nest, sub(), stream);
    case SYZ_BINARY_MUL:
        return binary_of(y, a, b, *nest, mul(), stream);
    case SYZ_BINARY_DIV:
        return binary_of(y, a, b, *nest, divide(), stream);
    case SYZ_BINARY_MAX:
        return binary_of(y, a, b, *nest, larger(), stream);
    default:
        return binary_of(y, a, b, *nest, smaller(), stream);
    }
}

template <typename REAL>
int syz_cuda::affine(REAL *y, const REAL *x, float scale, float shift, int64_t n, cudaStream_t stream) {
    return map(y, n, stream, affine_of{scale, shift}, x);
}

template <typename REAL>
int syz_cuda::axpy(REAL *y, const REAL *x, float scale, int64_t n, cudaStream_t stream) {
    return map(y, n, stream, axpy_of{scale}, (const REAL *)y, x);
}

template <typename REAL>
int syz_cuda::clamp(REAL *y, const REAL *x, float low, float high, int64_t n, cudaStream_t stream) {
    return map(y, n, stream, clamp_of{low, high}, x);
}

template <typename REAL>
int syz_cuda::clamp_backward(REAL *dx, const REAL *dy, const REAL *x, float low, float high, int64_t n,
                             cudaStream_t stream) {
    return map(dx, n, stream, clamp_slope{low, high}, dy, x);
}

template <typename REAL>
int syz_cuda::pow(REAL *y, const REAL *x, float exponent, int64_t n, cudaStream_t stream) {
    return map(y, n, stream, pow_of{exponent}, x);
}

SYZ_BOTH(binary)
SYZ_BOTH(affine)
SYZ_BOTH(axpy)
SYZ_BOTH(clamp)
SYZ_BOTH(clamp_backward)
SYZ_BOTH(pow)
