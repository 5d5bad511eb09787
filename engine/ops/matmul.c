/* Matrix products: `linear` with PyTorch's weight layout, and batched `matmul`. */
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/fp8.h"
#include "ops/linear.h"
#include "ops/ops.h"

#include <string.h>

static bool want_bf16;

syz_status syz_set_matmul_precision(syz_dtype dtype) {
    if (dtype != SYZ_F32 && dtype != SYZ_BF16)
        return syz_fail(SYZ_EDTYPE, "matrix products compute in f32 or bf16, not %s", syz_dtype_name(dtype));
    want_bf16 = dtype == SYZ_BF16;
    return SYZ_OK;
}

syz_dtype syz_matmul_precision(void) {
    bool faster = false;
    return want_bf16 && syz_cpu.has_bf16(&faster) == 0 && faster ? SYZ_BF16 : SYZ_F32;
}

/* A stored matrix, or a batch of them: [batch, rows, cols], to be read transposed or not. */
typedef struct {
    const syz_real *data;
    int64_t batch, rows, cols;
    bool transposed;
    const uint16_t *rounded; /* the same values in bf16, where there are any, and then `data` may be NULL; or NULL */
} matrix;

static matrix flip(matrix a) {
    a.transposed = !a.transposed;
    return a;
}

/* What a product does besides. */
typedef struct {
    const syz_real *bias; /* added to every row, or NULL */
    bool gelu;            /* y becomes gelu_tanh(y) */
    syz_real *pre;        /* its argument, for the gradient; or NULL */
    float *row_sums;      /* those of a; or NULL. Not with the others */
    bool add;             /* y += the product; not with GELU */
} extras;

static int run_kernel(const syz_call *c, syz_tensor *y, const syz_real *a, const void *b, const extras *e,
                      const syz_product *p) {
    if (e->row_sums) return c->kernels->matmul_bias_gradient(syz_data(y), e->row_sums, a, b, p);
    if (e->gelu) return c->kernels->matmul_gelu(syz_data(y), e->pre, a, b, e->bias, p);
    return c->kernels->matmul(syz_data(y), a, b, e->bias, p);
}

/* The product of operands that meet in no element: zeros, or the bias. */
static syz_status multiply_nothing(const syz_call *c, syz_tensor *y, const extras *e, int64_t n) {
    void *to = e->pre ? (void *)e->pre : syz_data(y);
    if (e->bias) {
        syz_nest nest = {.n = 2, .dim = {syz_numel(y) / n, n}, .a = {0, 1}, .b = {n, 1}};
        SYZ_TRY(syz_ran(c, c->kernels->copy(to, e->bias, &nest, syz_dtype_size(y->dtype))));
    } else {
        SYZ_TRY(syz_device_zero(y->device, to, syz_nbytes(y)));
    }
    return e->gelu ? syz_ran(c, c->kernels->unary(syz_data(y), to, syz_numel(y), SYZ_UNARY_gelu_tanh)) : SYZ_OK;
}

/* y = a b, with extras unless they are NULL. The inner sizes agree; a batch of 1 is shared. */
static syz_status multiply(const syz_call *c, syz_tensor *y, matrix a, matrix b, const extras *e) {
    if (!y || syz_failed()) return syz_error_status();
    syz_product p;
    memset(&p, 0, sizeof p); /* its bytes are a key */
    p.batch = a.batch > b.batch ? a.batch : b.batch;
    p.m = a.transposed ? a.cols : a.rows;
    p.k = a.transposed ? a.rows : a.cols;
    p.n = b.transposed ? b.rows : b.cols;
    p.bf16 = c->device == 0 && syz_matmul_precision() == SYZ_BF16;
    p.add = e && e->add;
    p.wide = c->real == SYZ_BF16 && y->dtype == SYZ_F32;
    p.a[0] = a.batch == 1 ? 0 : a.rows * a.cols;
    p.b[0] = b.batch == 1 ? 0 : b.rows * b.cols;
    p.a[1] = a.transposed ? 1 : a.cols;
    p.a[2] = a.transposed ? a.cols : 1;
    p.b[1] = b.transposed ? 1 : b.cols;
    p.b[2] = b.transposed ? b.cols : 1;
    if (syz_numel(y) == 0) return SYZ_OK;
    static const extras nothing;
    if (!e) e = &nothing;
    if (p.k == 0) return e->add ? SYZ_OK : multiply_nothing(c, y, e, p.n);
    syz_flops_count(2.0 * (double)p.batch * (double)p.m * (double)p.n * (double)p.k);
    p.b_rounded = p.bf16 && b.rounded;
    const void *right = p.b_rounded ? (const void *)b.rounded : b.data;
    if (run_kernel(c, y, a.data, right, e, &p) != 0)
        return syz_fail(SYZ_EINTERNAL, "the product [%lld,%lld] x [%lld,%lld] failed in its kernel", (long long)p.m,
                        (long long)p.k, (long long)p.k, (long long)p.n);
    return SYZ_OK;
}

/* ---- linear ---- */

/* All leading dimensions together are the rows. */
static matrix rows_of(const syz_tensor *t) {
    syz_shape rows = t->shape;
    rows.n--;
    return (matrix){syz_data(t), 1, syz_shape_numel(rows), t->shape.dim[rows.n], false, NULL};
}

/* A frozen weight in bf16 or f16 is read as it is stored where products are in bf16, and otherwise through a copy that
 * lives as long as this product. No data when there is no memory for that. */
static matrix weight_of(const syz_call *c) {
    const syz_tensor *t = c->in[1];
    bool bf16 = c->device == 0 && syz_matmul_precision() == SYZ_BF16;
    syz_dtype wanted = bf16 && t->dtype != SYZ_F32 ? SYZ_BF16 : c->real;
    const syz_tensor *read = t->dtype == wanted ? t : syz_cast((syz_tensor *)t, wanted);
    if (!read) return (matrix){.batch = 1, .rows = t->shape.dim[0], .cols = t->shape.dim[1]};
    matrix weight = rows_of(read);
    if (wanted != c->real) {
        weight.rounded = syz_data(read);
    } else if (bf16) {
        weight.rounded = syz_rounded(read);
    }
    return weight;
}

/* y [...,O] = x [...,I] weight^T [I,O] + bias [O] */
syz_status syz_linear_product(syz_call *c, bool gelu) {
    syz_tensor *x = c->in[0], *weight = c->in[1], *bias = c->in[2];
    SYZ_TRY(syz_need_real(c, 0));
    if (!syz_is_float(weight->dtype) || weight->dtype == SYZ_F64) SYZ_TRY(syz_need_real(c, 1));
    SYZ_TRY(syz_need_rank(c, 1, 2));
    syz_shape shape = x->shape;
    if (shape.n < 1 || shape.dim[shape.n - 1] != weight->shape.dim[1])
        return syz_fail(SYZ_ESHAPE, "%s: input %s does not end in the %lld features of weight %s", syz_call_name(c),
                        syz_dims(x), (long long)weight->shape.dim[1], syz_dims(weight));
    if (bias) {
        SYZ_TRY(syz_need_real(c, 2));
        if (bias->shape.n != 1 || bias->shape.dim[0] != weight->shape.dim[0])
            return syz_fail(SYZ_ESHAPE, "%s: bias %s does not fit weight %s", syz_call_name(c), syz_dims(bias),
                            syz_dims(weight));
    }
    shape.dim[shape.n - 1] = weight->shape.dim[0];
    c->out = syz_empty(c->real, shape);
    extras e = {.bias = bias ? syz_reals(bias) : NULL, .gelu = gelu};
    if (syz_fp8_applies(x, weight, 0)) return syz_fp8_product(c, c->out, x, weight, 0, e.bias, false, gelu);
    if (gelu && (c->needs[0] || c->needs[1] || c->needs[2])) {
        if (!(c->saved[0] = syz_empty(c->real, shape))) return syz_error_status();
        e.pre = syz_reals(c->saved[0]);
    }
    return multiply(c, c->out, rows_of(x), flip(weight_of(c)), &e);
}

syz_status syz_forward_linear(syz_call *c) {
    return syz_linear_product(c, false);
}

/* Where the gradient of input k goes: a new tensor, or the sum that it is added to. */
static syz_tensor *gradient_of(const syz_call *c, int k, syz_dtype dtype, bool *add) {
    syz_tensor *sum = syz_gradient_sum(c, k, dtype);
    *add = sum != NULL;
    return sum ? sum : syz_empty(dtype, c->in[k]->shape);
}

/* dx = g weight, dweight = g^T x, dbias = sum of the rows of g: with dweight, where there is one */
syz_status syz_backward_linear(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    matrix g = rows_of(gout);
    extras input = {0}, e = {0};
    if (c->needs[0]) {
        gin[0] = gradient_of(c, 0, c->in[0]->dtype, &input.add);
        SYZ_TRY(multiply(c, gin[0], g, weight_of(c), &input));
    }
    if (c->needs[1] && c->needs[2] && syz_numel(c->in[0]) > 0) {
        if (!(gin[2] = syz_empty(SYZ_F32, SYZ_SHAPE(g.cols)))) return syz_error_status();
        e.row_sums = syz_f32(gin[2]);
    }
    if (c->needs[1]) {
        gin[1] = gradient_of(c, 1, SYZ_F32, &e.add);
        SYZ_TRY(multiply(c, gin[1], flip(g), rows_of(c->in[0]), &e));
    }
    if (c->needs[2] && !gin[2]) {
        syz_tensor *rows = syz_view(gout, SYZ_SHAPE(g.rows, g.cols));
        gin[2] = syz_sum(rows, SYZ_SHAPE(0), false);
    }
    return SYZ_OK;
}

/* ---- matmul ---- */

/* The last two dimensions are the matrix, those before it the batch. */
static matrix matrices_of(const syz_tensor *t, bool transposed) {
    syz_shape s = t->shape;
    matrix a = {syz_data(t), 1, s.dim[s.n - 2], s.dim[s.n - 1], transposed, NULL};
    for (int d = 0; d < s.n - 2; d++)
        a.batch *= s.dim[d];
    return a;
}

/* A shared b makes the batch of a into rows, unless they lie transposed. */
static matrix merge_rows(matrix a, int64_t batch_of_b) {
    if (batch_of_b == 1 && !a.transposed) {
        a.rows *= a.batch;
        a.batch = 1;
    }
    return a;
}

static syz_status check_matmul(const syz_call *c, syz_shape *shape) {
    syz_shape a = c->in[0]->shape, b = c->in[1]->shape;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_real(c, 1));
    bool fits = a.n >= 2 && b.n >= 2 && (b.n == 2 || b.n == a.n);
    for (int d = 0; fits && b.n > 2 && d < a.n - 2; d++)
        fits = a.dim[d] == b.dim[d];
    fits = fits && a.dim[c->i[0] ? a.n - 2 : a.n - 1] == b.dim[c->i[1] ? b.n - 1 : b.n - 2];
    if (!fits)
        return syz_fail(SYZ_ESHAPE, "matmul: %s%s and %s%s do not fit", syz_dims(c->in[0]),
                        c->i[0] ? " (transposed)" : "", syz_dims(c->in[1]), c->i[1] ? " (transposed)" : "");
    *shape = a;
    shape->dim[a.n - 2] = a.dim[c->i[0] ? a.n - 1 : a.n - 2];
    shape->dim[a.n - 1] = b.dim[c->i[1] ? b.n - 2 : b.n - 1];
    return SYZ_OK;
}

syz_status syz_forward_matmul(syz_call *c) {
    syz_shape shape;
    SYZ_TRY(check_matmul(c, &shape));
    matrix a = matrices_of(c->in[0], c->i[0]), b = matrices_of(c->in[1], c->i[1]);
    c->out = syz_empty(c->real, shape);
    return multiply(c, c->out, merge_rows(a, b.batch), b, NULL);
}

/* With A and B as they are multiplied: dA = g B^T and dB = A^T g; a transposed operand gets the transposed product. */
syz_status syz_backward_matmul(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    matrix a = matrices_of(c->in[0], c->i[0]), b = matrices_of(c->in[1], c->i[1]), g = matrices_of(gout, false);
    if (c->needs[0]) {
        gin[0] = syz_empty_like(c->in[0]);
        if (a.transposed)
            SYZ_TRY(multiply(c, gin[0], b, flip(g), NULL));
        else
            SYZ_TRY(multiply(c, gin[0], merge_rows(g, b.batch), flip(b), NULL));
    }
    if (!c->needs[1]) return SYZ_OK;
    syz_tensor *db = syz_empty_like(c->in[1]);
    bool summed = b.batch == 1 && a.batch > 1;
    if (summed && !a.transposed) { /* rows of all the batch at once: the product sums over them */
        a = merge_rows(a, 1);
        g = merge_rows(g, 1);
        summed = false;
    }
    if (summed) db = syz_empty(c->real, SYZ_SHAPE(a.batch, b.rows, b.cols));
    SYZ_TRY(b.transposed ? multiply(c, db, flip(g), a, NULL) : multiply(c, db, flip(a), g, NULL));
    gin[1] = summed ? syz_sum(db, SYZ_SHAPE(0), false) : db;
    return SYZ_OK;
}
