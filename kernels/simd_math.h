/* Scalar functions written so that the compiler vectorises the loops that use them (libm's calls stop it), and so that
 * every machine computes the same bits. CUDA kernels use them too. */
#ifndef SYZ_SIMD_MATH_H
#define SYZ_SIMD_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SYZ_INLINE static __host__ __device__ inline
#else
#define SYZ_INLINE static inline
#endif

/* exp(x) within 2 ulp: 2^n * p(r) with r = x - n ln 2 in two parts, p the Taylor polynomial of degree 6 on |r| <= .35
 */
SYZ_INLINE float syz_expf(float x) {
    float clipped = !(x > -87.0f) ? -87.0f : x > 88.0f ? 88.0f : x; /* NaN too must become an exponent */
    float n = (clipped * 1.44269504f + 12582912.0f) - 12582912.0f;  /* round to nearest */
    float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    float y = p * scale;
    y = x < -87.0f ? 0.0f : x > 88.0f ? INFINITY : y;
    return x == x ? y : x; /* NaN stays NaN */
}

SYZ_INLINE float syz_sigmoidf(float x) {
    return 1.0f / (1.0f + syz_expf(-x));
}

/* Near 0 the exponential form cancels: use the odd Taylor polynomial there. */
SYZ_INLINE float syz_tanhf(float x) {
    float e = 1.0f - 2.0f / (syz_expf(2.0f * x) + 1.0f);
    float s = x * x;
    float small = x * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315))));
    return fabsf(x) < 0.25f ? small : e;
}

/* erf by Abramowitz & Stegun 7.1.26: absolute error below 1.5e-7 */
SYZ_INLINE float syz_erff(float x) {
    float a = fabsf(x);
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    float y = 1.0f - p * syz_expf(-a * a);
    return x < 0 ? -y : y;
}

SYZ_INLINE float syz_silu_slope(float x) {
    float s = syz_sigmoidf(x);
    return s * (1.0f + x * (1.0f - s));
}

SYZ_INLINE float syz_gelu_erf(float x) {
    return 0.5f * x * (1.0f + syz_erff(x * 0.70710678f));
}

SYZ_INLINE float syz_gelu_erf_slope(float x) {
    float density = 0.39894228f * syz_expf(-0.5f * x * x);
    return 0.5f * (1.0f + syz_erff(x * 0.70710678f)) + x * density;
}

SYZ_INLINE float syz_gelu_tanh(float x) {
    float u = 0.79788456f * (x + 0.044715f * x * x * x);
    return x * syz_sigmoidf(2.0f * u); /* 0.5 (1 + tanh u) = sigmoid(2u) */
}

SYZ_INLINE float syz_gelu_tanh_slope(float x) {
    float u = 0.79788456f * (x + 0.044715f * x * x * x);
    float du = 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
    float s = syz_sigmoidf(2.0f * u);
    return s + x * 2.0f * s * (1.0f - s) * du;
}

SYZ_INLINE float syz_quick_gelu_slope(float x) {
    float s = syz_sigmoidf(1.702f * x);
    return s + 1.702f * x * s * (1.0f - s);
}

#endif
