#include "core/alloc.h"
#include "optim/group.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    syz_tensor *of[SYZ_ADAMW_STATES]; /* retained; NULL where the parameter has none */
    int64_t steps;
} state;

struct syz_adamw {
    syz_adamw_options options;
    syz_group params;
    state *states;                       /* one for each parameter */
    syz_tensor *norm, *factor, *squares; /* what syz_adamw_limit() measured; NULL without parameters */
    bool limited;                        /* the next step multiplies gradients by *factor */
};

static syz_status check_options(const syz_adamw_options *o) {
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return syz_fail(SYZ_EINVAL, "adamw: beta1 %g and beta2 %g must lie in [0,1)", o->beta1, o->beta2);
    if (!(o->eps >= 0 && o->weight_decay >= 0 && o->lr >= 0))
        return syz_fail(SYZ_EINVAL, "adamw: lr %g, eps %g and weight_decay %g must not be negative", o->lr, o->eps,
                        o->weight_decay);
    if ((int)o->moments < 0 || o->moments > SYZ_MOMENTS_HOST)
        return syz_fail(SYZ_EINVAL, "adamw: there are no moments of kind %d", (int)o->moments);
    return SYZ_OK;
}

/* ---- states ---- */

/* A moment: f32 values or codes. What the CPU's parameters have lies on the host as it is. */
static syz_tensor *new_moment(const syz_tensor *p, syz_moments moments) {
    if (moments == SYZ_MOMENTS_HOST && p->device) return syz_pinned_zeros(SYZ_F32, p->shape);
    return syz_zeros_beside(p, moments == SYZ_MOMENTS_8BIT ? SYZ_U8 : SYZ_F32, p->shape);
}

static syz_status make_state(state *s, const syz_tensor *p, syz_moments moments) {
    int64_t blocks = (syz_numel(p) + SYZ_MOMENT_BLOCK - 1) / SYZ_MOMENT_BLOCK;
    SYZ_TRY(syz_scope_push());
    for (int kind = SYZ_ADAMW_M; kind <= SYZ_ADAMW_V; kind++)
        s->of[kind] = syz_retain(new_moment(p, moments));
    for (int kind = SYZ_ADAMW_M_SCALE; moments == SYZ_MOMENTS_8BIT && kind <= SYZ_ADAMW_V_SCALE; kind++)
        s->of[kind] = syz_retain(syz_zeros_beside(p, SYZ_F32, SYZ_SHAPE(blocks)));
    if (p->dtype == SYZ_BF16) s->of[SYZ_ADAMW_REMAINDER] = syz_retain(syz_remainder_for(p));
    syz_scope_pop();
    return syz_error_status();
}

static syz_status make_scalars(syz_adamw *a) {
    if (a->params.count == 0) return SYZ_OK;
    const syz_tensor *p = a->params.items[0];
    SYZ_TRY(syz_scope_push());
    a->norm = syz_retain(syz_zeros_beside(p, SYZ_F64, SYZ_SHAPE(1)));
    a->factor = syz_retain(syz_zeros_beside(p, SYZ_F32, SYZ_SHAPE(1)));
    a->squares = syz_retain(syz_zeros_beside(p, SYZ_F64, SYZ_SHAPE(a->params.count)));
    syz_scope_pop();
    return syz_error_status();
}

static syz_status fill(syz_adamw *a, syz_tensor *const params[], int64_t count) {
    SYZ_TRY(syz_group_of(&a->params, params, count));
    a->states = syz_alloc((size_t)count, sizeof *a->states);
    if (!a->states) return SYZ_ENOMEM;
    for (int64_t k = 0; k < count; k++)
        SYZ_TRY(make_state(&a->states[k], params[k], a->options.moments));
    return make_scalars(a);
}

syz_status syz_adamw_create(syz_adamw **optimizer, syz_tensor *const params[], int64_t count,
                            syz_adamw_options options) {
    *optimizer = NULL;
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(check_options(&options));
    syz_adamw *a = syz_alloc(1, sizeof *a);
    if (!a) return SYZ_ENOMEM;
    a->options = options;
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_OPTIMIZER);
    syz_status status = fill(a, params, count);
    syz_memory_tag_swap(tag);
    if (status == SYZ_OK)
        *optimizer = a;
    else
        syz_adamw_free(a);
    return status;
}

void syz_adamw_free(syz_adamw *a) {
    if (!a) return;
    for (int64_t k = 0; a->states && k < a->params.count; k++)
        for (int kind = 0; kind < SYZ_ADAMW_STATES; kind++)
            syz_release(a->states[k].of[kind]);
    free(a->states);
    syz_group_free(&a->params);
    syz_release(a->norm);
    syz_release(a->factor);
    syz_release(a->squares);
    free(a);
}

/* ---- the step ---- */

static syz_adamw_numbers numbers_of(const syz_adamw_options *o, double lr, double t) {
    return (syz_adamw_numbers){
        .decay = (float)(1 - lr * o->weight_decay),
        .rest1 = (float)(1 - o->beta1),
        .beta2 = (float)o->beta2,
        .rest2 = (float)(1 - o->beta2),
        .step = (float)(lr / (1 - pow(o->beta1, t))),
        .root = (float)sqrt(1 - pow(o->beta2, t)),
        .eps = (float)o->eps,
    };
}

/* A parameter and what belongs to it, for one step. */
typedef struct {
    syz_tensor *p, *remainder;
    const float *g, *factor;
    syz_adamw_numbers numbers;
    uint64_t sequence; /* of the random rounding: another for each parameter and step */
    int64_t n;
} job;

static int step_8bit(const job *j, const state *s) {
    return syz_kernels_of(j->p)->adamw_8bit(syz_data(j->p), syz_data(j->remainder), syz_data(s->of[SYZ_ADAMW_M]),
                                            syz_data(s->of[SYZ_ADAMW_V]), syz_f32(s->of[SYZ_ADAMW_M_SCALE]),
                                            syz_f32(s->of[SYZ_ADAMW_V_SCALE]), j->g, j->factor, &j->numbers, 0,
                                            j->sequence, j->n);
}

/* 8-bit moments are stepped on a split master: an f32 parameter is split before and joined after, which is exact. */
static int step_8bit_f32(job j, const state *s) {
    const syz_backend *kernels = syz_kernels_of(j.p);
    syz_tensor *whole = j.p;
    j.p = syz_zeros_beside(whole, SYZ_BF16, whole->shape);
    j.remainder = syz_remainder_for(whole);
    if (!j.p || !j.remainder) return -1;
    int result = kernels->split_master(syz_data(j.p), syz_data(j.remainder), syz_f32(whole), j.n);
    if (result == 0) result = step_8bit(&j, s);
    if (result == 0) result = kernels->join_master(syz_f32(whole), syz_data(j.p), syz_data(j.remainder), j.n);
    return result;
}

static int run_step(const job *j, const state *s, syz_moments moments) {
    const syz_backend *kernels = syz_kernels_of(j->p);
    if (moments == SYZ_MOMENTS_8BIT) return j->remainder ? step_8bit(j, s) : step_8bit_f32(*j, s);
    float *m = syz_f32(s->of[SYZ_ADAMW_M]), *v = syz_f32(s->of[SYZ_ADAMW_V]);
    if (j->remainder)
        return kernels->adamw_split(syz_data(j->p), syz_data(j->remainder), m, v, j->g, j->factor, &j->numbers, j->n);
    return kernels->adamw(syz_f32(j->p), m, v, j->g, j->factor, &j->numbers, j->n);
}

static syz_status update(syz_adamw *a, int64_t k, double lr) {
    state *s = &a->states[k];
    syz_tensor *p = a->params.items[k];
    s->steps++;
    job j = {.p = p,
             .remainder = s->of[SYZ_ADAMW_REMAINDER],
             .g = syz_f32(p->grad),
             .factor = a->limited ? syz_f32(a->factor) : NULL,
             .numbers = numbers_of(&a->options, lr, (double)s->steps),
             .sequence = (uint64_t)k << 32 | (uint64_t)s->steps,
             .n = syz_numel(p)};
    SYZ_TRY(syz_scope_push());
    int result = run_step(&j, s, a->options.moments);
    syz_scope_pop();
    syz_touch(p);
    if (result == 0) return SYZ_OK;
    return syz_kernel_failed(syz_tensor_device(p), "adamw: the step of parameter %lld", (long long)k);
}

static syz_status check_gradients(const syz_adamw *a) {
    for (int64_t k = 0; k < a->params.count; k++) {
        const syz_tensor *grad = a->params.items[k]->grad;
        if (grad && grad->dtype != SYZ_F32)
            return syz_fail(SYZ_EDTYPE, "adamw: the gradient of parameter %lld is %s, not f32", (long long)k,
                            syz_dtype_name(grad->dtype));
    }
    return SYZ_OK;
}

syz_status syz_adamw_step(syz_adamw *a, double lr) {
    if (syz_failed()) return syz_error_status();
    if (!(lr >= 0)) return syz_fail(SYZ_EINVAL, "adamw: the learning rate %g must not be negative", lr);
    SYZ_TRY(check_gradients(a));
    for (int64_t k = 0; k < a->params.count; k++)
        if (a->params.items[k]->grad) SYZ_TRY(update(a, k, lr));
    a->limited = false;
    return SYZ_OK;
}

syz_status syz_adamw_limit(double *norm, syz_adamw *a, double max_norm) {
    *norm = 0;
    if (syz_failed()) return syz_error_status();
    if (a->params.count == 0) return SYZ_OK;
    SYZ_TRY(syz_measure_grads(a->norm, a->factor, a->squares, a->params.items, a->params.count, max_norm));
    a->limited = true;
    return syz_item(norm, a->norm);
}

void syz_adamw_zero_grad(syz_adamw *a) {
    a->limited = false;
    for (int64_t k = 0; k < a->params.count; k++)
        syz_set_grad(a->params.items[k], NULL);
}

/* ---- access ---- */

syz_adamw_options syz_adamw_get_options(const syz_adamw *a) {
    return a->options;
}

int64_t syz_adamw_count(const syz_adamw *a) {
    return a->params.count;
}

syz_tensor *const *syz_adamw_params(const syz_adamw *a) {
    return a->params.items;
}

int64_t syz_adamw_steps(const syz_adamw *a, int64_t index) {
    return a->states[index].steps;
}

void syz_adamw_set_steps(syz_adamw *a, int64_t index, int64_t steps) {
    a->states[index].steps = steps;
}

syz_tensor *syz_adamw_state(const syz_adamw *a, int64_t index, syz_adamw_state_kind kind) {
    if (a->options.moments == SYZ_MOMENTS_HOST) syz_synchronize(); /* kernels write what the CPU will read */
    return a->states[index].of[kind];
}

syz_tensor *syz_adamw_master(const syz_adamw *a, int64_t index) {
    if (syz_failed()) return NULL;
    return syz_join_master(a->params.items[index], a->states[index].of[SYZ_ADAMW_REMAINDER]);
}

syz_status syz_adamw_set_master(syz_adamw *a, int64_t index, const syz_tensor *master) {
    syz_tensor *p = a->params.items[index];
    if (syz_failed()) return syz_error_status();
    if (master->dtype != SYZ_F32 || !syz_shape_equal(master->shape, p->shape))
        return syz_fail(SYZ_ESHAPE, "adamw: the master of parameter %lld is f32 %s, not %s %s", (long long)index,
                        syz_dims(p), syz_dtype_name(master->dtype), syz_dims(master));
    return syz_split_master(p, a->states[index].of[SYZ_ADAMW_REMAINDER], master);
}
