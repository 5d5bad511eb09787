#include "kernels/map.cuh"
#include "syzygy.h"

#include <string.h>

namespace {

using namespace syz_cuda;

/* f16 as bits: it is only read and written here. */
struct half_bits {
    uint16_t bits;
};

static __device__ inline float from_half(half_bits h) {
    uint32_t sign = (uint32_t)(h.bits & 0x8000u) << 16, rest = h.bits & 0x7fffu, bits;
    float x;
    if (rest < 0x400u) { /* zero and subnormals count steps of 2^-24 */
        x = (float)rest * 0x1p-24f;
        return sign ? -x : x;
    }
    bits = sign | (rest < 0x7c00u ? (rest << 13) + (112u << 23) : 0x7f800000u | (rest & 0x3ffu) << 13);
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Round to nearest even. */
static __device__ inline half_bits to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return half_bits{(uint16_t)(sign | 0x7e00u)};
    if (rest >= 0x477ff000u) return half_bits{(uint16_t)(sign | 0x7c00u)};
    if (rest < 0x38800000u) { /* the sum's last bit is 2^-24, so that the addition rounds */
        float steps = fabsf(x) + 0.5f;
        memcpy(&bits, &steps, sizeof bits);
        return half_bits{(uint16_t)(sign | (bits - 0x3f000000u))};
    }
    return half_bits{(uint16_t)(sign | ((rest + 0xfffu + (rest >> 13 & 1u) - (112u << 23)) >> 13))};
}

/* Every value but large i64 is exact in double. */
static __device__ inline double wide(float x) {
    return x;
}
static __device__ inline double wide(syz_bf16 x) {
    return load(x);
}
static __device__ inline double wide(half_bits x) {
    return from_half(x);
}
static __device__ inline double wide(double x) {
    return x;
}
static __device__ inline double wide(int32_t x) {
    return x;
}
static __device__ inline double wide(int64_t x) {
    return (double)x;
}
static __device__ inline double wide(uint8_t x) {
    return x;
}

/* Into integers: towards zero, saturating, NaN to 0. */
static __device__ inline double bounded(double value, double low, double high) {
    return value != value ? 0 : value < low ? low : value > high ? high : value;
}

static __device__ inline void narrow(float *y, double x) {
    *y = (float)x;
}
static __device__ inline void narrow(syz_bf16 *y, double x) {
    *y = store<syz_bf16>((float)x);
}
static __device__ inline void narrow(half_bits *y, double x) {
    *y = to_half((float)x);
}
static __device__ inline void narrow(double *y, double x) {
    *y = x;
}
static __device__ inline void narrow(int32_t *y, double x) {
    *y = (int32_t)bounded(x, -2147483648.0, 2147483647.0);
}
static __device__ inline void narrow(int64_t *y, double x) {
    *y = (int64_t)bounded(x, -9.2e18, 9.2e18);
}
static __device__ inline void narrow(uint8_t *y, double x) {
    *y = (uint8_t)bounded(x, 0, 255);
}

template <typename Y, typename X>
static __global__ void cast_kernel(Y *y, const X *x, int64_t n) {
    int64_t i = thread_index();
    if (i < n) narrow(y + i, wide(x[i]));
}

template <typename Y>
static int cast_to(Y *y, const void *x, int x_dtype, int64_t n, cudaStream_t stream) {
    int64_t blocks = cuts(n, THREADS);
    switch ((syz_dtype)x_dtype) {
    case SYZ_F32:
        return launch(cast_kernel<Y, float>, blocks, THREADS, stream, y, (const float *)x, n);
    case SYZ_BF16:
        return launch(cast_kernel<Y, syz_bf16>, blocks, THREADS, stream, y, (const syz_bf16 *)x, n);
    case SYZ_F16:
        return launch(cast_kernel<Y, half_bits>, blocks, THREADS, stream, y, (const half_bits *)x, n);
    case SYZ_F64:
        return launch(cast_kernel<Y, double>, blocks, THREADS, stream, y, (const double *)x, n);
    case SYZ_I32:
        return launch(cast_kernel<Y, int32_t>, blocks, THREADS, stream, y, (const int32_t *)x, n);
    case SYZ_I64:
        return launch(cast_kernel<Y, int64_t>, blocks, THREADS, stream, y, (const int64_t *)x, n);
    default:
        return launch(cast_kernel<Y, uint8_t>, blocks, THREADS, stream, y, (const uint8_t *)x, n);
    }
}

struct same_value {
    __device__ float operator()(float x) const { return x; }
};

} // namespace

/* The pair on the training path goes sixteen bytes at a time. */
template <typename REAL>
int syz_cuda::cast(void *y, int y_dtype, const void *x, int x_dtype, int64_t n, cudaStream_t stream) {
    if (y_dtype == SYZ_F32 && x_dtype == SYZ_BF16) return map((float *)y, n, stream, same_value(), (const syz_bf16 *)x);
    if (y_dtype == SYZ_BF16 && x_dtype == SYZ_F32) return map((syz_bf16 *)y, n, stream, same_value(), (const float *)x);
    switch ((syz_dtype)y_dtype) {
    case SYZ_F32:
        return cast_to((float *)y, x, x_dtype, n, stream);
    case SYZ_BF16:
        return cast_to((syz_bf16 *)y, x, x_dtype, n, stream);
    case SYZ_F16:
        return cast_to((half_bits *)y, x, x_dtype, n, stream);
    case SYZ_F64:
        return cast_to((double *)y, x, x_dtype, n, stream);
    case SYZ_I32:
        return cast_to((int32_t *)y, x, x_dtype, n, stream);
    case SYZ_I64:
        return cast_to((int64_t *)y, x, x_dtype, n, stream);
    default:
        return cast_to((uint8_t *)y, x, x_dtype, n, stream);
    }
}

SYZ_F32(cast)
