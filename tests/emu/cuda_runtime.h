/* The CUDA names that kernels use, on top of the emulated machine. */
#ifndef SYZ_EMU_CUDA_RUNTIME_H
#define SYZ_EMU_CUDA_RUNTIME_H

#include "machine.h"

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("emu_shared")))

#define __syncthreads()                                                                                                \
    emu::sync_threads([] {                                                                                             \
        static const int site = emu::new_site(__FILE__, __LINE__);                                                     \
        return site;                                                                                                   \
    }())

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
    return emu::exchange(mask, value, (unsigned)source);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return emu::exchange(mask, value, emu::lane() ^ (unsigned)bits);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
    return emu::exchange(mask, value, emu::lane() + by < emu::WARP ? emu::lane() + by : emu::lane());
}
template <typename T>
T atomicAdd(T *address, T value) {
    T old = *address; /* fibers are never interrupted */
    *address = old + value;
    return old;
}

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : emu::the().error[0] ? emu::the().error : "failed";
}

#include "runtime_calls.h"

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...arguments) {
    std::tuple<P...> copies(std::forward<A>(arguments)...);
    emu_counted.kernels++;
    return emu::submit(config->stream, [=, config = *config] {
        return emu::launch(config, (const void *)kernel, [&] { std::apply(kernel, copies); });
    });
}

#endif
