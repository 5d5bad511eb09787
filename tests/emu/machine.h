/* CUDA on the CPU, for tests: the same .cu files, compiled by g++ with this folder in front of the include path.
 *
 * Every CUDA thread of a block is a fiber; blocks run one after another. A fiber runs until it waits at a barrier or at
 * a warp primitive, so one warp may get far ahead of the others: that is what exposes a missing barrier. Three
 * schedules choose who runs next. Shared memory holds NaN when a block begins. A barrier that not all threads of the
 * block reach, or that they reach at different places, fails the launch with a message. Any one barrier of the source
 * can be switched off, to prove that the tests notice.
 *
 * Kernels keep to what is emulated: static __shared__ arrays, blocks of whole warps, full warp masks, and functions
 * that are `static`, so that their shared arrays can lie in one section. Not covered: races within a warp's
 * instruction, the memory model, asynchronous copies, tensor cores, speed. */
#ifndef SYZ_EMU_MACHINE_H
#define SYZ_EMU_MACHINE_H

#include "fiber.h"
#include "memory.h"

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <utility>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
typedef struct CUstream_st *cudaStream_t;
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emu {

enum { WARP = 32, MAX_THREADS = 1024 };
enum order { FORWARD, REVERSE, RANDOM, ORDERS };

struct thread {
    void *context; /* saved stack pointer */
    uint3 index;
    bool done, blocked;
};

struct warp {
    uint64_t value[2][WARP]; /* of this exchange and of the one before: some lanes may not have read it yet */
    unsigned arrived, turn;
};

struct machine {
    order schedule = FORWARD;
    int skipped = -1;                               /* number of the barrier that is switched off */
    std::vector<std::pair<const char *, int>> site; /* file and line of every barrier met so far */
    char error[256] = "";

    std::vector<thread> threads;
    std::vector<warp> warps;
    char *stacks = nullptr; /* MAX_THREADS of them */
    thread *current = nullptr;
    void *scheduler = nullptr;
    unsigned at_barrier = 0, left = 0; /* threads that wait at the barrier below; that have not ended */
    int barrier = -1;
    bool failed = false;
    bool met = false;                      /* a thread of this block met a barrier or an exchange */
    bool simple = false;                   /* none will: the threads are called one after another */
    std::map<const void *, bool> has_none; /* kernels whose first block met none */
    uint32_t random = 1;
    std::function<void()> body;
};

inline machine &the() {
    static machine m;
    return m;
}

inline void wait() {
    fiber_switch(&the().current->context, the().scheduler);
}

/* The launch is given up: its fibers are left where they are. */
inline void fail(const char *what, int site = -1) {
    machine &m = the();
    unsigned number = (unsigned)(m.current - m.threads.data());
    int used = snprintf(m.error, sizeof m.error, "block %u, thread %u: %s", blockIdx.x, number, what);
    if (site >= 0)
        snprintf(m.error + used, sizeof m.error - (size_t)used, " at %s:%d", m.site[site].first, m.site[site].second);
    m.failed = true;
    wait();
}

/* ---- what kernels call ---- */

inline int new_site(const char *file, int line) {
    auto &known = the().site;
    for (size_t n = 0; n < known.size(); n++)
        if (known[n].second == line && strcmp(known[n].first, file) == 0) return (int)n;
    known.push_back({file, line});
    return (int)known.size() - 1;
}

/* Kernels whose first block met no barrier are believed to have none. */
inline void meet() {
    machine &m = the();
    m.met = true;
    if (!m.simple) return;
    fprintf(stderr, "emulated device: a kernel meets its first barrier in block %u, and only there\n", blockIdx.x);
    abort();
}

inline void sync_threads(int site) {
    machine &m = the();
    meet();
    if (site == m.skipped) return;
    if (m.left < m.threads.size() || (m.at_barrier > 0 && m.barrier != site)) fail("divergent barrier", site);
    m.barrier = site;
    m.current->blocked = true;
    if (++m.at_barrier < m.threads.size()) return wait();
    m.at_barrier = 0;
    for (thread &t : m.threads)
        t.blocked = false;
}

inline unsigned lane() {
    return (unsigned)(the().current - the().threads.data()) % WARP;
}

/* All lanes of the warp hand in a value; each takes that of lane `source`. */
template <typename T>
T exchange(unsigned mask, T value, unsigned source) {
    machine &m = the();
    meet();
    warp &w = m.warps[(size_t)(m.current - m.threads.data()) / WARP];
    static_assert(sizeof value <= sizeof w.value[0][0], "at most 64 bits");
    if (mask != 0xffffffffu) fail("a warp primitive needs the full mask");
    uint64_t *values = w.value[w.turn % 2];
    memcpy(&values[lane()], &value, sizeof value);
    w.arrived |= 1u << lane();
    if (w.arrived == mask) {
        w.arrived = 0;
        w.turn++;
        thread *first = m.current - lane();
        for (int k = 0; k < WARP; k++)
            first[k].blocked = false;
    } else {
        m.current->blocked = true;
        wait();
    }
    memcpy(&value, &values[source % WARP], sizeof value);
    return value;
}

/* ---- launches ---- */

/* In large pages, of which few fit all. */
inline char *make_stacks() {
    constexpr size_t size = ((size_t)MAX_THREADS * FIBER_STACK + PAGE - 1) / PAGE * PAGE;
    void *made = aligned_alloc(PAGE, size);
    if (!made) abort();
    madvise(made, size, MADV_HUGEPAGE);
    return (char *)made;
}

extern "C" __attribute__((weak)) char __start_emu_shared[], __stop_emu_shared[];

inline void thread_main() {
    machine &m = the();
    m.body();
    m.current->done = true;
    m.left--;
    if (m.at_barrier > 0) fail("ended while others wait: divergent barrier", m.barrier);
    wait();
}

/* The n-th thread to look at, of `count`. */
inline unsigned pick(unsigned n, unsigned count, unsigned start) {
    machine &m = the();
    return m.schedule == FORWARD ? n : m.schedule == REVERSE ? count - 1 - n : (start + n) % count;
}

inline unsigned next_random() {
    machine &m = the();
    return (m.random = m.random * 1664525u + 1013904223u) >> 8;
}

/* Runs one warp until all its lanes wait or are done. */
inline bool run_warp(unsigned w) {
    machine &m = the();
    bool any = false;
    for (bool moved = true; moved && !m.failed; any |= moved) {
        unsigned start = next_random();
        moved = false;
        for (unsigned n = 0; n < WARP && !m.failed; n++) {
            thread *t = &m.threads[w * WARP + pick(n, WARP, start)];
            if (t->done || t->blocked) continue;
            m.current = t;
            threadIdx = t->index;
            moved = true;
            fiber_switch(&m.scheduler, t->context);
        }
    }
    return any;
}

inline uint3 index_of(unsigned n) {
    return {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
}

/* Without barriers threads need no stacks of their own. */
inline void run_simple_block(unsigned count) {
    machine &m = the();
    unsigned start = next_random();
    if (__start_emu_shared) memset(__start_emu_shared, 0xff, (size_t)(__stop_emu_shared - __start_emu_shared));
    for (unsigned n = 0; n < count && !m.failed; n++) {
        unsigned number = pick(n, count, start);
        m.current = &m.threads[number];
        threadIdx = index_of(number);
        m.body();
    }
}

inline void run_block() {
    machine &m = the();
    unsigned count = blockDim.x * blockDim.y * blockDim.z, warps = count / WARP;
    if (m.simple) return run_simple_block(count);
    if (__start_emu_shared) memset(__start_emu_shared, 0xff, (size_t)(__stop_emu_shared - __start_emu_shared));
    m.threads.assign(count, {});
    m.warps.assign(warps, {});
    m.left = count;
    m.at_barrier = 0;
    for (unsigned n = 0; n < count; n++) {
        thread &t = m.threads[n];
        t.index = index_of(n);
        t.context = fiber_new(m.stacks + (size_t)n * FIBER_STACK, thread_main);
    }
    while (m.left && !m.failed) {
        bool moved = false;
        unsigned start = next_random();
        for (unsigned n = 0; n < warps && !m.failed; n++)
            moved |= run_warp(pick(n, warps, start));
        if (!moved) {
            snprintf(m.error, sizeof m.error, "block %u: deadlock: lanes of one warp wait for each other", blockIdx.x);
            m.failed = true;
        }
    }
}

inline cudaError_t launch(const cudaLaunchConfig_t &config, const void *kernel, std::function<void()> body) {
    machine &m = the();
    unsigned threads = config.blockDim.x * config.blockDim.y * config.blockDim.z;
    if (threads == 0 || threads > MAX_THREADS || threads % WARP || config.dynamicSmemBytes) {
        snprintf(m.error, sizeof m.error, "blocks are of whole warps, up to 1024 threads, not %u", threads);
        return cudaErrorLaunchFailure;
    }
    if (!m.stacks) m.stacks = make_stacks();
    access writable;
    m.body = std::move(body);
    blockDim = config.blockDim;
    gridDim = config.gridDim;
    m.failed = m.met = false;
    m.simple = m.has_none[kernel] && m.threads.size() >= threads;
    unsigned plane = gridDim.x * gridDim.y, blocks = plane * gridDim.z;
    for (unsigned n = 0; n < blocks && !m.failed; n++) {
        unsigned b = m.schedule == REVERSE ? blocks - 1 - n : n;
        blockIdx = {b % gridDim.x, b % plane / gridDim.x, b / plane};
        run_block();
        if (n == 0 && !m.failed && !m.met) m.simple = m.has_none[kernel] = true;
    }
    return m.failed ? cudaErrorLaunchFailure : cudaSuccess;
}

} // namespace emu

#endif
