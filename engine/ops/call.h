/* One application of an operation: what forward reads and what backward needs. */
#ifndef SYZ_OPS_CALL_H
#define SYZ_OPS_CALL_H

#include "kernels/kernels.h"
#include "syzygy.h"

enum { SYZ_MAX_INPUTS = 12, SYZ_MAX_SAVED = 4 };

typedef struct {
    int op;
    int nin;
    syz_tensor *in[SYZ_MAX_INPUTS];   /* T, t and L arguments in order; an absent optional one is NULL */
    bool needs[SYZ_MAX_INPUTS];       /* which input gradients are wanted */
    int64_t i[8];                     /* i and b arguments in order */
    double f[4];                      /* f arguments in order */
    syz_shape shape;                  /* the S argument */
    syz_tensor *out;                  /* set by forward */
    syz_tensor *saved[SYZ_MAX_SAVED]; /* set by forward for backward; may be `out` itself */
    syz_segment segment;              /* checkpoint only */
    void *context;
    syz_tensor *sum[SYZ_MAX_INPUTS]; /* in backward: see syz_gradient_sum() */
    /* Set when the operation runs: */
    int device;                 /* where the inputs lie and the outputs will */
    syz_dtype real;             /* what the kernels call REAL: SYZ_F32, or SYZ_BF16 on a GPU */
    const syz_backend *kernels; /* of that device for that type */
} syz_call;

/* forward sets call->out (a new tensor) and call->saved; what else it makes is freed when it returns.
 * backward sets gin[k], of the shape of in[k], for every k with call->needs[k]; gin[k] may be `gout` itself or a view
 * of it, or what syz_gradient_sum() gave, added to. Inputs outside the operation's `keeps` mask have a shape but no
 * values there. */
typedef syz_status (*syz_forward_fn)(syz_call *call);
typedef syz_status (*syz_backward_fn)(syz_call *call, syz_tensor *gout, syz_tensor *gin[]);

enum {
    SYZ_OP_ANY_DTYPE = 1, /* forward handles every dtype; the others get f32 (bf16 and f16 are converted around them) */
    SYZ_OP_NO_GRAD = 2,   /* not differentiable: its result never requires a gradient */
    SYZ_OP_HALF_0 = 4,    /* forward and backward take input 0 (1) in bf16 or f16 while it needs no gradient: large */
    SYZ_OP_HALF_1 = 8,    /* frozen weights stay as their file has them, and no graph holds an f32 copy */
    SYZ_OP_WEIGHTS = 16,  /* inputs after the first are its weights: on a GPU they take the first one's type */
    SYZ_OP_F32_SHIFT = 8, /* flags >> 8, unless 0: inputs from that number on are f32 whatever the others are */
};

typedef struct {
    const char *name, *signature, *params;
    unsigned keeps; /* bit k: backward reads the values of input k */
    unsigned flags;
    syz_forward_fn forward;
    syz_backward_fn backward; /* NULL with SYZ_OP_NO_GRAD */
} syz_op;

extern const syz_op syz_ops[];

/* The gradient that input k has already from others, for a backward that can add its own in place and then returns the
 * sum as gin[k]; NULL where there is none, where others see it, or where it is not `dtype`. */
syz_tensor *syz_gradient_sum(const syz_call *call, int k, syz_dtype dtype);

/* Runs forward and records it: what every syz_<name>() ends in. NULL on failure. */
syz_tensor *syz_run(syz_call *call);

#endif
