/* Tensors, inside the engine: the header that syz_tensor points to. */
#ifndef SYZ_TENSOR_TENSOR_H
#define SYZ_TENSOR_TENSOR_H

#include "core/error.h"
#include "syzygy.h"

typedef struct syz_node syz_node; /* autograd/node.h */

/* One block of memory, shared by a tensor and its reshapes. */
typedef struct {
    int refs;
    void *data;
    size_t bytes;
    void (*release)(void *owner); /* NULL: the block is ours and returns to the pool */
    void *owner;
    bool rounds;       /* a weight: its values in bf16 are kept beside it, for products in bf16 */
    bool fresh;        /* `rounded` matches the values */
    uint16_t *rounded; /* NULL until a product has asked for it */
} syz_storage;

struct syz_tensor {
    int refs;    /* strong references: scopes, graph nodes, syz_retain(); 0 frees the values */
    int handles; /* weak references of scripts: they keep only this header */
    syz_dtype dtype;
    syz_shape shape;
    syz_storage *storage; /* NULL once dead, and in the valueless stand-ins that graph nodes hold */
    bool requires_grad;   /* leaves only */
    syz_tensor *grad;     /* leaves only */
    syz_node *node;       /* the operation that made it, when recorded */
};

/* Constructors used inside the engine. All register the new tensor in the current scope. */
syz_tensor *syz_empty_like(const syz_tensor *t);
syz_tensor *syz_zeros_like(const syz_tensor *t);
syz_tensor *syz_view(syz_tensor *t, syz_shape shape); /* same memory and dtype; no history */
/* Header with shape and history but no values: what the graph keeps of an input whose values backward does not need. */
syz_tensor *syz_stand_in(const syz_tensor *t);

/* A weight's f32 values rounded to bf16, made once and again after syz_touch(): converting the weights costs a rollout
 * step a tenth of its time. Borrowed until the values change. NULL for a tensor that is not a weight, or for want of
 * memory: then the caller rounds for itself. */
void syz_keep_rounded(syz_tensor *weight);
const uint16_t *syz_rounded(const syz_tensor *t);

/* Shape helpers. */
#define SYZ_SHAPE(...) ((syz_shape){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}})
int64_t syz_shape_numel(syz_shape shape);
bool syz_shape_equal(syz_shape a, syz_shape b);
/* Turns a possibly negative dimension index into 0..n-1; false when out of range. */
bool syz_dim_normalize(int64_t *dim, int n);

/* Values as C arrays; the tensor must have that dtype. */
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
