/* From one memory to another. */
#include "ops/ops.h"

syz_status syz_forward_to_device(syz_call *c) {
    SYZ_TRY(syz_device_check((int)c->i[0]));
    syz_tensor *x = c->in[0];
    c->out = x->device == c->i[0] ? syz_alias(x) : syz_copy_to(x, (int)c->i[0]);
    return c->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_to_device(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    gin[0] = syz_copy_to(gout, c->in[0]->device);
    return gin[0] ? SYZ_OK : syz_error_status();
}
