/* A driver without a device, in the place of libcuda.so.1: enough for cuDNN to compile a kernel and "load" it while it
 * makes a plan. Nothing runs through it. */
#include <stddef.h>

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_FOUND = 500 };

static char object[64];

#define HANDLE(name)                                                                                                   \
    int name(void **handle);                                                                                           \
    int name(void **handle) {                                                                                          \
        *handle = object;                                                                                              \
        return SUCCESS;                                                                                                \
    }
#define DONE(name)                                                                                                     \
    int name(void);                                                                                                    \
    int name(void) {                                                                                                   \
        return SUCCESS;                                                                                                \
    }

int cuInit(unsigned flags);
int cuInit(unsigned flags) {
    (void)flags;
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version);
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

int cuDeviceGetCount(int *count);
int cuDeviceGetCount(int *count) {
    *count = 0;
    return NO_DEVICE;
}

int cuGetExportTable(const void **table, const void *id);
int cuGetExportTable(const void **table, const void *id) {
    (void)id;
    *table = NULL;
    return NOT_FOUND;
}

int cuGetErrorString(int error, const char **text);
int cuGetErrorString(int error, const char **text) {
    (void)error;
    *text = "there is no device";
    return SUCCESS;
}

HANDLE(cuCtxGetCurrent)
HANDLE(cuLibraryLoadFromFile)
HANDLE(cuLibraryLoadData)
HANDLE(cuLibraryGetKernel)
HANDLE(cuLibraryGetModule)
HANDLE(cuKernelGetFunction)
HANDLE(cuModuleLoadData)
HANDLE(cuModuleLoadDataEx)
HANDLE(cuModuleGetFunction)
DONE(cuLibraryUnload)
DONE(cuModuleUnload)
DONE(cuFuncSetAttribute)
DONE(cuFuncGetAttribute)
DONE(cuKernelSetAttribute)
DONE(cuKernelGetAttribute)
DONE(cuTensorMapEncodeTiled)
DONE(cuTensorMapEncodeIm2col)
DONE(cuGetErrorName)
DONE(cuCtxGetLimit)
DONE(cuCtxPopCurrent)
DONE(cuCtxPushCurrent)
DONE(cuStreamGetCtx)
DONE(cuLinkCreate)
DONE(cuLinkAddData)
DONE(cuLinkComplete)
DONE(cuLinkDestroy)
DONE(cuLaunchKernel)
DONE(cuLaunchKernelEx)
DONE(cuLaunchCooperativeKernel)
DONE(cuDeviceGet)
DONE(cuOccupancyMaxPotentialClusterSize)
