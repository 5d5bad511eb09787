/* The part of NCCL, and of the CUDA runtime beside it, that engine/dist/comm_nccl.c uses, between processes that the
 * test forked, on host memory. nccl.c says what it demands of its caller. */
#ifndef SYZ_EMU_NCCL_H
#define SYZ_EMU_NCCL_H

#include <limits.h>
#include <stddef.h>

/* ---- CUDA ---- */

typedef struct emulated_stream *cudaStream_t;
typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorNoDevice = 100,
    cudaErrorNotReady = 600
} cudaError_t;
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
struct cudaPointerAttributes {
    enum cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

/* A build with CUDA has the real ones too. */
#define cudaGetDeviceCount       emulated_get_device_count
#define cudaSetDevice            emulated_set_device
#define cudaGetDevice            emulated_get_device
#define cudaPointerGetAttributes emulated_pointer_attributes
#define cudaStreamQuery          emulated_stream_query
#define cudaGetErrorString       emulated_error_string

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer);
cudaError_t cudaStreamQuery(cudaStream_t stream);
const char *cudaGetErrorString(cudaError_t error);

/* ---- NCCL ---- */

typedef struct ncclComm *ncclComm_t;
typedef struct {
    char internal[128];
} ncclUniqueId;
typedef enum {
    ncclSuccess,
    ncclUnhandledCudaError,
    ncclSystemError,
    ncclInternalError,
    ncclInvalidArgument,
    ncclInvalidUsage,
    ncclRemoteError,
    ncclInProgress
} ncclResult_t;
typedef enum { ncclSum = 0, ncclAvg = 4 } ncclRedOp_t;
typedef enum { ncclUint8 = 1, ncclFloat32 = 7, ncclBfloat16 = 9 } ncclDataType_t;
typedef struct {
    size_t size;
    unsigned magic;
    int blocking;
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    { sizeof(ncclConfig_t), 0xcafebeef, INT_MIN }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream);

/* ---- for tests ---- */

void *emulated_stream(void);                            /* for syz_cuda_stream() */
void emulated_nccl_share(void);                         /* before the ranks are forked: the memory that they share */
void emulated_gpus(int count);                          /* that this process sees; 0: no driver */
void emulated_gpu_memory(const void *at, size_t bytes); /* this range counts as memory of the current GPU */
void emulated_nccl_fail_next(ncclResult_t result);      /* the next operation ends so, once it is under way */
int emulated_nccl_aborts(void);                         /* of this process */

#endif
