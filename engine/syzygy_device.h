/* The part of syzygy.h about GPUs; include that. */
#ifndef SYZYGY_DEVICE_H
#define SYZYGY_DEVICE_H

/* Devices: 0 is the CPU, n the n-th GPU, named "cuda:0" and so on ("cuda" is the first). Tensors are made on the CPU,
 * or where syz_set_device() says; operations compute where their inputs lie, all of one call on one device. Integer
 * indices may stay on the CPU, which can check them; random ones do. */
typedef struct {
    char name[128];
    int compute; /* compute capability: 90 for 9.0 */
    size_t memory;
} syz_device_info;

typedef struct {
    bool built;                 /* this build has CUDA; without it the rest is 0 */
    int driver, runtime, cudnn; /* 13000 for 13.0; cudnn 91900 for 9.19; 0: not there */
    int nccl;                   /* 22700 for 2.27 */
    int devices;
    char problem[256]; /* why there is no device; empty when there is one */
} syz_cuda_report;

typedef struct {
    size_t live, peak;    /* bytes of tensors: now, and the most since the start or the last reset */
    size_t unused, total; /* of the device, as its driver counts; no more than the limit leaves */
    struct {
        const char *name; /* "weights" */
        size_t live, at_peak;
    } uses[4];
} syz_device_use;

SYZ_API int syz_device_count(void); /* GPUs */
SYZ_API void syz_cuda_status(syz_cuda_report *report);
SYZ_API syz_status syz_device_describe(int device, syz_device_info *info);
SYZ_API syz_status syz_device_parse(int *device, const char *name); /* of an existing device */
SYZ_API syz_status syz_device_memory(int device, syz_device_use *report);
SYZ_API void syz_device_reset_peak(int device);
SYZ_API void syz_device_limit(int device, size_t bytes); /* more fails with SYZ_ENOMEM; 0 lifts the limit */
SYZ_API syz_status syz_set_device(int device);           /* where this thread makes tensors and loads models */
SYZ_API int syz_device_current(void);                    /* what was set */
SYZ_API syz_status syz_synchronize(void);                /* wait until every device has done what was asked of it */

#endif
