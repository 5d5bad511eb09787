/* Convolution and nearest-neighbour upsampling of [N,H,W,C] images. */
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/broadcast.h"
#include "ops/ops.h"

#include <string.h>

static syz_status check_shapes(const syz_call *c) {
    syz_tensor *x = c->in[0], *weight = c->in[1], *bias = c->in[2];
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_real(c, 1));
    SYZ_TRY(syz_need_rank(c, 0, 4));
    SYZ_TRY(syz_need_rank(c, 1, 4));
    if (x->shape.dim[3] != weight->shape.dim[1])
        return syz_fail(SYZ_ESHAPE, "conv2d: images %s have %lld channels, weight %s takes %lld", syz_dims(x),
                        (long long)x->shape.dim[3], syz_dims(weight), (long long)weight->shape.dim[1]);
    if (!bias) return SYZ_OK;
    SYZ_TRY(syz_need_real(c, 2));
    if (bias->shape.n == 1 && bias->shape.dim[0] == weight->shape.dim[0]) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "conv2d: bias %s does not fit weight %s", syz_dims(bias), syz_dims(weight));
}

static syz_status convolution(const syz_call *c, syz_conv *v) {
    memset(v, 0, sizeof *v); /* its bytes are a key */
    SYZ_TRY(check_shapes(c));
    const int64_t *x = c->in[0]->shape.dim, *weight = c->in[1]->shape.dim;
    for (int k = 0; k < 5; k++)
        if (c->i[k] < (k == 0) || c->i[k] > 1 << 20)
            return syz_fail(SYZ_EINVAL, "conv2d: %s %lld is out of range", k ? "padding" : "stride",
                            (long long)c->i[k]);
    *v = (syz_conv){.n = x[0], .h = x[1], .w = x[2], .c = x[3], .o = weight[0], .kh = weight[2], .kw = weight[3]};
    v->stride = c->i[0];
    v->top = c->i[1];
    v->left = c->i[2];
    v->bottom = c->i[3];
    v->right = c->i[4];
    int64_t down = v->h + v->top + v->bottom - v->kh, across = v->w + v->left + v->right - v->kw;
    if (down < 0 || across < 0 || syz_numel(c->in[0]) == 0 || syz_numel(c->in[1]) == 0)
        return syz_fail(SYZ_ESHAPE, "conv2d: weight %s does not fit into images %s", syz_dims(c->in[1]),
                        syz_dims(c->in[0]));
    v->out_h = down / v->stride + 1;
    v->out_w = across / v->stride + 1;
    /* Rows that no window reaches: oneDNN wants the paddings to add up. */
    v->bottom -= down % v->stride;
    v->right -= across % v->stride;
    v->bf16 = syz_matmul_precision() == SYZ_BF16;
    return SYZ_OK;
}

/* Each of the three products, forward or backward, multiplies and adds this often. */
static void count(const syz_conv *v) {
    syz_flops_count(2.0 * (double)(v->n * v->out_h * v->out_w) * (double)(v->o * v->c * v->kh * v->kw));
}

static syz_status failed(const syz_call *c) {
    return syz_kernel_failed(c->device, "conv2d of %s by %s", syz_dims(c->in[0]), syz_dims(c->in[1]));
}

syz_status syz_forward_conv2d(syz_call *c) {
    syz_conv v;
    SYZ_TRY(convolution(c, &v));
    if (!(c->out = syz_empty(c->real, SYZ_SHAPE(v.n, v.out_h, v.out_w, v.o)))) return syz_error_status();
    count(&v);
    int result = c->kernels->conv2d(syz_reals(c->out), syz_reals(c->in[0]), syz_reals(c->in[1]),
                                    c->in[2] ? syz_reals(c->in[2]) : NULL, &v);
    return result == 0 ? SYZ_OK : failed(c);
}

syz_status syz_backward_conv2d(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_conv v;
    SYZ_TRY(convolution(c, &v));
    if (c->needs[0]) {
        if (!(gin[0] = syz_empty_like(c->in[0]))) return syz_error_status();
        count(&v);
        if (c->kernels->conv2d_input_gradient(syz_reals(gin[0]), syz_reals(gout), syz_reals(c->in[1]), &v) != 0)
            return failed(c);
    }
    if (c->needs[1]) {
        if (!(gin[1] = syz_empty(SYZ_F32, c->in[1]->shape))) return syz_error_status();
        if (c->needs[2] && !(gin[2] = syz_empty(SYZ_F32, c->in[2]->shape))) return syz_error_status();
        count(&v);
        if (c->kernels->conv2d_weight_gradient(syz_f32(gin[1]), gin[2] ? syz_f32(gin[2]) : NULL, syz_reals(gout),
                                               syz_reals(c->in[0]), &v) != 0)
            return failed(c);
    } else if (c->needs[2]) {
        gin[2] = syz_sum_to(c, gout, c->in[2]->shape);
    }
    return SYZ_OK;
}

/* ---- upsample_nearest ---- */

syz_status syz_forward_upsample_nearest(syz_call *c) {
    int64_t factor = c->i[0];
    SYZ_TRY(syz_need_rank(c, 0, 4));
    if (factor < 1 || factor > 1 << 10)
        return syz_fail(SYZ_EINVAL, "upsample_nearest: factor %lld is not in 1..1024", (long long)factor);
    const int64_t *x = c->in[0]->shape.dim;
    c->out = syz_empty(c->in[0]->dtype, SYZ_SHAPE(x[0], x[1] * factor, x[2] * factor, x[3]));
    if (!c->out) return syz_error_status();
    /* a repeated row and a repeated cell are dimensions along which x stands still */
    syz_nest nest = {.n = 5,
                     .dim = {x[0] * x[1], factor, x[2], factor, x[3]},
                     .a = {x[2] * x[3], 0, x[3], 0, 1},
                     .b = {factor * x[2] * factor * x[3], x[2] * factor * x[3], factor * x[3], x[3], 1}};
    if (syz_numel(c->out) == 0) return SYZ_OK;
    syz_nest_simplify(&nest);
    return syz_ran(c, c->kernels->copy(syz_data(c->out), syz_data(c->in[0]), &nest, syz_dtype_size(c->out->dtype)));
}

syz_status syz_backward_upsample_nearest(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_tensor *g = gout->dtype == SYZ_F32 ? gout : syz_cast(gout, SYZ_F32);
    syz_tensor *dx = syz_empty(SYZ_F32, c->in[0]->shape);
    if (!g || !dx) return syz_error_status();
    const int64_t *x = dx->shape.dim;
    SYZ_TRY(syz_ran(c, c->kernels->upsample_gradient(syz_reals(dx), syz_reals(g), x[0] * x[1], x[2], x[3], c->i[0])));
    gin[0] = gout->dtype == SYZ_F32 ? dx : syz_cast(dx, gout->dtype);
    return SYZ_OK;
}
