/* bf16 and f16 as bits. */
#ifndef SYZ_HALF_H
#define SYZ_HALF_H

#include <stdint.h>
#include <string.h>

static inline float syz_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Round to nearest even; NaN stays a (quiet) NaN. */
static inline uint16_t syz_f32_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)(x != x ? (bits >> 16) | 0x40u : rounded);
}

/* Exact, and without a branch so that loops of it vectorise: f16's bits at the place of f32's, scaled by the difference
 * of the two exponents' offsets; infinity and NaN keep the largest exponent. */
static inline float syz_f16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)(h & 0x7fffu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    x *= 0x1p112f;
    uint32_t finite;
    memcpy(&finite, &x, sizeof finite);
    bits = sign | (bits >= 0x7c00u << 13 ? bits | 0x7f800000u : finite);
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint16_t syz_f32_to_f16(float x) {
    _Float16 value = (_Float16)x;
    uint16_t h;
    memcpy(&h, &value, sizeof h);
    return h;
}

#endif
