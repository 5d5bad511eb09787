#include "kernels/map.cuh"
#include "kernels/reduce.cuh"
#include "kernels/simd_math.h"

namespace {

using namespace syz_cuda;

/* ---- cross entropy ---- */

template <int GROUP, typename T>
static __global__ void lse_kernel(float *lse, const T *x, int64_t n, int64_t c) {
    int64_t row = group_row<GROUP>();
    int rank = group_rank<GROUP>();
    const T *from = x + (row < n ? row : n - 1) * c;
    float top = -INFINITY, sum = 0;
    for (int64_t j = rank; j < c; j += GROUP)
        top = maximum()(load(from[j]), top);
    top = group_reduce<GROUP>(top, maximum());
    for (int64_t j = rank; j < c; j += GROUP)
        sum += syz_expf(load(from[j]) - top);
    sum = group_sum<GROUP>(sum);
    if (row < n && rank == 0) lse[row] = top + logf(sum);
}

template <typename T>
struct surprise {
    const float *lse;
    const T *x;
    const int64_t *target;
    int64_t c;
    __device__ double operator()(int64_t i) const { return (double)lse[i] - load(x[i * c + target[i]]); }
};

template <typename T>
static __global__ void cross_entropy_slope(T *dx, const float *dloss, const T *x, const float *lse,
                                           const int64_t *target, int64_t n, int64_t c) {
    int64_t i = thread_index();
    if (i >= n * c) return;
    int64_t row = i / c;
    float scale = *dloss / (float)n, slope = scale * syz_expf(load(x[i]) - lse[row]);
    dx[i] = store<T>(target[row] == i % c ? slope - scale : slope);
}

/* ---- distances ---- */

template <typename T>
struct squared_distance {
    const T *a, *b;
    __device__ float operator()(int64_t i) const {
        float d = load(a[i]) - load(b[i]);
        return d * d;
    }
};
template <typename T>
struct absolute_distance {
    const T *a, *b;
    __device__ float operator()(int64_t i) const { return fabsf(load(a[i]) - load(b[i])); }
};
struct squared_slope {
    const float *dloss;
    float n;
    __device__ float operator()(float a, float b) const { return *dloss / n * (2 * (a - b)); }
};
struct absolute_slope {
    const float *dloss;
    float n;
    __device__ float operator()(float a, float b) const {
        float d = a - b;
        return *dloss / n * (d > 0 ? 1.0f : d < 0 ? -1.0f : d);
    }
};

} // namespace

template <typename REAL>
int syz_cuda::cross_entropy(float *loss, float *lse, const REAL *x, const int64_t *target, int64_t n, int64_t c,
                            cudaStream_t stream) {
    int failed = c <= WARP_ROW
                     ? launch(lse_kernel<WARP, REAL>, group_blocks<WARP>(n), THREADS, stream, lse, x, n, c)
                     : launch(lse_kernel<THREADS, REAL>, group_blocks<THREADS>(n), THREADS, stream, lse, x, n, c);
    return failed ? -1 : total(loss, n, surprise<REAL>{lse, x, target, c}, (double)n, stream);
}

template <typename REAL>
int syz_cuda::cross_entropy_backward(REAL *dx, const float *dloss, const REAL *x, const float *lse,
                                     const int64_t *target, int64_t n, int64_t c, cudaStream_t stream) {
    return launch(cross_entropy_slope<REAL>, cuts(n * c, THREADS), THREADS, stream, dx, dloss, x, lse, target, n, c);
}

template <typename REAL>
int syz_cuda::distance(float *loss, const REAL *a, const REAL *b, int64_t n, bool squared, cudaStream_t stream) {
    return squared ? total(loss, n, squared_distance<REAL>{a, b}, (double)n, stream)
                   : total(loss, n, absolute_distance<REAL>{a, b}, (double)n, stream);
}

template <typename REAL>
int syz_cuda::distance_backward(REAL *da, const float *dloss, const REAL *a, const REAL *b, int64_t n, bool squared,
                                cudaStream_t stream) {
    return squared ? map(da, n, stream, squared_slope{dloss, (float)n}, a, b)
                   : map(da, n, stream, absolute_slope{dloss, (float)n}, a, b);
}

SYZ_BOTH(cross_entropy)
SYZ_BOTH(cross_entropy_backward)
SYZ_BOTH(distance)
SYZ_BOTH(distance_backward)
