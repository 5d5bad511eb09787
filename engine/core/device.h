/* Devices: whose memory a tensor lies in, and whose kernels compute it. 0 is the CPU, n the n-th GPU. */
#ifndef SYZ_CORE_DEVICE_H
#define SYZ_CORE_DEVICE_H

#include "core/error.h"
#include "kernels/kernels.h"

/* What memory is used for: the rows of the report that an out-of-memory error prints. */
#define SYZ_MEMORY_TAGS(X)                                                                                             \
    X(ACTIVATIONS, "activations")                                                                                      \
    X(WEIGHTS, "weights")                                                                                              \
    X(GRADIENTS, "gradients")                                                                                          \
    X(OPTIMIZER, "optimizer")

typedef enum {
#define SYZ_TAG(symbol, text) SYZ_MEMORY_##symbol,
    SYZ_MEMORY_TAGS(SYZ_TAG)
#undef SYZ_TAG
        SYZ_MEMORY_TAG_COUNT
} syz_memory_tag;

/* What tensors made from now on by this thread are for, and on which device they lie; each returns the setting before.
 * A tensor made by an operation lies where its inputs do, whatever is set here. */
syz_memory_tag syz_memory_tag_swap(syz_memory_tag tag);
int syz_device_swap(int device);
syz_memory_tag syz_memory_tag_current(void);

/* The kernels of a device for tensors of type `real`: SYZ_F32, or SYZ_BF16 on a GPU. */
const syz_backend *syz_device_kernels(int device, syz_dtype real);
/* Kernels of this thread run on `device` from now on. */
syz_status syz_device_select(int device);
/* One line when there is no such device, or none at all. */
syz_status syz_device_check(int device);
/* The error when a kernel of the device gave other than 0, for what `format` names: the one that is pending; that it
 * found no memory for its scratch; or that it failed, and why. */
syz_status syz_kernel_failed(int device, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "the CPU", "cuda:0" */
const char *syz_device_text(int device);

/* Memory of a device for `bytes` bytes; NULL with SYZ_ENOMEM, whose message tells what the memory is used for. */
void *syz_device_allocate(int device, size_t bytes, syz_memory_tag tag);
void syz_device_release(int device, void *memory, size_t bytes, syz_memory_tag tag);
/* Memory that was allocated for one use serves another from now on. */
void syz_device_retag(int device, size_t bytes, syz_memory_tag from, syz_memory_tag to);
/* Give what is kept for later allocations back to the devices. */
void syz_device_trim(void);

/* Memory of the host that kernels of GPUs read and write, at the bandwidth of their link; NULL with SYZ_ENOMEM.
 * Releasing waits for what still uses it. */
void *syz_pinned_allocate(size_t bytes);
void syz_pinned_release(void *memory);

/* The second stream of a device: see kernels/device.h. Each may be called while an error is pending, and a fork() must
 * be followed by a join() in any case. */
syz_status syz_stream_fork(int device);
void syz_stream_back(int device);
syz_status syz_stream_join(int device);

syz_status syz_device_copy(void *to, int to_device, const void *from, int from_device, size_t bytes);
syz_status syz_device_zero(int device, void *memory, size_t bytes);

/* Recordings of work (CUDA graphs): see kernels/device.h. A recording ends also when what was to be recorded failed;
 * NULL, with an error, when it cannot be repeated. */
syz_status syz_device_record(int device);
void *syz_device_recorded(int device);
syz_status syz_device_replay(int device, void *recording);
void syz_device_forget(int device, void *recording); /* NULL is allowed */

#endif
