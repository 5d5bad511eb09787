#include "autograd/node.h"
#include "core/alloc.h"
#include "core/flops.h"
#include "ops/ops.h"

#include <stdlib.h>

static uint64_t next_sequence = 1;

/* What the node keeps of input k: the tensor itself when backward reads its values or when it is a leaf that receives a
 * gradient, otherwise a stand-in with its shape and history. */
static syz_tensor *kept_input(const syz_call *call, int k) {
    syz_tensor *in = call->in[k];
    bool leaf = in && !in->node && in->requires_grad;
    if (!in || leaf || (syz_ops[call->op].keeps >> k & 1u)) return in;
    return syz_stand_in(in);
}

syz_status syz_record(const syz_call *call) {
    syz_node *node = syz_alloc(1, sizeof *node);
    if (!node) return SYZ_ENOMEM;
    node->refs = 1;
    node->sequence = next_sequence++;
    node->meter = syz_meter_current();
    node->call = *call;
    node->call.out = NULL;
    for (int k = 0; k < call->nin; k++)
        node->call.in[k] = syz_retain(kept_input(call, k));
    for (int k = 0; k < SYZ_MAX_SAVED; k++) {
        /* Saving the output itself would tie a cycle: keep an alias without history. */
        bool output = call->saved[k] && call->saved[k] == call->out;
        node->call.saved[k] = syz_retain(output ? syz_alias(call->out) : call->saved[k]);
    }
    call->out->node = node;
    return syz_failed() ? syz_error_status() : SYZ_OK;
}

void syz_node_retain(syz_node *node) {
    if (node) node->refs++;
}

static void free_contents(syz_node *node) {
    for (int k = 0; k < node->call.nin; k++)
        syz_release(node->call.in[k]);
    for (int k = 0; k < SYZ_MAX_SAVED; k++)
        syz_release(node->call.saved[k]);
    syz_release(node->grad);
    free(node);
}

/* Freeing a node releases tensors that release further nodes: a chain as long as the program ran. Nodes that die while
 * another is being freed wait in a list, so that the C stack stays flat. */
void syz_node_release(syz_node *node) {
    static _Thread_local syz_node *waiting;
    static _Thread_local bool busy;
    if (!node || --node->refs > 0) return;
    node->call.context = waiting; /* the field is free now: use it as the list's link */
    waiting = node;
    if (busy) return;
    busy = true;
    while (waiting) {
        syz_node *next = waiting;
        waiting = next->call.context;
        free_contents(next);
    }
    busy = false;
}
