/* CUDA devices: their memory, copies through pinned memory, and the stream that everything runs on. */
#include "kernels/cuda.cuh"
#include "kernels/cudnn_graph.h"
#include "kernels/device.h"
#include "kernels/stream.cuh"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cudnn.h>
#ifdef SYZ_NCCL
#include <nccl.h>
#endif
#include <vector>

namespace {

enum { DEVICES = 16, BLOCKS = 8, LEAST_CUDNN = 91600 };
constexpr size_t BLOCK = 4 << 20;

using syz_cuda::failed;
using syz_cuda::status;

thread_local char message[512];
thread_local size_t refused; /* bytes of the allocation that failed last, if it was what failed last */
thread_local int selected;   /* 0: none */

/* Pinned memory that copies pass through, a ring of blocks: what is written into a block is on its way when the next
 * block begins, and a block is used again when all that left it has arrived. So a copy from the host never waits for
 * the kernels before it. */
struct staging {
    char *memory;
    cudaEvent_t left[BLOCKS];
    int block;
    size_t used;
};

struct state {
    cudaStream_t stream;
    staging ring;
    bool recording;
    cudaStream_t side; /* the second stream; made by the first fork() */
    cudaEvent_t forked, joined;
    bool branched, aside;      /* between fork() and join(); between fork() and back() */
    std::vector<void *> freed; /* while branched */
} devices[DEVICES + 1];

int make_staging(staging *ring) {
    if (status(cudaHostAlloc((void **)&ring->memory, BLOCKS * BLOCK, cudaHostAllocDefault)) != 0) return -1;
    for (cudaEvent_t &event : ring->left)
        if (status(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) != 0) return -1;
    return 0;
}

/* The stream, the ring, and a memory pool that keeps what is freed. */
int prepare(int device) {
    state &s = devices[device];
    cudaMemPool_t pool;
    uint64_t keep = UINT64_MAX;
    if (s.stream) return 0;
    if (status(cudaDeviceGetDefaultMemPool(&pool, device - 1)) != 0 ||
        status(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep)) != 0 ||
        make_staging(&s.ring) != 0)
        return -1;
    return status(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
}

cudaStream_t stream_of(const state &s) {
    return s.aside ? s.side : s.stream;
}

int wait_for_all(const state &s) {
    if (s.branched && status(cudaStreamSynchronize(s.side)) != 0) return -1;
    return status(cudaStreamSynchronize(s.stream));
}

int select(int device) {
    if (status(cudaSetDevice(device - 1)) != 0 || prepare(device) != 0) return -1;
    selected = device;
    return 0;
}

/* ---- what there is ---- */

/* Whether one of the architectures that the kernels are compiled for runs on a device, as "80-real,100-virtual" has
 * them. Machine code runs on its own major version only, sm_90a's on 9.0 alone; PTX on all that is newer. */
bool runs_on(const char *architectures, int compute) {
    for (const char *at = architectures;; at++) {
        char *end;
        int number = (int)strtol(at, &end, 10);
        if (end == at) return true; /* "native" and other names */
        bool exact = *end == 'a', code = strncmp(end + exact, "-virtual", 8) != 0;
        bool ptx = !exact && strncmp(end, "-real", 5) != 0;
        if (code && (exact ? compute == number : compute / 10 == number / 10 && compute >= number)) return true;
        if (ptx && compute >= number) return true;
        if (!(at = strchr(end, ','))) return false;
    }
}

int usable(int device) {
    int major = 0, minor = 0;
    if (status(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) != 0 ||
        status(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) != 0)
        return -1;
    if (major < 8)
        return failed("cuda:%d has compute capability %d.%d, and 8.0 (Ampere) is the least that is supported", device,
                      major, minor);
    if (!runs_on(SYZ_CUDA_ARCHITECTURES, major * 10 + minor))
        return failed("cuda:%d has compute capability %d.%d, and this build has kernels for %s: configure it with "
                      "-DSYZ_CUDA_ARCHITECTURES=%d%d",
                      device, major, minor, SYZ_CUDA_ARCHITECTURES, major, minor);
    return 0;
}

/* What must be there whatever the device. */
int check_libraries() {
    int driver = 0, needed = CUDART_VERSION / 1000 * 1000;
    cudaDriverGetVersion(&driver);
    if (driver == 0)
        return failed("no NVIDIA driver is loaded: install one for CUDA %d.0 or newer, or choose the device cpu",
                      needed / 1000);
    if (driver < needed)
        return failed("the NVIDIA driver is for CUDA %d.%d, and %d.0 is needed: install a newer driver, or build with "
                      "an older CUDA toolkit",
                      driver / 1000, driver % 1000 / 10, needed / 1000);
    int cudnn = (int)cudnnGetVersion();
    if (cudnn < LEAST_CUDNN)
        return failed(
            "cuDNN %d.%d is loaded, and attention needs %d.%d or newer: install it, or set LD_LIBRARY_PATH to "
            "the one that is installed",
            cudnn / 10000, cudnn / 100 % 100, LEAST_CUDNN / 10000, LEAST_CUDNN / 100 % 100);
    return 0;
}

/* Devices are counted as far as they are usable, from the first. */
int count() {
    int found = 0, good = 0;
    if (check_libraries() != 0 || status(cudaGetDeviceCount(&found)) != 0) return 0;
    while (good < found && usable(good) == 0)
        good++;
    return good;
}

const char *text() {
    return message[0] ? message : "no device was found";
}

size_t lacking() {
    return refused;
}

int describe(int device, syz_device_description *description) {
    cudaDeviceProp properties;
    if (status(cudaGetDeviceProperties(&properties, device - 1)) != 0) return -1;
    snprintf(description->name, sizeof description->name, "%.127s", properties.name);
    description->compute = properties.major * 10 + properties.minor;
    description->memory = properties.totalGlobalMem;
    return 0;
}

syz_device_libraries libraries() {
    syz_device_libraries found = {};
    cudaDriverGetVersion(&found.driver);
    cudaRuntimeGetVersion(&found.runtime);
    found.cudnn = (int)cudnnGetVersion();
#ifdef SYZ_NCCL
    ncclGetVersion(&found.nccl);
#endif
    return found;
}

/* ---- memory ---- */

void *allocate(int device, size_t bytes) {
    return syz_cuda::acquire(bytes, stream_of(devices[device]));
}

void release(int device, void *memory) {
    state &s = devices[device];
    if (s.branched)
        s.freed.push_back(memory);
    else
        syz_cuda::give_back(memory, s.stream);
}

/* Not while a graph is captured: the stream cannot be waited for, and nothing is freed. */
void trim(int device) {
    cudaMemPool_t pool;
    state &s = devices[device];
    if (s.recording || s.branched || cudaStreamSynchronize(s.stream) != cudaSuccess) return;
    cudaDeviceGraphMemTrim(device - 1);
    if (cudaDeviceGetDefaultMemPool(&pool, device - 1) == cudaSuccess) cudaMemPoolTrimTo(pool, 0);
}

int memory(int device, size_t *unused, size_t *total) {
    return select(device) == 0 ? status(cudaMemGetInfo(unused, total)) : -1;
}

/* With unified addresses, as on every 64-bit system, all devices reach it. */
void *pin(size_t bytes) {
    void *memory;
    return status(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault)) == 0 ? memory : nullptr;
}

void unpin(void *memory) {
    cudaFreeHost(memory);
}

/* ---- copies ---- */

/* Room for at most `bytes` in the ring; *bytes becomes what there is. */
char *stage(state &s, size_t *bytes) {
    staging &ring = s.ring;
    if (ring.used == BLOCK) {
        if (status(cudaEventRecord(ring.left[ring.block], s.stream)) != 0) return nullptr;
        ring.block = (ring.block + 1) % BLOCKS;
        ring.used = 0;
        if (status(cudaEventSynchronize(ring.left[ring.block])) != 0) return nullptr;
    }
    if (*bytes > BLOCK - ring.used) *bytes = BLOCK - ring.used;
    char *room = ring.memory + (size_t)ring.block * BLOCK + ring.used;
    ring.used += *bytes;
    return room;
}

int from_host(state &s, char *to, const char *from, size_t bytes) {
    while (bytes > 0) {
        size_t part = bytes;
        char *room = stage(s, &part);
        if (!room) return -1;
        memcpy(room, from, part);
        if (status(cudaMemcpyAsync(to, room, part, cudaMemcpyHostToDevice, s.stream)) != 0) return -1;
        to += part;
        from += part;
        bytes -= part;
    }
    return 0;
}

/* Through pinned memory too; this is what waits for the kernels. */
int to_host(state &s, char *to, const char *from, size_t bytes) {
    while (bytes > 0) {
        size_t part = bytes;
        char *room = stage(s, &part);
        if (!room || status(cudaMemcpyAsync(room, from, part, cudaMemcpyDeviceToHost, s.stream)) != 0 ||
            status(cudaStreamSynchronize(s.stream)) != 0)
            return -1;
        memcpy(to, room, part);
        to += part;
        from += part;
        bytes -= part;
    }
    return 0;
}

/* A recording would hold the place in the ring that a copy goes through, and what it held then. */
int refuse_host(const state &s) {
    if (!s.recording) return 0;
    snprintf(message, sizeof message, "work that is recorded in a graph needs the host");
    return -1;
}

/* Rare while there are two streams, and simple then: nothing else is under way. */
int copy_with_host(state &s, char *to, const char *from, size_t bytes, bool outward) {
    if (refuse_host(s) != 0 || (s.branched && wait_for_all(s) != 0)) return -1;
    if ((outward ? to_host(s, to, from, bytes) : from_host(s, to, from, bytes)) != 0) return -1;
    return s.branched ? wait_for_all(s) : 0;
}

int copy(void *to, int to_device, const void *from, int from_device, size_t bytes) {
    state &s = devices[to_device ? to_device : from_device];
    if (to_device == 0 || from_device == 0)
        return copy_with_host(s, (char *)to, (const char *)from, bytes, to_device == 0);
    if (to_device == from_device)
        return status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(s)));
    /* from one card to another: both are done with what they had to do */
    if (refuse_host(s) != 0 || wait_for_all(devices[from_device]) != 0 || wait_for_all(s) != 0) return -1;
    if (status(cudaMemcpyPeerAsync(to, to_device - 1, from, from_device - 1, bytes, s.stream)) != 0) return -1;
    return wait_for_all(s);
}

int zero(int device, void *memory, size_t bytes) {
    return status(cudaMemsetAsync(memory, 0, bytes, stream_of(devices[device])));
}

/* ---- recordings ---- */

int record_begin(int device) {
    state &s = devices[device];
    if (select(device) != 0 || status(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal)) != 0)
        return -1;
    s.recording = true;
    return 0;
}

void *record_end(int device) {
    state &s = devices[device];
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    s.recording = false;
    if (status(cudaStreamEndCapture(s.stream, &graph)) != 0) return nullptr;
    if (status(cudaGraphInstantiate(&made, graph, 0)) != 0) made = nullptr;
    cudaGraphDestroy(graph);
    return made;
}

int replay(int device, void *recording) {
    return status(cudaGraphLaunch((cudaGraphExec_t)recording, devices[device].stream));
}

/* It may still run. */
void forget(int device, void *recording) {
    cudaStreamSynchronize(devices[device].stream);
    cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

int synchronize(int device) {
    return wait_for_all(devices[device]);
}

/* ---- the second stream ---- */

int fork(int device) {
    state &s = devices[device];
    if (select(device) != 0) return -1;
    if (!s.side && (status(cudaEventCreateWithFlags(&s.forked, cudaEventDisableTiming)) != 0 ||
                    status(cudaEventCreateWithFlags(&s.joined, cudaEventDisableTiming)) != 0 ||
                    status(cudaStreamCreateWithFlags(&s.side, cudaStreamNonBlocking)) != 0))
        return -1;
    if (status(cudaEventRecord(s.forked, s.stream)) != 0 || status(cudaStreamWaitEvent(s.side, s.forked, 0)) != 0)
        return -1;
    s.branched = s.aside = true;
    return 0;
}

void back(int device) {
    devices[device].aside = false;
}

int join(int device) {
    state &s = devices[device];
    if (!s.branched) return 0;
    int result = status(cudaEventRecord(s.joined, s.side));
    if (result == 0) result = status(cudaStreamWaitEvent(s.stream, s.joined, 0));
    if (result != 0) wait_for_all(s);
    s.branched = s.aside = false;
    for (void *memory : s.freed)
        syz_cuda::give_back(memory, s.stream);
    s.freed.clear();
    return result;
}

} // namespace

int syz_cuda::failed(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    refused = 0;
    return -1;
}

int syz_cuda::status(cudaError_t error) {
    if (error == cudaSuccess) return 0;
    cudaGetLastError(); /* an error that sticks would be blamed on the next call */
    return failed("%s", cudaGetErrorString(error));
}

/* What is used up is asked for once more when the pool has given back what it keeps. */
void *syz_cuda::acquire(size_t bytes, cudaStream_t stream) {
    void *memory = nullptr;
    if (bytes == 0) bytes = 1;
    cudaError_t error = cudaMallocAsync(&memory, bytes, stream);
    if (error == cudaErrorMemoryAllocation && selected && stream == devices[selected].stream) {
        cudaGetLastError();
        trim(selected);
        error = cudaMallocAsync(&memory, bytes, stream);
    }
    if (status(error) == 0) return memory;
    if (error == cudaErrorMemoryAllocation) refused = bytes;
    return nullptr;
}

void syz_cuda::give_back(void *memory, cudaStream_t stream) {
    status(cudaFreeAsync(memory, stream));
}

cudaStream_t syz_cuda::current_stream() {
    return stream_of(devices[selected]);
}

void *syz_cuda_stream() {
    return syz_cuda::current_stream();
}

extern const syz_backend syz_cuda_f32, syz_cuda_bf16;

const syz_device_backend syz_cuda_backend = {
    count,  text,   lacking, describe, libraries, allocate,    release,       trim,
    memory, pin,    unpin,   copy,     zero,      synchronize, record_begin,  record_end,
    replay, forget, fork,    back,     join,      select,      &syz_cuda_f32, &syz_cuda_bf16,
};
