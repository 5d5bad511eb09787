#include "core/alloc.h"
#include "optim/group.h"

#include <stdlib.h>

struct syz_ema {
    syz_group params, shadows; /* shadows are f32 */
    syz_tensor **remainders;   /* of the bf16 parameters, retained; NULL for the others */
};

/* Starts as the parameter's f32 values. */
static syz_status add_shadow(syz_ema *e, int64_t k, syz_tensor *remainder) {
    SYZ_TRY(syz_scope_push());
    e->remainders[k] = syz_retain(remainder);
    e->shadows.items[k] = syz_retain(syz_join_master(e->params.items[k], remainder));
    syz_scope_pop();
    return syz_error_status();
}

static syz_status fill(syz_ema *e, syz_tensor *const params[], int64_t count, const syz_adamw *optimizer) {
    SYZ_TRY(syz_group_of(&e->params, params, count));
    e->shadows.items = syz_alloc((size_t)count, sizeof *e->shadows.items);
    e->remainders = e->shadows.items ? syz_alloc((size_t)count, sizeof *e->remainders) : NULL;
    if (!e->remainders) return SYZ_ENOMEM;
    e->shadows.count = count;
    for (int64_t k = 0; k < count; k++) {
        syz_tensor *remainder = optimizer ? syz_adamw_state(optimizer, k, SYZ_ADAMW_REMAINDER) : NULL;
        if (!remainder && params[k]->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE,
                            "ema: parameter %lld is %s: make the average of the optimizer, which holds its f32 values",
                            (long long)k, syz_dtype_name(params[k]->dtype));
        SYZ_TRY(add_shadow(e, k, remainder));
    }
    return SYZ_OK;
}

static syz_status create(syz_ema **ema, syz_tensor *const params[], int64_t count, const syz_adamw *optimizer) {
    *ema = NULL;
    if (syz_failed()) return syz_error_status();
    syz_ema *e = syz_alloc(1, sizeof *e);
    if (!e) return SYZ_ENOMEM;
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_OPTIMIZER);
    syz_status status = fill(e, params, count, optimizer);
    syz_memory_tag_swap(tag);
    if (status == SYZ_OK)
        *ema = e;
    else
        syz_ema_free(e);
    return status;
}

syz_status syz_ema_create(syz_ema **ema, syz_tensor *const params[], int64_t count) {
    return create(ema, params, count, NULL);
}

syz_status syz_ema_create_for(syz_ema **ema, const syz_adamw *optimizer) {
    return create(ema, syz_adamw_params(optimizer), syz_adamw_count(optimizer), optimizer);
}

void syz_ema_free(syz_ema *e) {
    if (!e) return;
    for (int64_t k = 0; e->remainders && k < e->params.count; k++)
        syz_release(e->remainders[k]);
    free(e->remainders);
    syz_group_free(&e->params);
    syz_group_free(&e->shadows);
    free(e);
}

static syz_status update(syz_ema *e, int64_t k, double decay) {
    syz_tensor *p = e->params.items[k], *shadow = e->shadows.items[k];
    if (e->remainders[k] && !(p = syz_join_master(p, e->remainders[k]))) return syz_error_status();
    if (syz_kernels_of(p)->lerp(syz_f32(shadow), syz_reals(p), (float)(1 - decay), syz_numel(p)) == 0) return SYZ_OK;
    return syz_kernel_failed(syz_tensor_device(p), "ema: averaging parameter %lld", (long long)k);
}

syz_status syz_ema_update(syz_ema *e, double decay) {
    if (syz_failed()) return syz_error_status();
    if (!(decay >= 0 && decay <= 1)) return syz_fail(SYZ_EINVAL, "ema: the decay %g must lie in [0,1]", decay);
    syz_status status = SYZ_OK;
    for (int64_t k = 0; k < e->params.count && status == SYZ_OK; k++) {
        SYZ_TRY(syz_scope_push());
        status = update(e, k, decay);
        syz_scope_pop();
    }
    return status;
}

static syz_status swap(syz_ema *e, int64_t k) {
    syz_tensor *p = e->params.items[k], *shadow = e->shadows.items[k];
    syz_tensor *held = syz_join_master(p, e->remainders[k]);
    if (!held) return syz_error_status();
    SYZ_TRY(syz_split_master(p, e->remainders[k], shadow));
    return syz_split_master(shadow, NULL, held);
}

syz_status syz_ema_swap(syz_ema *e) {
    if (syz_failed()) return syz_error_status();
    syz_status status = SYZ_OK;
    for (int64_t k = 0; k < e->params.count && status == SYZ_OK; k++) {
        SYZ_TRY(syz_scope_push());
        status = swap(e, k);
        syz_scope_pop();
    }
    return status;
}

int64_t syz_ema_count(const syz_ema *e) {
    return e->params.count;
}

syz_tensor *syz_ema_shadow(const syz_ema *e, int64_t index) {
    return e->shadows.items[index];
}
