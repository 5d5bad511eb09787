#include "kernels/map.cuh"
#include "kernels/simd_math.h"

namespace {

#define UNARY(name, value, slope)                                                                                      \
    struct name##_value {                                                                                              \
        __device__ float operator()(float x) const { return value; }                                                   \
    };                                                                                                                 \
    struct name##_slope {                                                                                              \
        __device__ float operator()(float dy, float x) const { return dy * (slope); }                                  \
    };
#include "kernels/unary.def"
#undef UNARY

} // namespace

template <typename REAL>
int syz_cuda::unary(REAL *y, const REAL *x, int64_t n, syz_unary op, cudaStream_t stream) {
    switch (op) {
#define UNARY(name, value, slope)                                                                                      \
    case SYZ_UNARY_##name:                                                                                             \
        return map(y, n, stream, name##_value(), x);
#include "kernels/unary.def"
#undef UNARY
    }
    return failed("there is no unary kernel %d", (int)op);
}

template <typename REAL>
int syz_cuda::unary_backward(REAL *dx, const REAL *dy, const REAL *x, int64_t n, syz_unary op, cudaStream_t stream) {
    switch (op) {
#define UNARY(name, value, slope)                                                                                      \
    case SYZ_UNARY_##name:                                                                                             \
        return map(dx, n, stream, name##_slope(), dy, x);
#include "kernels/unary.def"
#undef UNARY
    }
    return failed("there is no unary kernel %d", (int)op);
}

SYZ_BOTH(unary)
SYZ_BOTH(unary_backward)
