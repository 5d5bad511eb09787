/* Streams, events and graphs of the emulated runtime.
 *
 * A stream runs at once what it is given, unless it is lazy (counts.h) or being captured. Captured work becomes nodes
 * of a graph, which a launch runs in their order. Memory that is allocated in a capture belongs to the graph: it holds
 * NaN again whenever the graph allocates or frees it, and nobody else gets it while the graph exists. */
#ifndef SYZ_EMU_STREAM_H
#define SYZ_EMU_STREAM_H

#include "counts.h"

#include <deque>

typedef std::function<cudaError_t()> emu_work;

typedef struct emu_graph {
    int device;
    bool broken; /* something was asked that cannot be captured */
    std::vector<emu_work> nodes;
    std::map<void *, size_t> live;       /* allocated in the capture and not freed yet */
    std::multimap<size_t, void *> spare; /* freed in the capture */
    std::vector<cudaStream_t> streams;   /* that are captured into it */
} * cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;

struct CUstream_st {
    int device;
    bool lazy = false;
    cudaGraph_t capture = nullptr;
    uint64_t given = 0, done = 0; /* pieces of work */
    std::deque<emu_work> waiting = {};
};

typedef struct emu_event {
    bool recorded;
    double time;
    cudaStream_t stream;
    uint64_t after;      /* happens when its stream has done so much */
    cudaGraph_t capture; /* it was recorded in this capture */
} * cudaEvent_t;

enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };

namespace emu {

inline double milliseconds = 0; /* emulated libraries add what their kernels would have taken */
inline bool capturing = false;  /* whether streams say that they are being captured into a graph */
inline int streams_made[DEVICES];

/* Does what a stream has put off until `count` pieces of its work are done. An error of late work has nobody to go to.
 */
inline void catch_up(cudaStream_t stream, uint64_t count) {
    while (stream->done < count && !stream->waiting.empty()) {
        emu_work work = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        if (work() != cudaSuccess) abort();
        stream->done++;
    }
}

inline cudaError_t submit(cudaStream_t stream, emu_work work) {
    if (!stream) return work();
    if (stream->capture) {
        stream->capture->nodes.push_back(std::move(work));
        return cudaSuccess;
    }
    stream->given++;
    if (stream->lazy) {
        stream->waiting.push_back(std::move(work));
        return cudaSuccess;
    }
    stream->done++;
    return work();
}

inline cudaError_t refuse_in_capture(cudaStream_t stream) {
    stream->capture->broken = true;
    return cudaErrorStreamCaptureUnsupported;
}

/* ---- memory of a graph ---- */

inline void fill_with_nan(cudaGraph_t graph, void *memory, size_t bytes) {
    graph->nodes.push_back([=] {
        access writable;
        memset(memory, 0xff, bytes);
        return cudaSuccess;
    });
}

inline void *graph_allocate(cudaGraph_t graph, size_t bytes) {
    auto found = graph->spare.find(bytes);
    void *memory = found != graph->spare.end() ? found->second : device_allocate(graph->device, bytes);
    if (!memory) return nullptr;
    if (found != graph->spare.end()) graph->spare.erase(found);
    graph->live[memory] = bytes;
    fill_with_nan(graph, memory, bytes);
    return memory;
}

inline cudaError_t graph_free(cudaStream_t stream, void *memory) {
    cudaGraph_t graph = stream->capture;
    auto found = graph->live.find(memory);
    if (found == graph->live.end()) return refuse_in_capture(stream); /* it would be freed by every launch */
    fill_with_nan(graph, memory, found->second);
    graph->spare.emplace(found->second, memory);
    graph->live.erase(found);
    return cudaSuccess;
}

inline void drop(cudaGraph_t graph) {
    for (auto &block : graph->live)
        device_release(block.first);
    for (auto &block : graph->spare)
        device_release(block.second);
    delete graph;
}

} // namespace emu

/* ---- streams ---- */

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    int number = emu::streams_made[emu_device]++;
    *stream = new CUstream_st{emu_device, (emu_lazy_streams >> number & 1) != 0};
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    emu_counted.waits++;
    if (!stream) return cudaSuccess;
    if (stream->capture) return emu::refuse_in_capture(stream);
    emu::catch_up(stream, stream->given);
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    emu::catch_up(stream, stream->given);
    delete stream;
    return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *state) {
    bool on = emu::capturing || (stream && stream->capture);
    *state = on ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

/* ---- events ---- */

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new emu_event{};
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, 0);
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *event = {true, emu::milliseconds + (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6, stream,
              stream ? stream->given : 0, stream ? stream->capture : nullptr};
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->recorded && event->stream) emu::catch_up(event->stream, event->after);
    return cudaSuccess;
}
/* A stream that waits for an event of a capture joins it, until the capture ends. */
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
    if (!event->recorded || !event->stream) return cudaSuccess;
    if (event->capture) {
        if (!stream->capture) event->capture->streams.push_back(stream);
        stream->capture = event->capture;
        return cudaSuccess;
    }
    cudaStream_t other = event->stream;
    uint64_t after = event->after;
    return emu::submit(stream, [=] {
        emu::catch_up(other, after);
        return cudaSuccess;
    });
}
inline cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!from->recorded || !to->recorded) return cudaErrorInvalidValue;
    *milliseconds = (float)(to->time - from->time);
    return cudaSuccess;
}

/* ---- graphs ---- */

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (stream->capture) return cudaErrorInvalidValue;
    emu::catch_up(stream, stream->given);
    stream->capture = new emu_graph{stream->device, false, {}, {}, {}, {stream}};
    return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = stream->capture;
    for (cudaStream_t captured : *graph ? (*graph)->streams : std::vector<cudaStream_t>())
        captured->capture = nullptr;
    if (*graph && !(*graph)->broken && (*graph)->live.empty()) return cudaSuccess;
    if (*graph) emu::drop(*graph);
    *graph = nullptr;
    return cudaErrorStreamCaptureInvalidated;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long = 0) {
    *made = new emu_graph(*graph);
    graph->spare.clear(); /* the memory is now the other's */
    return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    emu::drop(graph);
    return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    emu::drop(graph);
    return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    if (stream->device != graph->device || stream->capture) return cudaErrorInvalidValue;
    emu_counted.graphs++;
    return emu::submit(stream, [=] {
        for (auto &node : graph->nodes) {
            cudaError_t error = node();
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    });
}
inline cudaError_t cudaDeviceGraphMemTrim(int) {
    return cudaSuccess;
}

#endif
