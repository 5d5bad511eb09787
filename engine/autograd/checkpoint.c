/* Checkpointed segments: forward keeps only the inputs, backward runs the segment again with recording on. */
#include "autograd/node.h"
#include "ops/ops.h"

syz_tensor *syz_checkpoint(syz_segment segment, void *context, int64_t index, syz_tensor *const in[], int nin) {
    if (syz_failed()) return NULL;
    if (nin > SYZ_MAX_INPUTS) return syz_fail_null(SYZ_EINVAL, "a segment takes at most %d tensors", SYZ_MAX_INPUTS);
    syz_call call = {.op = SYZ_OP_checkpointed, .nin = nin, .segment = segment, .context = context, .i = {index}};
    for (int k = 0; k < nin; k++) {
        call.in[k] = in[k];
        if (in[k] && !call.device) call.device = in[k]->device;
    }
    return syz_run(&call);
}

syz_status syz_forward_checkpointed(syz_call *call) {
    if (!call->segment) return syz_fail(SYZ_EINVAL, "segments are made by syz_checkpoint() only");
    syz_no_grad_push();
    call->out = call->segment(call->context, call->i[0], call->in, call->nin);
    syz_no_grad_pop();
    return call->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_checkpointed(syz_call *call, syz_tensor *gout, syz_tensor *gin[]) {
    syz_tensor *leaf[SYZ_MAX_INPUTS] = {0};
    for (int k = 0; k < call->nin; k++) {
        leaf[k] = syz_alias(call->in[k]);
        if (leaf[k]) leaf[k]->requires_grad = call->needs[k];
    }
    if (syz_failed()) return syz_error_status(); /* an alias is missing; segments read their inputs */
    /* The backward pass runs with recording off; inside it, this segment must record again. */
    int depth = syz_no_grad_swap(0);
    syz_tensor *out = call->segment(call->context, call->i[0], leaf, call->nin);
    syz_no_grad_swap(depth);
    if (!out) return syz_error_status();
    if (!syz_requires_grad(out)) return SYZ_OK;
    SYZ_TRY(syz_backward(out, gout));
    for (int k = 0; k < call->nin; k++)
        gin[k] = call->needs[k] && leaf[k] ? leaf[k]->grad : NULL;
    return SYZ_OK;
}
