#include "kernels/nest.cuh"

#include <cstring>

namespace {

using namespace syz_cuda;

/* Sixteen bytes, or one element of 1, 2, 4 or 8. */
struct alignas(16) sixteen {
    uint32_t word[4];
};

/* Calls f(unit pointer) for the largest unit that divides `granularity`, a common divisor of all offsets in bytes. */
template <typename F>
static int with_unit(int64_t granularity, F f) {
    if (granularity % 16 == 0) return f((sixteen *)nullptr);
    if (granularity % 8 == 0) return f((uint64_t *)nullptr);
    if (granularity % 4 == 0) return f((uint32_t *)nullptr);
    if (granularity % 2 == 0) return f((uint16_t *)nullptr);
    return f((uint8_t *)nullptr);
}

/* ---- copy ---- */

/* One thread for each unit. Where the order of dimensions changes, reads along the last dimension are apart; what the
 * cache keeps of a line is used by the neighbours' rows. */
template <typename I, typename U>
static __global__ void copy_kernel(U *y, const U *x, syz_nest nest, I n) {
    int64_t i = thread_index(), from, to;
    if (i >= (int64_t)n) return;
    nest_offsets<I>(nest, (I)i, &from, &to);
    y[to] = x[from];
}

template <typename U>
static int copy_units(U *y, const U *x, const syz_nest &nest, cudaStream_t stream) {
    int64_t n = nest_size(nest), blocks = cuts(n, THREADS);
    if (n <= INT32_MAX) return launch(copy_kernel<uint32_t, U>, blocks, THREADS, stream, y, x, nest, (uint32_t)n);
    return launch(copy_kernel<int64_t, U>, blocks, THREADS, stream, y, x, nest, n);
}

/* The low bits of everything that a unit must divide: where the last dimension is contiguous on both sides, elements
 * are joined into larger units. */
static int64_t copy_granularity(const void *y, const void *x, const syz_nest &nest, int64_t size) {
    int last = nest.n - 1;
    if (nest.a[last] != 1 || nest.b[last] != 1) return size;
    int64_t bits = (int64_t)(uintptr_t)y | (int64_t)(uintptr_t)x | nest.dim[last] * size;
    for (int d = 0; d < last; d++)
        bits |= nest.a[d] * size | nest.b[d] * size;
    return bits;
}

/* ---- fill ---- */

template <typename U>
static __global__ void fill_kernel(U *y, U element, int64_t n) {
    int64_t i = thread_index();
    if (i < n) y[i] = element;
}

/* ---- gather ---- */

template <typename U>
static __global__ void gather_kernel(U *y, const U *x, const int64_t *ids, int64_t n, int64_t count, int64_t units,
                                     int64_t total) {
    int64_t i = thread_index();
    if (i >= total) return;
    int64_t row = i / units, unit = i - row * units;
    y[i] = x[(row / count * n + ids[row % count]) * units + unit];
}

/* ids may repeat: each thread owns one column of one outer row and adds in the order of ids. */
template <typename T>
static __global__ void scatter_add_kernel(float *dx, const T *dy, const int64_t *ids, int64_t n, int64_t count,
                                          int64_t inner, int64_t columns) {
    int64_t i = thread_index();
    if (i >= columns) return;
    int64_t outer = i / inner, column = i - outer * inner;
    for (int64_t k = 0; k < count; k++)
        dx[(outer * n + ids[k]) * inner + column] += load(dy[(outer * count + k) * inner + column]);
}

} // namespace

template <typename REAL>
int syz_cuda::copy(void *y, const void *x, const syz_nest *nest, size_t size, cudaStream_t stream) {
    return with_unit(copy_granularity(y, x, *nest, (int64_t)size), [&](auto *unit) {
        using U = std::remove_pointer_t<decltype(unit)>;
        int64_t join = (int64_t)(sizeof(U) / size);
        syz_nest units = *nest;
        if (join > 1) {
            units.dim[units.n - 1] /= join;
            for (int d = 0; d < units.n - 1; d++) {
                units.a[d] /= join;
                units.b[d] /= join;
            }
        }
        return copy_units((U *)y, (const U *)x, units, stream);
    });
}

template <typename REAL>
int syz_cuda::fill(void *y, uint64_t element, size_t size, int64_t n, cudaStream_t stream) {
    return with_unit((int64_t)size, [&](auto *unit) {
        using U = std::remove_pointer_t<decltype(unit)>;
        U first;
        memcpy(&first, &element, sizeof first <= sizeof element ? sizeof first : sizeof element);
        return launch(fill_kernel<U>, cuts(n, THREADS), THREADS, stream, (U *)y, first, n);
    });
}

template <typename REAL>
int syz_cuda::gather(void *y, const void *x, const int64_t *ids, int64_t outer, int64_t n, int64_t count, size_t bytes,
                     cudaStream_t stream) {
    return with_unit((int64_t)(uintptr_t)y | (int64_t)(uintptr_t)x | (int64_t)bytes, [&](auto *unit) {
        using U = std::remove_pointer_t<decltype(unit)>;
        int64_t units = (int64_t)(bytes / sizeof(U)), total = outer * count * units;
        return launch(gather_kernel<U>, cuts(total, THREADS), THREADS, stream, (U *)y, (const U *)x, ids, n, count,
                      units, total);
    });
}

template <typename REAL>
int syz_cuda::scatter_add(float *dx, const REAL *dy, const int64_t *ids, int64_t outer, int64_t n, int64_t count,
                          int64_t inner, cudaStream_t stream) {
    int64_t columns = outer * inner;
    return launch(scatter_add_kernel<REAL>, cuts(columns, THREADS), THREADS, stream, dx, dy, ids, n, count, inner,
                  columns);
}

SYZ_F32(copy)
SYZ_F32(fill)
SYZ_F32(gather)
SYZ_BOTH(scatter_add)
