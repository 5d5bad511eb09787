/* The tape: one node per recorded operation, linked through its input tensors. */
#ifndef SYZ_AUTOGRAD_NODE_H
#define SYZ_AUTOGRAD_NODE_H

#include "ops/call.h"
#include "tensor/tensor.h"

struct syz_node {
    int refs;
    uint64_t sequence; /* order of creation: a valid topological order */
    uint64_t visited;  /* number of the backward pass that last saw it */
    bool freed;        /* a backward pass has consumed it */
    int meter;         /* whose work it is (core/flops.h) */
    syz_call call;     /* inputs and saved tensors are retained; `out` is NULL (it would be a cycle) */
    syz_tensor *grad;  /* gradient of the output, while a backward pass runs */
};

/* Attach a node for `call` to its output. */
syz_status syz_record(const syz_call *call);
void syz_node_retain(syz_node *node);
void syz_node_release(syz_node *node);
/* Sets how deep syz_no_grad_push() is nested (0 records) and returns the previous depth. */
int syz_no_grad_swap(int depth);

#endif
