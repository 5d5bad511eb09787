/* What the engine asks of the CUDA runtime besides launches: devices, memory, copies, and in stream.h streams, events
 * and graphs. Arguments that CUDA would refuse are refused. */
#ifndef SYZ_EMU_RUNTIME_CALLS_H
#define SYZ_EMU_RUNTIME_CALLS_H

#define CUDART_VERSION 13000

/* ---- devices ---- */

struct cudaDeviceProp {
    char name[256];
    int major, minor;
    size_t totalGlobalMem;
};

inline thread_local int emu_device;

inline int emu_compute() {
    const char *asked = getenv("EMULATED_COMPUTE"); /* "80": an older one */
    return asked ? atoi(asked) : emu_installed.compute;
}

inline cudaError_t cudaDriverGetVersion(int *version) {
    *version = emu_installed.driver;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int *count) {
    *count = emu::DEVICES;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= emu::DEVICES) return cudaErrorInvalidDevice;
    emu_device = device;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int *device) {
    *device = emu_device;
    return cudaSuccess;
}
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device < 0 || device >= emu::DEVICES) return cudaErrorInvalidDevice;
    int compute = emu_compute();
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? compute / 10 : compute % 10;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= emu::DEVICES) return cudaErrorInvalidDevice;
    int compute = emu_compute();
    *properties = {"emulated GPU", compute / 10, compute % 10, emu_installed.memory};
    return cudaSuccess;
}

#include "stream.h"

/* ---- memory ---- */

typedef struct emu_pool *cudaMemPool_t;
enum { cudaHostAllocDefault = 0, cudaHostAllocMapped = 2 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };

inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int) {
    *pool = nullptr;
    return cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *) {
    return cudaSuccess;
}
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
    *total = emu_installed.memory;
    *unused = *total - emu::device_memory().live[emu_device];
    return cudaSuccess;
}
template <typename T>
cudaError_t cudaMallocAsync(T **memory, size_t bytes, cudaStream_t stream) {
    if (stream && stream->capture)
        *memory = (T *)emu::graph_allocate(stream->capture, bytes);
    else
        *memory = (T *)emu::device_allocate(stream ? stream->device : emu_device, bytes);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
template <typename T>
cudaError_t cudaMalloc(T **memory, size_t bytes) {
    return cudaMallocAsync(memory, bytes, nullptr);
}
inline cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream) {
    if (stream && stream->capture) return emu::graph_free(stream, memory);
    return emu::submit(stream, [=] {
        emu::device_release(memory);
        return cudaSuccess;
    });
}
inline cudaError_t cudaFree(void *memory) {
    return cudaFreeAsync(memory, nullptr);
}
template <typename T>
cudaError_t cudaHostAlloc(T **memory, size_t bytes, unsigned) {
    return (*memory = (T *)malloc(bytes)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeHost(void *memory) {
    free(memory);
    return cudaSuccess;
}

/* ---- copies ---- */

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };

inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (emu::is_device(to) != (kind != cudaMemcpyDeviceToHost)) return cudaErrorInvalidValue;
    if (emu::is_device(from) != (kind != cudaMemcpyHostToDevice)) return cudaErrorInvalidValue;
    emu_counted.from_host += kind == cudaMemcpyHostToDevice;
    emu_counted.to_host += kind == cudaMemcpyDeviceToHost;
    if (kind != cudaMemcpyDeviceToDevice && stream && stream->capture) return emu::refuse_in_capture(stream);
    return emu::submit(stream, [=] {
        emu::access writable;
        memcpy(to, from, bytes);
        return cudaSuccess;
    });
}
inline cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
inline cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    if (!emu::is_device(memory)) return cudaErrorInvalidValue;
    return emu::submit(stream, [=] {
        emu::access writable;
        memset(memory, value, bytes);
        return cudaSuccess;
    });
}

#endif
