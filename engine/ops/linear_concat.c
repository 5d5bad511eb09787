/* A linear layer of two inputs side by side that never lie side by side: each is multiplied with its own columns of the
 * weight. */
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/fp8.h"
#include "ops/ops.h"

#include <string.h>

enum { X, WEIGHT, BIAS, X2 };

typedef struct {
    int64_t rows, out, all, columns[2], begin[2]; /* all: columns of the weight; begin: of each input's columns */
} layer;

/* The weight's values as the products read them. */
typedef struct {
    const void *values;
    syz_dtype dtype;
    bool rounded; /* bf16 where the CPU's products are */
} weight;

/* ---- checks ---- */

static syz_status read_call(const syz_call *c, layer *s) {
    syz_shape x = c->in[X]->shape, x2 = c->in[X2]->shape, w = c->in[WEIGHT]->shape;
    SYZ_TRY(syz_need_real(c, X));
    SYZ_TRY(syz_need_real(c, X2));
    if (!syz_is_float(c->in[WEIGHT]->dtype) || c->in[WEIGHT]->dtype == SYZ_F64) SYZ_TRY(syz_need_real(c, WEIGHT));
    SYZ_TRY(syz_need_rank(c, WEIGHT, 2));
    bool same = x.n >= 1 && x.n == x2.n;
    for (int d = 0; same && d < x.n - 1; d++)
        same = x.dim[d] == x2.dim[d];
    if (!same || x.dim[x.n - 1] + x2.dim[x.n - 1] != w.dim[1])
        return syz_fail(SYZ_ESHAPE, "linear_concat: %s and %s side by side do not have the %lld features of weight %s",
                        syz_dims(c->in[X]), syz_dims(c->in[X2]), (long long)w.dim[1], syz_dims(c->in[WEIGHT]));
    if (syz_numel(c->in[X]) == 0 || syz_numel(c->in[X2]) == 0 || w.dim[0] == 0)
        return syz_fail(SYZ_ESHAPE, "linear_concat: %s, %s or weight %s is empty", syz_dims(c->in[X]),
                        syz_dims(c->in[X2]), syz_dims(c->in[WEIGHT]));
    *s = (layer){.out = w.dim[0], .all = w.dim[1], .columns = {x.dim[x.n - 1], x2.dim[x.n - 1]}};
    s->begin[1] = s->columns[0];
    s->rows = syz_numel(c->in[X]) / s->columns[0];
    if (!c->in[BIAS]) return SYZ_OK;
    SYZ_TRY(syz_need_real(c, BIAS));
    if (syz_shape_equal(c->in[BIAS]->shape, SYZ_SHAPE(s->out))) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "linear_concat: bias %s does not fit weight %s", syz_dims(c->in[BIAS]),
                    syz_dims(c->in[WEIGHT]));
}

/* ---- products ---- */

/* The kernel rounds packed operands only, and columns of a weight are none: here they are in bf16 before. */
static weight read_weight(const syz_call *c) {
    syz_tensor *t = c->in[WEIGHT];
    if (c->device != 0 || syz_matmul_precision() != SYZ_BF16) {
        t = t->dtype == c->real ? t : syz_cast(t, c->real);
        return (weight){t ? syz_data(t) : NULL, c->real, false};
    }
    if (t->dtype == SYZ_BF16) return (weight){syz_data(t), t->dtype, true};
    const uint16_t *kept = syz_rounded(t);
    const syz_tensor *rounded = kept ? NULL : syz_cast(t, SYZ_BF16);
    return (weight){kept ? kept : rounded ? syz_data(rounded) : NULL, SYZ_BF16, true};
}

/* y = a b + bias, or y += that; a has `k` columns without gaps, b begins at column `begin` of the weight, to be read
 * transposed or not. */
static syz_status multiply(const syz_call *c, syz_tensor *y, const syz_tensor *a, const weight *w, const layer *s,
                           int part, bool transposed, bool add, const syz_real *bias) {
    syz_product p;
    memset(&p, 0, sizeof p); /* its bytes are a key */
    p.batch = 1;
    p.m = s->rows;
    p.n = transposed ? s->out : s->columns[part];
    p.k = transposed ? s->columns[part] : s->out;
    p.a[1] = p.k;
    p.a[2] = 1;
    p.b[1] = transposed ? 1 : s->all;
    p.b[2] = transposed ? s->all : 1;
    p.bf16 = p.b_rounded = w->rounded;
    p.add = add;
    if (!y || !w->values) return syz_error_status();
    const char *b = (const char *)w->values + s->begin[part] * (int64_t)syz_dtype_size(w->dtype);
    syz_flops_count(2.0 * (double)p.m * (double)p.n * (double)p.k);
    return syz_ran(c, c->kernels->matmul(syz_data(y), syz_reals(a), b, bias, &p));
}

/* out = x w^T + bias of the first columns, and of the others what is added to it */
syz_status syz_forward_linear_concat(syz_call *c) {
    layer s;
    SYZ_TRY(read_call(c, &s));
    syz_shape shape = c->in[X]->shape;
    shape.dim[shape.n - 1] = s.out;
    const syz_real *bias = c->in[BIAS] ? syz_reals(c->in[BIAS]) : NULL;
    c->out = syz_empty(c->real, shape);
    if (syz_fp8_applies(c->in[X], c->in[WEIGHT], 0) && syz_fp8_applies(c->in[X2], c->in[WEIGHT], s.begin[1])) {
        SYZ_TRY(syz_fp8_product(c, c->out, c->in[X], c->in[WEIGHT], 0, bias, false, false));
        return syz_fp8_product(c, c->out, c->in[X2], c->in[WEIGHT], s.begin[1], NULL, true, false);
    }
    weight w = read_weight(c);
    SYZ_TRY(multiply(c, c->out, c->in[X], &w, &s, 0, true, false, bias));
    return multiply(c, c->out, c->in[X2], &w, &s, 1, true, true, NULL);
}

/* ---- backward ---- */

/* [x x2], which the gradient of the weight needs in one piece */
static syz_tensor *side_by_side(const syz_call *c, const layer *s) {
    syz_tensor *y = syz_empty(c->real, SYZ_SHAPE(s->rows, s->all));
    size_t size = syz_dtype_size(c->real);
    for (int part = 0; y && part < 2; part++) {
        syz_nest nest = {.n = 2, .dim = {s->rows, s->columns[part]}, .a = {s->columns[part], 1}, .b = {s->all, 1}};
        void *to = (char *)syz_data(y) + s->begin[part] * (int64_t)size;
        if (syz_ran(c, c->kernels->copy(to, syz_data(c->in[part ? X2 : X]), &nest, size)) != SYZ_OK) return NULL;
    }
    return y;
}

/* dweight = g^T [x x2], and with it dbias, the sum of the rows of g */
static syz_status weight_gradient(syz_call *c, const layer *s, syz_tensor *g, syz_tensor *gin[]) {
    syz_tensor *x = side_by_side(c, s), *bias = syz_empty(SYZ_F32, SYZ_SHAPE(s->out));
    syz_tensor *sum = syz_gradient_sum(c, WEIGHT, SYZ_F32);
    gin[WEIGHT] = sum ? sum : syz_empty(SYZ_F32, c->in[WEIGHT]->shape);
    if (syz_failed()) return syz_error_status();
    syz_product p;
    memset(&p, 0, sizeof p);
    p.batch = 1;
    p.m = s->out;
    p.n = s->all;
    p.k = s->rows;
    p.a[1] = p.b[2] = 1;
    p.a[2] = s->out;
    p.b[1] = s->all;
    p.bf16 = c->device == 0 && syz_matmul_precision() == SYZ_BF16;
    p.wide = c->real == SYZ_BF16;
    p.add = sum != NULL;
    if (c->needs[BIAS]) gin[BIAS] = bias;
    syz_flops_count(2.0 * (double)p.m * (double)p.n * (double)p.k);
    return syz_ran(
        c, c->kernels->matmul_bias_gradient(syz_f32(gin[WEIGHT]), syz_f32(bias), syz_reals(g), syz_reals(x), &p));
}

syz_status syz_backward_linear_concat(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    layer s;
    SYZ_TRY(read_call(c, &s));
    if (c->needs[X] || c->needs[X2]) {
        weight w = read_weight(c);
        for (int part = 0; part < 2; part++) {
            int k = part ? X2 : X;
            if (!c->needs[k]) continue;
            syz_tensor *sum = syz_gradient_sum(c, k, c->real);
            gin[k] = sum ? sum : syz_empty_like(c->in[k]);
            SYZ_TRY(multiply(c, gin[k], gout, &w, &s, part, false, sum != NULL, NULL));
        }
    }
    if (c->needs[WEIGHT]) return weight_gradient(c, &s, gout, gin);
    if (c->needs[BIAS]) gin[BIAS] = syz_sum(syz_view(gout, SYZ_SHAPE(s.rows, s.out)), SYZ_SHAPE(0), false);
    return SYZ_OK;
}
