/* The catalogue's table and the one path that every operation takes: check, run forward, record. */
#include "autograd/node.h"
#include "core/threads.h"
#include "ops/ops.h"

#include <stdarg.h>
#include <string.h>

#define K0     1u
#define K1     2u
#define K2     4u
#define K3     8u
#define ALL    0xfffu
#define ANY    SYZ_OP_ANY_DTYPE
#define NOGRAD SYZ_OP_NO_GRAD
#define HALF0  SYZ_OP_HALF_0
#define HALF1  SYZ_OP_HALF_1
#define NONE   0

#define WEIGHTS      SYZ_OP_WEIGHTS
#define F32_FROM(k_) ((k_) << SYZ_OP_F32_SHIFT)

const syz_op syz_ops[] = {
#define OP(name_, signature_, keeps_, flags_, params_, args_)                                                          \
    {.name = #name_,                                                                                                   \
     .signature = signature_,                                                                                          \
     .params = #params_,                                                                                               \
     .keeps = keeps_,                                                                                                  \
     .flags = flags_,                                                                                                  \
     .forward = syz_forward_##name_,                                                                                   \
     .backward = ((flags_)&SYZ_OP_NO_GRAD) ? NULL : syz_backward_##name_},
#include "ops/ops.def"
#undef OP
};

/* ---- the catalogue, for scripts ---- */

int syz_op_count(void) {
    return SYZ_OP_checkpointed; /* that one and what follows it are internal */
}

const char *syz_op_name(int op) {
    return syz_ops[op].name;
}

const char *syz_op_signature(int op) {
    return syz_ops[op].signature;
}

const char *syz_op_params(int op) {
    return syz_ops[op].params;
}

/* ---- checks ---- */

syz_status syz_need_rank(const syz_call *call, int k, int rank) {
    if (call->in[k]->shape.n == rank) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "%s: argument %d has shape %s, %d dimensions are needed", syz_call_name(call), k + 1,
                    syz_dims(call->in[k]), rank);
}

syz_status syz_need_same_shape(const syz_call *call, int j, int k) {
    if (syz_shape_equal(call->in[j]->shape, call->in[k]->shape)) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "%s: shapes %s and %s must be equal", syz_call_name(call), syz_dims(call->in[j]),
                    syz_dims(call->in[k]));
}

syz_status syz_need_dtype(const syz_call *call, int k, syz_dtype dtype) {
    if (call->in[k]->dtype == dtype) return SYZ_OK;
    return syz_fail(SYZ_EDTYPE, "%s: argument %d is %s, %s is needed", syz_call_name(call), k + 1,
                    syz_dtype_name(call->in[k]->dtype), syz_dtype_name(dtype));
}

syz_status syz_need_real(const syz_call *call, int k) {
    return syz_need_dtype(call, k, call->real);
}

const int64_t *syz_indices(const syz_call *call, int k) {
    syz_tensor *near = syz_copy_to(call->in[k], call->device);
    return near ? syz_i64(near) : NULL;
}

syz_status syz_need_dim(const syz_call *call, int64_t *dim) {
    long long asked = *dim;
    if (syz_dim_normalize(dim, call->in[0]->shape.n)) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "%s: there is no dimension %lld in shape %s", syz_call_name(call), asked,
                    syz_dims(call->in[0]));
}

syz_status syz_ran(const syz_call *call, int result) {
    if (result == 0) return SYZ_OK;
    return syz_kernel_failed(call->device, "%s of %s", syz_call_name(call), syz_dims(call->in[0]));
}

syz_status syz_attention_failed(const syz_call *call, const char *what, const syz_tensor *t) {
    if (call->device) return syz_kernel_failed(call->device, "%s of %s", syz_call_name(call), syz_dims(t));
    return syz_fail(SYZ_ENOMEM, "%s: no memory for %s of %s", syz_call_name(call), what, syz_dims(t));
}

/* ---- argument lists ---- */

static syz_status add_input(syz_call *call, syz_tensor *t, bool optional) {
    if (call->nin == SYZ_MAX_INPUTS)
        return syz_fail(SYZ_EINVAL, "%s takes at most %d tensors", syz_call_name(call), SYZ_MAX_INPUTS);
    if (!t && !optional) return syz_fail(SYZ_EINVAL, "%s: argument %d is missing", syz_call_name(call), call->nin + 1);
    if (t && !syz_alive(t))
        return syz_fail(SYZ_EINVAL,
                        "%s: argument %d was freed when its scope ended: return it from the step, or :keep() it",
                        syz_call_name(call), call->nin + 1);
    call->in[call->nin++] = t;
    return SYZ_OK;
}

static syz_status bind_arguments(syz_call *call, const syz_arg *args) {
    int ints = 0, numbers = 0;
    for (const char *letter = syz_ops[call->op].signature; *letter; letter++, args++) {
        switch (*letter) {
        case 'T':
        case 't':
            SYZ_TRY(add_input(call, args->tensor, *letter == 't'));
            break;
        case 'L':
            for (int64_t k = 0; k < args->integer; k++)
                SYZ_TRY(add_input(call, args->list[k], false));
            break;
        case 'i':
        case 'b':
            call->i[ints++] = args->integer;
            break;
        case 'f':
            call->f[numbers++] = args->number;
            break;
        case 'S':
            call->shape = args->shape;
            break;
        }
    }
    return SYZ_OK;
}

/* ---- running ---- */

static bool is_half(const syz_tensor *t) {
    return t && (t->dtype == SYZ_BF16 || t->dtype == SYZ_F16);
}

/* A tensor of the tape, and not a table that is f32 whatever the tape holds. */
static bool is_real(const syz_call *call, int k) {
    unsigned from = syz_ops[call->op].flags >> SYZ_OP_F32_SHIFT;
    return call->in[k] && (is_half(call->in[k]) || call->in[k]->dtype == SYZ_F32) && (from == 0 || k < (int)from);
}

static bool stays_half(const syz_call *call, int k) {
    int flag = k == 0 ? SYZ_OP_HALF_0 : k == 1 ? SYZ_OP_HALF_1 : 0;
    return (syz_ops[call->op].flags & flag) && !syz_requires_grad(call->in[k]);
}

/* What a call computes in: f32 on the CPU; on a GPU bf16 when all its inputs are, or when the first is and the others
 * are its weights. */
static syz_dtype real_of(const syz_call *call) {
    unsigned flags = syz_ops[call->op].flags;
    bool any = false;
    if (call->device == 0 || (flags & SYZ_OP_ANY_DTYPE)) return SYZ_F32;
    if (flags & SYZ_OP_WEIGHTS) return call->in[0]->dtype == SYZ_BF16 ? SYZ_BF16 : SYZ_F32;
    for (int k = 0; k < call->nin; k++) {
        if (!is_real(call, k)) continue;
        if (call->in[k]->dtype != SYZ_BF16) return SYZ_F32;
        any = true;
    }
    return any ? SYZ_BF16 : SYZ_F32;
}

/* Inputs of another type are cast (a recorded operation, so gradients flow), and an f32 result is cast back when every
 * floating-point input was half-precision, as type promotion would have it. A frozen weight has no say in that: half
 * precision is how it is stored, not how a model computes. */
static syz_tensor *run_converted(syz_call *call) {
    bool cast = false, back = true;
    syz_dtype half = SYZ_BF16;
    for (int k = 0; k < call->nin; k++) {
        syz_tensor *in = call->in[k];
        if (is_half(in) && stays_half(call, k)) continue;
        if (is_half(in)) half = in->dtype;
        back = back && (!in || is_half(in) || !syz_is_float(in->dtype));
        bool table = in && !is_real(call, k) && is_half(in); /* what is f32 by contract */
        if (!table && !(is_real(call, k) && in->dtype != call->real)) continue;
        cast = true;
        call->in[k] = syz_cast(in, table ? SYZ_F32 : call->real);
        if (!call->in[k]) return NULL;
    }
    syz_tensor *out = syz_run(call);
    return cast && back && out && out->dtype == SYZ_F32 && call->real == SYZ_F32 ? syz_cast(out, half) : out;
}

static bool is_index(const syz_tensor *t) {
    return t->dtype == SYZ_I64 || t->dtype == SYZ_I32;
}

/* The device of all inputs; indices on the CPU do not count, unless there is nothing else. */
static syz_status find_device(syz_call *call) {
    int first = -1;
    call->device = 0;
    for (int k = 0; k < call->nin; k++) {
        const syz_tensor *t = call->in[k];
        if (!t || (t->device == 0 && is_index(t))) continue;
        if (first >= 0 && t->device != call->device)
            return syz_fail(SYZ_EINVAL, "%s: argument %d lies on %s, argument %d on %s: move one with :to()",
                            syz_call_name(call), first + 1, syz_device_text(call->device), k + 1,
                            syz_device_text(t->device));
        if (first < 0) first = k;
        call->device = t->device;
    }
    return SYZ_OK;
}

static bool mark_needs(syz_call *call) {
    bool any = false;
    for (int k = 0; k < call->nin; k++)
        any |= call->needs[k] = call->in[k] && syz_requires_grad(call->in[k]);
    return any;
}

syz_tensor *syz_run(syz_call *call) {
    if (syz_failed() || syz_check_cancel() != SYZ_OK || syz_scope_push() != SYZ_OK) return NULL;
    const syz_op *op = &syz_ops[call->op];
    bool record = syz_grad_enabled() && !(op->flags & SYZ_OP_NO_GRAD) && (mark_needs(call) || call->segment);
    call->kernels = syz_device_kernels(call->device, call->real);
    int device = syz_device_swap(call->device);
    syz_status status = syz_device_select(call->device);
    if (status == SYZ_OK) status = op->forward(call);
    syz_device_swap(device);
    if (status == SYZ_OK && syz_failed()) status = syz_error_status();
    if (status == SYZ_OK && record) status = syz_record(call);
    syz_tensor *out = status == SYZ_OK ? syz_scope_return(call->out) : NULL;
    syz_scope_pop();
    return out;
}

syz_tensor *syz_op_apply(int op, const syz_arg *args) {
    if (syz_failed()) return NULL;
    if (op < 0 || op >= SYZ_OP_COUNT) return syz_fail_null(SYZ_EINVAL, "there is no operation number %d", op);
    syz_call call = {.op = op};
    if (bind_arguments(&call, args) != SYZ_OK || find_device(&call) != SYZ_OK) return NULL;
    call.real = real_of(&call);
    bool convert = false;
    for (int k = 0; k < call.nin; k++)
        convert |= call.in[k] && (is_half(call.in[k]) || (is_real(&call, k) && call.in[k]->dtype != call.real));
    return convert && !(syz_ops[op].flags & SYZ_OP_ANY_DTYPE) ? run_converted(&call) : syz_run(&call);
}

/* ---- syz_<name>() ---- */

static syz_tensor *apply(int op, ...) {
    syz_arg args[16] = {{0}}, *arg = args;
    va_list values;
    va_start(values, op);
    for (const char *letter = syz_ops[op].signature; *letter; letter++, arg++) {
        if (*letter == 'T' || *letter == 't') arg->tensor = va_arg(values, syz_tensor *);
        if (*letter == 'i' || *letter == 'b') arg->integer = va_arg(values, int64_t);
        if (*letter == 'f') arg->number = va_arg(values, double);
        if (*letter == 'S') arg->shape = va_arg(values, syz_shape);
        if (*letter == 'L') {
            arg->list = va_arg(values, syz_tensor *const *);
            arg->integer = va_arg(values, int64_t);
        }
    }
    va_end(values);
    return syz_op_apply(op, args);
}

#define UNPACK(...) __VA_ARGS__
#define OP(name, signature, keeps, flags, params, args)                                                                \
    syz_tensor *syz_##name params {                                                                                    \
        return apply(SYZ_OP_##name, UNPACK args);                                                                      \
    }
#include "ops/ops.def"
#undef OP
