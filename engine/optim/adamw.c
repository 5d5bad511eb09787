#include "core/alloc.h"
#include "kernels/kernels.h"
#include "optim/group.h"

#include <math.h>
#include <stdlib.h>

struct syz_adamw {
    syz_adamw_options options;
    syz_group params, moment[2]; /* SYZ_ADAMW_M, SYZ_ADAMW_V */
    int64_t *steps;
};

static syz_status check_options(const syz_adamw_options *o) {
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return syz_fail(SYZ_EINVAL, "adamw: beta1 %g and beta2 %g must lie in [0,1)", o->beta1, o->beta2);
    if (!(o->eps >= 0 && o->weight_decay >= 0 && o->lr >= 0))
        return syz_fail(SYZ_EINVAL, "adamw: lr %g, eps %g and weight_decay %g must not be negative", o->lr, o->eps,
                        o->weight_decay);
    return SYZ_OK;
}

static syz_status fill(syz_adamw *a, syz_tensor *const params[], int64_t count) {
    SYZ_TRY(syz_group_of(&a->params, params, count));
    SYZ_TRY(syz_group_like(&a->moment[SYZ_ADAMW_M], &a->params, false));
    SYZ_TRY(syz_group_like(&a->moment[SYZ_ADAMW_V], &a->params, false));
    a->steps = syz_alloc((size_t)count, sizeof *a->steps);
    return a->steps ? SYZ_OK : SYZ_ENOMEM;
}

syz_status syz_adamw_create(syz_adamw **optimizer, syz_tensor *const params[], int64_t count,
                            syz_adamw_options options) {
    *optimizer = NULL;
    SYZ_TRY(check_options(&options));
    syz_adamw *a = syz_alloc(1, sizeof *a);
    if (!a) return SYZ_ENOMEM;
    a->options = options;
    syz_status status = fill(a, params, count);
    if (status == SYZ_OK)
        *optimizer = a;
    else
        syz_adamw_free(a);
    return status;
}

void syz_adamw_free(syz_adamw *a) {
    if (!a) return;
    syz_group_free(&a->params);
    syz_group_free(&a->moment[SYZ_ADAMW_M]);
    syz_group_free(&a->moment[SYZ_ADAMW_V]);
    free(a->steps);
    free(a);
}

static syz_status update(syz_adamw *a, int64_t k, double lr) {
    const syz_adamw_options *o = &a->options;
    syz_tensor *p = a->params.items[k];
    double t = (double)++a->steps[k];
    syz_adamw_numbers numbers = {
        .decay = (float)(1 - lr * o->weight_decay),
        .rest1 = (float)(1 - o->beta1),
        .beta2 = (float)o->beta2,
        .rest2 = (float)(1 - o->beta2),
        .step = (float)(lr / (1 - pow(o->beta1, t))),
        .root = (float)sqrt(1 - pow(o->beta2, t)),
        .eps = (float)o->eps,
    };
    int result = syz_cpu.adamw(syz_f32(p), syz_f32(a->moment[SYZ_ADAMW_M].items[k]),
                               syz_f32(a->moment[SYZ_ADAMW_V].items[k]), syz_f32(p->grad), &numbers, syz_numel(p));
    syz_touch(p);
    if (result == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "adamw: the step of parameter %lld failed in its kernel", (long long)k);
}

syz_status syz_adamw_step(syz_adamw *a, double lr) {
    if (syz_failed()) return syz_error_status();
    if (!(lr >= 0)) return syz_fail(SYZ_EINVAL, "adamw: the learning rate %g must not be negative", lr);
    for (int64_t k = 0; k < a->params.count; k++) {
        syz_tensor *grad = a->params.items[k]->grad;
        if (grad && grad->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE, "adamw: the gradient of parameter %lld is %s, not f32", (long long)k,
                            syz_dtype_name(grad->dtype));
    }
    for (int64_t k = 0; k < a->params.count; k++)
        if (a->params.items[k]->grad) SYZ_TRY(update(a, k, lr));
    return SYZ_OK;
}

void syz_adamw_zero_grad(syz_adamw *a) {
    for (int64_t k = 0; k < a->params.count; k++)
        syz_set_grad(a->params.items[k], NULL);
}

syz_adamw_options syz_adamw_get_options(const syz_adamw *a) {
    return a->options;
}

int64_t syz_adamw_count(const syz_adamw *a) {
    return a->params.count;
}

int64_t syz_adamw_steps(const syz_adamw *a, int64_t index) {
    return a->steps[index];
}

void syz_adamw_set_steps(syz_adamw *a, int64_t index, int64_t steps) {
    a->steps[index] = steps;
}

syz_tensor *syz_adamw_moment(const syz_adamw *a, int64_t index, syz_adamw_moment_kind kind) {
    return a->moment[kind].items[index];
}
