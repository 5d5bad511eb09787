/* Rows by number: token embeddings, and the one token that stands for a text. */
#include "kernels/kernels.h"
#include "ops/ops.h"

static syz_status check_index(const syz_call *c, int64_t rows) {
    SYZ_TRY(syz_need_dtype(c, 1, SYZ_I64));
    if (c->in[1]->device) return SYZ_OK; /* reading them would make the CPU wait; a GPU trusts them */
    const int64_t *index = syz_i64(c->in[1]);
    for (int64_t i = 0; i < syz_numel(c->in[1]); i++)
        if (index[i] < 0 || index[i] >= rows)
            return syz_fail(SYZ_EINVAL, "%s: index %lld is not in 0..%lld", syz_call_name(c), (long long)index[i],
                            (long long)rows - 1);
    return SYZ_OK;
}

static syz_status backward(syz_call *c, syz_tensor *gout, syz_tensor *gin[], int64_t step, int64_t width) {
    const int64_t *index = syz_indices(c, 1);
    if (!index || !(gin[0] = syz_zeros(SYZ_F32, c->in[0]->shape))) return syz_error_status();
    return syz_ran(c,
                   c->kernels->scatter_rows(syz_f32(gin[0]), syz_reals(gout), index, step, syz_numel(c->in[1]), width));
}

/* Rows of a frozen bf16 or f16 table: only those that are asked for become f32. */
static syz_status convert_rows(syz_call *c, const int64_t *ids) {
    syz_tensor *table = c->in[0], *rows = syz_empty(table->dtype, c->out->shape);
    size_t row = (size_t)table->shape.dim[1] * syz_dtype_size(table->dtype);
    if (!rows) return syz_error_status();
    SYZ_TRY(syz_ran(
        c, c->kernels->gather(syz_data(rows), syz_data(table), ids, 1, table->shape.dim[0], syz_numel(c->in[1]), row)));
    return syz_ran(c, c->kernels->cast(syz_data(c->out), SYZ_F32, syz_data(rows), (int)rows->dtype, syz_numel(rows)));
}

/* out [...,C] = weight[ids] */
syz_status syz_forward_embedding(syz_call *c) {
    SYZ_TRY(syz_need_rank(c, 0, 2));
    bool half = c->in[0]->dtype != c->real && (c->in[0]->dtype == SYZ_BF16 || c->in[0]->dtype == SYZ_F16);
    if (!half) SYZ_TRY(syz_need_real(c, 0));
    const int64_t *n = c->in[0]->shape.dim;
    SYZ_TRY(check_index(c, n[0]));
    syz_shape shape = c->in[1]->shape;
    if (shape.n == SYZ_MAX_DIMS)
        return syz_fail(SYZ_ESHAPE, "embedding: ids %s have no room for one more dimension", syz_dims(c->in[1]));
    shape.dim[shape.n++] = n[1];
    const int64_t *ids = syz_indices(c, 1);
    if (!ids || !(c->out = syz_empty(c->real, shape))) return syz_error_status();
    if (half) return convert_rows(c, ids);
    return syz_ran(c,
                   c->kernels->gather_rows(syz_reals(c->out), syz_reals(c->in[0]), ids, 0, syz_numel(c->in[1]), n[1]));
}

/* A table's rows repeat in a batch: their gradients add up. */
syz_status syz_backward_embedding(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return backward(c, gout, gin, 0, c->in[0]->shape.dim[1]);
}

/* out [B,C] = x[b, index[b]] */
syz_status syz_forward_gather_rows(syz_call *c) {
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_rank(c, 0, 3));
    SYZ_TRY(syz_need_rank(c, 1, 1));
    const int64_t *n = c->in[0]->shape.dim;
    if (c->in[1]->shape.dim[0] != n[0])
        return syz_fail(SYZ_ESHAPE, "gather_rows: %s needs one index per sample, not %s", syz_dims(c->in[0]),
                        syz_dims(c->in[1]));
    SYZ_TRY(check_index(c, n[1]));
    const int64_t *index = syz_indices(c, 1);
    if (!index || !(c->out = syz_empty(c->real, SYZ_SHAPE(n[0], n[2])))) return syz_error_status();
    return syz_ran(c, c->kernels->gather_rows(syz_reals(c->out), syz_reals(c->in[0]), index, n[1], n[0], n[2]));
}

syz_status syz_backward_gather_rows(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return backward(c, gout, gin, c->in[0]->shape.dim[1], c->in[0]->shape.dim[2]);
}
