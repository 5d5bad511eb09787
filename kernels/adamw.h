/* AdamW's arithmetic and the formats of its states, shared by adamw.c and adamw.cu: where the processor has fused
 * products, both give the same bits. */
#ifndef SYZ_KERNELS_ADAMW_H
#define SYZ_KERNELS_ADAMW_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#ifdef __CUDACC__
#define SYZ_ADAMW_INLINE static __host__ __device__ inline
#else
#define SYZ_ADAMW_INLINE static inline
#endif

/* ---- one step ---- */

/* a b + c, rounded once where that is fast */
SYZ_ADAMW_INLINE float syz_fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FP_FAST_FMAF)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* a b, rounded to f32 whatever becomes of it: a compiler may fuse a plain product with the sum that it goes into */
SYZ_ADAMW_INLINE float syz_rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#elif defined(__FP_FAST_FMAF)
    return fmaf(a, b, -0.0f);
#else
    return a * b;
#endif
}

/* The weight after one step of the gradient g; m and v are updated. PyTorch's order of operations. */
SYZ_ADAMW_INLINE float syz_adamw_one(float p, float *m, float *v, float g, const syz_adamw_numbers *k) {
    *m = syz_fused(k->rest1, g - *m, *m);
    *v = syz_fused(k->beta2, *v, k->rest2 * g * g);
    return syz_fused(k->decay, p, -(k->step * *m / (sqrtf(*v) / k->root + k->eps)));
}

/* ---- a master in two halves: its bits are (weight << 16) + remainder ---- */

SYZ_ADAMW_INLINE float syz_join(uint16_t weight, int16_t remainder) {
    uint32_t bits = ((uint32_t)weight << 16) + (uint32_t)(int32_t)remainder;
    float master;
    memcpy(&master, &bits, sizeof master);
    return master;
}

SYZ_ADAMW_INLINE void syz_split(uint16_t *weight, int16_t *remainder, float master) {
    uint32_t bits;
    memcpy(&bits, &master, sizeof bits);
    if (master != master) bits = 0x7fc00000u; /* rounding would turn some into -0 */
    *weight = (uint16_t)((bits + 0x8000u) >> 16);
    *remainder = (int16_t)(uint16_t)bits;
}

/* ---- moments in 8 bits: m as a sign and 3 bits of mantissa, v as 4 bits; both with 4 bits of exponent ---- */

enum { SYZ_M_BITS = 3, SYZ_V_BITS = 4 };

/* A number in [0,1) as 4 bits of exponent and `mantissa` bits, with gradual underflow below 2^-15: the top bits of f32.
 * `noise`, 16 random bits, decides which neighbour it is rounded to; the largest code is the largest number. */
SYZ_ADAMW_INLINE uint32_t syz_encode(float x, uint32_t noise, int mantissa) {
    const int shift = 23 - mantissa;
    const uint32_t largest = (16u << mantissa) - 1;
    uint32_t bits, code;
    if (x < 0x1p-15f) {
        code = (uint32_t)(x * (float)(1 << mantissa) * 0x1p15f + (float)noise * 0x1p-16f);
    } else {
        memcpy(&bits, &x, sizeof bits);
        code = ((bits + (noise << (shift - 16))) >> shift) - (111u << mantissa);
    }
    return code < largest ? code : largest;
}

SYZ_ADAMW_INLINE float syz_decode(uint32_t code, int mantissa) {
    if (code < 1u << mantissa) return (float)code * (0x1p-15f / (float)(1 << mantissa));
    uint32_t bits = (code + (111u << mantissa)) << (23 - mantissa);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

SYZ_ADAMW_INLINE uint8_t syz_encode_m(float x, uint32_t noise) {
    return (uint8_t)(syz_encode(fabsf(x), noise, SYZ_M_BITS) | (x < 0 ? 0x80u : 0u));
}

/* v > 0 never becomes 0, which would make a step of m / eps */
SYZ_ADAMW_INLINE uint8_t syz_encode_v(float x, uint32_t noise) {
    uint32_t code = syz_encode(x, noise, SYZ_V_BITS);
    return (uint8_t)(code == 0 && x > 0 ? 1 : code);
}

/* Rounded products: a difference from the gradient follows, and must not be fused with them. */
SYZ_ADAMW_INLINE float syz_decode_m(uint8_t code, float scale) {
    float x = syz_decode(code & 0x7fu, SYZ_M_BITS);
    return syz_rounded_product(code & 0x80u ? -x : x, scale);
}

SYZ_ADAMW_INLINE float syz_decode_v(uint8_t code, float scale) {
    return syz_rounded_product(syz_decode(code, SYZ_V_BITS), scale);
}

/* The scale that makes the block's largest value the largest number. */
SYZ_ADAMW_INLINE float syz_scale_for(float largest, int mantissa) {
    return largest / syz_decode((16u << mantissa) - 1, mantissa);
}

SYZ_ADAMW_INLINE float syz_larger(float a, float b) {
    return a > b || a != a ? a : b; /* NaN stays */
}

#endif
