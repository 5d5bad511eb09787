/* The 8-bit floating-point format e4m3 (4 bits of exponent, 3 of mantissa, largest value 448, no infinity), shared by
 * fp8.c and fp8.cu, which give the same bits. */
#ifndef SYZ_KERNELS_FP8_H
#define SYZ_KERNELS_FP8_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SYZ_FP8_INLINE static __host__ __device__ inline
#else
#define SYZ_FP8_INLINE static inline
#endif

/* Rounded to nearest even; what is larger than 448 becomes 448. */
SYZ_FP8_INLINE uint8_t syz_to_e4m3(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits >> 24 & 0x80u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (rest > 0x43e00000u) return (uint8_t)(sign | 0x7eu);
    if (rest < 0x3c800000u) { /* below 2^-6 the sum's last bit is 2^-9, so that the addition rounds */
        float steps = fabsf(x) + 16384.0f;
        memcpy(&bits, &steps, sizeof bits);
        return (uint8_t)(sign | (bits - 0x46800000u));
    }
    return (uint8_t)(sign | (rest + 0x7ffffu + (rest >> 20 & 1u) - (120u << 23)) >> 20);
}

SYZ_FP8_INLINE float syz_from_e4m3(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80u) << 24, rest = code & 0x7fu, bits;
    float x;
    if (rest < 8) { /* zero and subnormals count steps of 2^-9 */
        x = (float)rest * 0x1p-9f;
        return sign ? -x : x;
    }
    bits = sign | (rest == 0x7f ? 0x7fc00000u : (rest << 20) + (120u << 23));
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What a tensor whose largest magnitude is `amax` is divided by, and the factor that does it. NaN and infinity become
 * NaN everywhere. */
SYZ_FP8_INLINE void syz_e4m3_scale(float amax, float *scale, float *factor) {
    bool nothing = amax < 0x1p-100f;
    *scale = nothing ? 1.0f : amax / 448.0f;
    *factor = nothing ? 1.0f : 448.0f / amax;
}

#endif
