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

static inline float syz_f16_to_f32(uint16_t h) {
    _Float16 value;
    memcpy(&value, &h, sizeof value);
    return (float)value;
}

static inline uint16_t syz_f32_to_f16(float x) {
    _Float16 value = (_Float16)x;
    uint16_t h;
    memcpy(&h, &value, sizeof h);
    return h;
}

#endif
