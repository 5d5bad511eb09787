/* Tensors, inside the engine: the header that syz_tensor points to. */
#ifndef SYZ_TENSOR_TENSOR_H
#define SYZ_TENSOR_TENSOR_H

#include "core/device.h"
#include "core/error.h"
#include "syzygy.h"

typedef struct syz_node syz_node; /* autograd/node.h */

/* One block of memory, shared by a tensor, its reshapes and its stretches. */
typedef struct {
    int refs;
    void *data;
    size_t bytes;
    int device;
    bool pinned;                  /* by syz_pinned_allocate() */
    syz_memory_tag tag;           /* what the block is counted as on its device */
    void (*release)(void *owner); /* NULL: the block is ours and returns to the pool */
    void *owner;
    bool rounds;       /* a weight: its values in bf16 are kept beside it, for products in bf16 */
    bool fresh;        /* `rounded` matches the values */
    uint16_t *rounded; /* NULL until a product has asked for it */
    void *codes;       /* the values in e4m3 and, behind them, their scale; NULL until a product has asked */
    size_t code_bytes;
    bool codes_fresh; /* they match the values */
} syz_storage;

struct syz_tensor {
    int refs;    /* strong references: scopes, graph nodes, syz_retain(); 0 frees the values */
    int handles; /* weak references of scripts: they keep only this header */
    syz_dtype dtype;
    syz_shape shape;
    int device;
    size_t offset;        /* bytes of the storage before the values */
    syz_storage *storage; /* NULL once dead, and in the valueless stand-ins that graph nodes hold */
    bool requires_grad;   /* leaves only */
    syz_tensor *grad;     /* leaves only */
    syz_node *node;       /* the operation that made it, when recorded */
};

/* Constructors used inside the engine. All register the new tensor in the current scope. */
void syz_retag(syz_tensor *t, syz_memory_tag tag);            /* what its values are for, in the report of memory */
syz_tensor *syz_host_zeros(syz_dtype dtype, syz_shape shape); /* on the CPU, wherever tensors are made now */
syz_tensor *syz_empty_like(const syz_tensor *t);
syz_tensor *syz_zeros_like(const syz_tensor *t);
syz_tensor *syz_view(syz_tensor *t, syz_shape shape); /* same memory and dtype; no history */
/* A view of the elements from number `first` on. */
syz_tensor *syz_view_from(syz_tensor *t, int64_t first, syz_shape shape);
/* Moves the values of a tensor without history, and its gradient, to `device`: the tensor stays the same one. Others
 * that share its memory keep the values where they are. */
syz_status syz_move(syz_tensor *t, int device);
/* Header with shape and history but no values: what the graph keeps of an input whose values backward does not need. */
syz_tensor *syz_stand_in(const syz_tensor *t);

/* Zeros on the CPU (device 0) that a GPU's kernels reach too: syz_synchronize() before the CPU looks at what they
 * wrote. */
syz_tensor *syz_pinned_zeros(syz_dtype dtype, syz_shape shape);

/* The dtype of a tensor's gradient: its own, but f32 for a leaf of half precision, where a gradient is accumulated. */
syz_dtype syz_gradient_dtype(const syz_tensor *t);

/* A weight's f32 values rounded to bf16, made once and again after syz_touch(): converting the weights costs a rollout
 * step a tenth of its time. Borrowed until the values change. NULL for a tensor that is not a weight, or for want of
 * memory: then the caller rounds for itself. */
void syz_keep_rounded(syz_tensor *weight);
const uint16_t *syz_rounded(const syz_tensor *t);

/* The same for e4m3: codes [numel] and the scale that they are multiplied with, on the tensor's device; `real` is what
 * its kernels compute in. Kept beside the weight until that is freed, one byte a value. Without codes on
 * failure. */
typedef struct {
    uint8_t *codes;
    float *scale;
} syz_fp8_weight;
syz_fp8_weight syz_fp8_of(syz_tensor *weight, syz_dtype real);

/* Shape helpers. */
#define SYZ_SHAPE(...) ((syz_shape){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}})
int64_t syz_shape_numel(syz_shape shape);
bool syz_shape_equal(syz_shape a, syz_shape b);
/* Turns a possibly negative dimension index into 0..n-1; false when out of range. */
bool syz_dim_normalize(int64_t *dim, int n);

/* Values as arrays on the tensor's device; the tensor must have that dtype. syz_reals() is for kernels: the type is
 * that of their table. */
static inline syz_real *syz_reals(const syz_tensor *t) {
    return syz_data(t);
}
static inline float *syz_f32(const syz_tensor *t) {
    return syz_data(t);
}
static inline int64_t *syz_i64(const syz_tensor *t) {
    return syz_data(t);
}

/* Shape text for messages: up to four calls per message. */
const char *syz_dims(const syz_tensor *t);

static inline bool syz_is_float(syz_dtype dtype) {
    return dtype == SYZ_F32 || dtype == SYZ_BF16 || dtype == SYZ_F16 || dtype == SYZ_F64;
}

#endif
