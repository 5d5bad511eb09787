/* What the .cu files share. Each declares the kernels of its .c neighbour as templates over the storage type of
 * tensors, with the stream as one more argument:
 *
 *     template <typename REAL> int syz_cuda::affine(REAL *y, const REAL *x, ..., int64_t n, cudaStream_t stream);
 *
 * They launch and return 0, or -1 when a launch or an allocation failed; none of them waits. Pointers are to device
 * memory, including the arrays inside syz_taps; the structs themselves are read at the call. Arithmetic and sums are
 * f32 or better whatever is stored, and every sum has one order. The files are compiled by nvcc, and by g++ against
 * tests/emu/, where the same kernels run on the CPU. */
#ifndef SYZ_CUDA_CUH
#define SYZ_CUDA_CUH

#include "kernels/kernels.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdint.h>
#include <utility>

typedef __nv_bfloat16 syz_bf16;

namespace syz_cuda {

#define SYZ_UNPACK(...) __VA_ARGS__
#define KERNEL(name, params)                                                                                           \
    template <typename REAL>                                                                                           \
    int name(SYZ_UNPACK params, cudaStream_t stream);
#include "kernels/kernels.def"
#undef KERNEL

/* At the end of a .cu file: the template for both storage types, or for one where REAL does not occur. */
#define SYZ_F32(name)  template decltype(syz_cuda::name<float>) syz_cuda::name<float>;
#define SYZ_BOTH(name) SYZ_F32(name) template decltype(syz_cuda::name<syz_bf16>) syz_cuda::name<syz_bf16>;

enum { WARP = 32, THREADS = 256 };

/* ---- one value ---- */

static __device__ inline float load(float x) {
    return x;
}
static __device__ inline float load(syz_bf16 x) {
    return __bfloat162float(x);
}

template <typename T>
static __device__ inline T store(float x);
template <>
__device__ inline float store<float>(float x) {
    return x;
}
template <>
__device__ inline syz_bf16 store<syz_bf16>(float x) {
    return __float2bfloat16_rn(x);
}

/* ---- sixteen bytes ---- */

template <typename T>
constexpr int lanes_of = 16 / (int)sizeof(T);

/* N values that are read and written in one access; N = 1 where the addresses do not allow more. */
template <typename T, int N>
struct alignas(N * sizeof(T)) pack {
    T value[N];
};

template <int N, typename T>
static __device__ inline pack<T, N> read(const T *from) {
    return *reinterpret_cast<const pack<T, N> *>(from);
}

template <typename T, int N>
static __device__ inline void write(T *to, const pack<T, N> &values) {
    *reinterpret_cast<pack<T, N> *>(to) = values;
}

/* N f32 values; `from` is as aligned as N allows. */
template <int N>
static __device__ inline void read_floats(float (&to)[N], const float *from) {
    constexpr int AT_ONCE = N % 4 == 0 ? 4 : 1;
    for (int k = 0; k < N; k += AT_ONCE) {
        pack<float, AT_ONCE> values = read<AT_ONCE>(from + k);
        for (int j = 0; j < AT_ONCE; j++)
            to[k + j] = values.value[j];
    }
}

/* Whether all of these may be accessed sixteen bytes at a time; NULL may. */
template <typename... P>
static inline bool aligned(const P *...pointers) {
    return (((uintptr_t)pointers % 16 == 0) && ...);
}

/* ---- launches ---- */

static inline int64_t cuts(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

static __device__ inline int64_t thread_index() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* What a kernel returns: 0, or -1 with a text for the engine's error line, in these ways (device.cu). */
int status(cudaError_t error);
__attribute__((format(printf, 1, 2))) int failed(const char *format, ...);

template <typename... P, typename... A>
static inline int launch(void (*kernel)(P...), int64_t blocks, int threads, cudaStream_t stream, A &&...arguments) {
    if (blocks == 0) return 0;
    if (blocks > INT32_MAX) return failed("%lld blocks are more than a launch may have", (long long)blocks);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3((unsigned)threads);
    config.stream = stream;
    return status(cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...));
}

/* Memory in the order of a stream; NULL as after failed() (device.cu). */
void *acquire(size_t bytes, cudaStream_t stream);
void give_back(void *memory, cudaStream_t stream);

/* Scratch in the order of a stream: freed when what was launched before has used it. */
template <typename T>
struct scratch {
    T *data; /* NULL when there is no memory */
    cudaStream_t stream;

    scratch(int64_t n, cudaStream_t stream_) : data((T *)acquire((size_t)n * sizeof(T), stream_)), stream(stream_) {}
    ~scratch() {
        if (data) give_back(data, stream);
    }
    scratch(const scratch &) = delete;
    scratch &operator=(const scratch &) = delete;
};

} // namespace syz_cuda

#endif
