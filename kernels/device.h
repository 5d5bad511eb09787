/* What a backend with memory of its own offers besides kernels. The CUDA one is kernels/device.cu.
 *
 * Devices are numbered from 1; 0 is the CPU. Functions that return int give 0, or -1 when the library or the machine
 * failed, and then text() says what it said, as after a kernel of the tables that failed. Work is queued: nothing waits
 * but copies to the host and synchronize(). */
#ifndef SYZ_DEVICE_H
#define SYZ_DEVICE_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char name[128];
    int compute; /* compute capability: 90 for 9.0 */
    size_t memory;
} syz_device_description;

typedef struct {
    int driver, runtime; /* 13000 for 13.0; 0: not there */
    int cudnn, nccl;     /* 91900 for 9.19.0 */
} syz_device_libraries;

typedef struct {
    int (*count)(void); /* usable devices; 0, with the reason in text(), when there is none */
    const char *(*text)(void);
    size_t (*lacking)(void); /* bytes of device memory that the call which failed could not have; 0: another failure */
    int (*describe)(int device, syz_device_description *description);
    syz_device_libraries (*libraries)(void);

    void *(*allocate)(int device, size_t bytes); /* NULL when the memory is used up */
    void (*release)(int device, void *memory);
    void (*trim)(int device); /* give what is unused back to the device */
    int (*memory)(int device, size_t *unused, size_t *total);
    void *(*pin)(size_t bytes); /* memory of the host that kernels reach too, at the same address; NULL: used up */
    void (*unpin)(void *memory);

    /* Between device memory and host memory (device 0), or within one device. What was read from the host may be
     * changed, and what was written to it be read, when the call returns. */
    int (*copy)(void *to, int to_device, const void *from, int from_device, size_t bytes);
    int (*zero)(int device, void *memory, size_t bytes);
    int (*synchronize)(int device);

    /* What this thread asks of the device between record_begin() and record_end() is not done but kept, to be done
     * again and again by replay(). Memory that is allocated in between must be freed in between; copies from and to the
     * host fail, and then record_end() gives NULL. */
    int (*record_begin)(int device);
    void *(*record_end)(int device);
    int (*replay)(int device, void *recording);
    void (*forget)(int device, void *recording);

    /* A second stream. After fork() this thread's work goes there, and begins when what was asked before is done; after
     * back() it goes to the first one again, which does not wait; after join() it waits for the second. Memory that is
     * released between fork() and join() is kept until then, since either stream may still use it. Copies from and to
     * the host wait for both. */
    int (*fork)(int device);
    void (*back)(int device);
    int (*join)(int device); /* does nothing without a fork() */

    int (*select)(int device); /* kernels of this thread run there from now on */
    const syz_backend *f32, *bf16;
} syz_device_backend;

/* In builds with SYZ_CUDA. The stream (a cudaStream_t) is that of this thread's device, for other libraries' work. */
extern const syz_device_backend syz_cuda_backend;
void *syz_cuda_stream(void);

#ifdef __cplusplus
}
#endif

#endif
