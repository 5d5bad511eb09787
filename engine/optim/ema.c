#include "core/alloc.h"
#include "kernels/kernels.h"
#include "optim/group.h"

#include <stdlib.h>

struct syz_ema {
    syz_group params, shadows;
};

syz_status syz_ema_create(syz_ema **ema, syz_tensor *const params[], int64_t count) {
    *ema = NULL;
    syz_ema *e = syz_alloc(1, sizeof *e);
    if (!e) return SYZ_ENOMEM;
    syz_status status = syz_group_of(&e->params, params, count);
    if (status == SYZ_OK) status = syz_group_like(&e->shadows, &e->params, true);
    if (status == SYZ_OK)
        *ema = e;
    else
        syz_ema_free(e);
    return status;
}

void syz_ema_free(syz_ema *e) {
    if (!e) return;
    syz_group_free(&e->params);
    syz_group_free(&e->shadows);
    free(e);
}

syz_status syz_ema_update(syz_ema *e, double decay) {
    if (!(decay >= 0 && decay <= 1)) return syz_fail(SYZ_EINVAL, "ema: the decay %g must lie in [0,1]", decay);
    for (int64_t k = 0; k < e->params.count; k++)
        if (syz_cpu.lerp(syz_f32(e->shadows.items[k]), syz_f32(e->params.items[k]), (float)(1 - decay),
                         syz_numel(e->params.items[k])) != 0)
            return syz_fail(SYZ_EINTERNAL, "ema: averaging parameter %lld failed in its kernel", (long long)k);
    return SYZ_OK;
}

void syz_ema_swap(syz_ema *e) {
    for (int64_t k = 0; k < e->params.count; k++) {
        float *a = syz_f32(e->params.items[k]), *b = syz_f32(e->shadows.items[k]);
        for (int64_t i = 0; i < syz_numel(e->params.items[k]); i++) {
            float held = a[i];
            a[i] = b[i];
            b[i] = held;
        }
        syz_touch(e->params.items[k]);
    }
}

int64_t syz_ema_count(const syz_ema *e) {
    return e->params.count;
}

syz_tensor *syz_ema_shadow(const syz_ema *e, int64_t index) {
    return e->shadows.items[index];
}
