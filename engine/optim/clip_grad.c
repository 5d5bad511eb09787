#include "kernels/kernels.h"
#include "ops/ops.h"

#include <math.h>

static syz_status total_squares(double *sum, syz_tensor *const params[], int64_t count) {
    *sum = 0;
    for (int64_t k = 0; k < count; k++) {
        const syz_tensor *grad = params[k]->grad;
        double squares;
        if (!grad) continue;
        if (grad->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE, "clip_grad_norm: the gradient of parameter %lld is %s, not f32", (long long)k,
                            syz_dtype_name(grad->dtype));
        if (syz_cpu.sum_squares(&squares, syz_f32(grad), syz_numel(grad)) != 0)
            return syz_fail(SYZ_EINTERNAL, "clip_grad_norm: the norm of gradient %lld failed in its kernel",
                            (long long)k);
        *sum += squares;
    }
    return SYZ_OK;
}

/* In place, unless somebody else sees the same values: two parameters that were added share one gradient. */
static syz_status scale(syz_tensor *param, double factor) {
    syz_tensor *grad = param->grad;
    if (grad->refs > 1 || grad->storage->refs > 1) {
        syz_tensor *scaled = syz_affine(syz_alias(grad), factor, 0);
        return scaled ? syz_set_grad(param, scaled) : syz_error_status();
    }
    if (syz_cpu.affine(syz_f32(grad), syz_f32(grad), (float)factor, 0, syz_numel(grad)) == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "scaling a gradient of %s failed in its kernel", syz_dims(grad));
}

syz_status syz_scale_grads(syz_tensor *const params[], int64_t count, double factor) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_scope_push());
    syz_status status = SYZ_OK;
    for (int64_t k = 0; k < count && status == SYZ_OK; k++)
        if (params[k]->grad) status = scale(params[k], factor);
    syz_scope_pop();
    return status;
}

syz_status syz_clip_grad_norm(double *norm, syz_tensor *const params[], int64_t count, double max_norm) {
    double squares;
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(total_squares(&squares, params, count));
    *norm = sqrt(squares);
    double factor = max_norm / (*norm + 1e-6);
    if (!isfinite(*norm) || max_norm <= 0 || factor >= 1) return SYZ_OK;
    return syz_scale_grads(params, count, factor);
}
