/* Plans of cuDNN, made once for each device and shape, and run in the order of a stream. */
#ifndef SYZ_CUDNN_PLANS_CUH
#define SYZ_CUDNN_PLANS_CUH

#include "kernels/cuda.cuh"
#include "kernels/cudnn_graph.h"

namespace syz_cuda {

struct cudnn_plan;

/* The plan of what `describe` writes into an empty graph, from `key`: all of the `size` bytes there say which plan it
 * is. NULL when cuDNN has none, which is remembered too, or without memory. It lives as long as the process. */
const cudnn_plan *find_plan(void (*describe)(syz_cudnn_graph *g, const void *key), const void *key, size_t size);

/* An array on the device, or a number on the host, under its id in the graph. */
struct cudnn_array {
    int64_t id;
    const void *data;
};

enum { CUDNN_ARRAYS = 16 };

/* 0, or -1 when cuDNN or an allocation failed. */
int run_plan(const cudnn_plan *plan, const cudnn_array *arrays, int count, cudaStream_t stream);

} // namespace syz_cuda

#endif
