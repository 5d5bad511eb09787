/* Positions in a nest of loops. */
#ifndef SYZ_NEST_CUH
#define SYZ_NEST_CUH

#include "kernels/cuda.cuh"

namespace syz_cuda {

/* Offsets of element `index`, counted with the last dimension fastest. Divisions of 32 bits are several times faster
 * than those of 64, so that I is uint32_t wherever the number of elements allows. */
template <typename I>
static __device__ inline void nest_offsets(const syz_nest &nest, I index, int64_t *a, int64_t *b) {
    *a = *b = 0;
    for (int d = nest.n - 1; d >= 0; d--) {
        I size = (I)nest.dim[d], rest = index / size;
        int64_t position = (int64_t)(index - rest * size);
        *a += position * nest.a[d];
        *b += position * nest.b[d];
        index = rest;
    }
}

static inline int64_t nest_size(const syz_nest &nest) {
    int64_t n = 1;
    for (int d = 0; d < nest.n; d++)
        n *= nest.dim[d];
    return n;
}

} // namespace syz_cuda

#endif
