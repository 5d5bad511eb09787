/* Where kernels run and what they are called in a profile. */
#ifndef SYZ_STREAM_CUH
#define SYZ_STREAM_CUH

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

namespace syz_cuda {

/* The stream of the device that this thread has selected; NULL before it has selected one. */
cudaStream_t current_stream();

/* A stretch of time with a name, as Nsight Systems shows it. */
struct range {
    explicit range(const char *name) { nvtxRangePushA(name); }
    ~range() { nvtxRangePop(); }
    range(const range &) = delete;
    range &operator=(const range &) = delete;
};

} // namespace syz_cuda

#endif
