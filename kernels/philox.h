/* Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words from a 128-bit counter and a 64-bit key. */
#ifndef SYZ_PHILOX_H
#define SYZ_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define SYZ_PHILOX_INLINE static __host__ __device__ inline
#else
#define SYZ_PHILOX_INLINE static inline
#endif

typedef struct {
    uint32_t word[4];
} syz_philox4;

SYZ_PHILOX_INLINE syz_philox4 syz_philox(uint64_t key, uint64_t stream, uint64_t counter) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    syz_philox4 words = {{c0, c1, c2, c3}};
    return words;
}

#endif
