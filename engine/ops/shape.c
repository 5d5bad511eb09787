/* Operations that only move elements, of any dtype. Their gradients move them back. */
#include "kernels/kernels.h"
#include "ops/broadcast.h"
#include "ops/ops.h"

static void contiguous_steps(int64_t *step, syz_shape s) {
    int64_t stride = 1;
    for (int d = s.n - 1; d >= 0; d--) {
        step[d] = stride;
        stride *= s.dim[d];
    }
}

/* y[y_offset + steps of nest.b] = x[x_offset + steps of nest.a], offsets in elements. A failure is left pending. */
static void copy(const syz_call *c, syz_tensor *y, int64_t y_offset, const syz_tensor *x, int64_t x_offset,
                 syz_nest *nest) {
    size_t size = syz_dtype_size(y->dtype);
    for (int d = 0; d < nest->n; d++)
        if (nest->dim[d] == 0) return;
    syz_nest_simplify(nest);
    if (c->kernels->copy((char *)syz_data(y) + y_offset * (int64_t)size,
                         (const char *)syz_data(x) + x_offset * (int64_t)size, nest, size) != 0)
        (void)syz_kernel_failed(c->device, "copying %s into %s", syz_dims(x), syz_dims(y));
}

static syz_status need_dim(const syz_call *c, int64_t *dim, syz_shape s) {
    int64_t asked = *dim;
    if (syz_dim_normalize(dim, s.n)) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "%s: there is no dimension %lld in shape %s", syz_call_name(c), (long long)asked,
                    syz_dims(c->in[0]));
}

/* Sums want f32: halves go through it. `sum` is f32; the result has `dtype`. */
static syz_tensor *as_f32(syz_tensor *t) {
    return t->dtype == SYZ_F32 ? t : syz_cast(t, SYZ_F32);
}

static syz_tensor *as_dtype(syz_tensor *t, syz_dtype dtype) {
    return !t || t->dtype == dtype ? t : syz_cast(t, dtype);
}

/* ---- reshape ---- */

syz_status syz_forward_reshape(syz_call *c) {
    syz_shape s = c->shape;
    int unknown = -1;
    int64_t known = 1, n = syz_numel(c->in[0]);
    for (int d = 0; d < s.n; d++) {
        if (s.dim[d] == -1 && unknown >= 0) return syz_fail(SYZ_ESHAPE, "reshape: only one size may be -1");
        if (s.dim[d] == -1)
            unknown = d;
        else if (__builtin_mul_overflow(known, s.dim[d], &known))
            return syz_fail(SYZ_ESHAPE, "reshape: the shape is larger than the address space");
    }
    if (unknown >= 0 && known > 0 && n % known == 0) s.dim[unknown] = n / known;
    if (syz_shape_numel(s) != n || (unknown >= 0 && s.dim[unknown] < 0)) {
        char text[96];
        return syz_fail(SYZ_ESHAPE, "reshape: %s has %lld elements and cannot become %s", syz_dims(c->in[0]),
                        (long long)n, syz_shape_text(c->shape, text, sizeof text));
    }
    c->out = syz_view(c->in[0], s);
    return c->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_reshape(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    gin[0] = syz_view(gout, c->in[0]->shape);
    return SYZ_OK;
}

/* ---- permute, transpose ---- */

static syz_tensor *permuted(const syz_call *c, syz_tensor *x, syz_shape dims) {
    int64_t step[SYZ_MAX_DIMS];
    syz_nest nest = {.n = 1, .dim = {1}, .a = {1}, .b = {1}};
    syz_shape shape = {.n = dims.n};
    contiguous_steps(step, x->shape);
    for (int d = 0; d < dims.n; d++) {
        shape.dim[d] = nest.dim[d] = x->shape.dim[dims.dim[d]];
        nest.a[d] = step[dims.dim[d]];
    }
    if (dims.n) nest.n = dims.n;
    contiguous_steps(nest.b, shape);
    syz_tensor *y = syz_empty(x->dtype, shape);
    if (y) copy(c, y, 0, x, 0, &nest);
    return y;
}

static syz_status permutation(const syz_call *c, syz_shape *dims) {
    *dims = c->shape;
    int n = c->in[0]->shape.n;
    bool seen[SYZ_MAX_DIMS] = {false};
    bool valid = dims->n == n;
    for (int d = 0; valid && d < n; d++) {
        valid = syz_dim_normalize(&dims->dim[d], n) && !seen[dims->dim[d]];
        if (valid) seen[dims->dim[d]] = true;
    }
    if (valid) return SYZ_OK;
    char text[96];
    return syz_fail(SYZ_ESHAPE, "permute: %s is not an order of the %d dimensions of %s",
                    syz_shape_text(c->shape, text, sizeof text), n, syz_dims(c->in[0]));
}

syz_status syz_forward_permute(syz_call *c) {
    syz_shape dims;
    SYZ_TRY(permutation(c, &dims));
    c->out = permuted(c, c->in[0], dims);
    return c->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_permute(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_shape dims, inverse;
    SYZ_TRY(permutation(c, &dims));
    inverse.n = dims.n;
    for (int d = 0; d < dims.n; d++)
        inverse.dim[dims.dim[d]] = d;
    gin[0] = permuted(c, gout, inverse);
    return SYZ_OK;
}

static syz_status swap(const syz_call *c, syz_shape *dims) {
    int64_t d0 = c->i[0], d1 = c->i[1];
    syz_shape s = c->in[0]->shape;
    SYZ_TRY(need_dim(c, &d0, s));
    SYZ_TRY(need_dim(c, &d1, s));
    dims->n = s.n;
    for (int d = 0; d < s.n; d++)
        dims->dim[d] = d == d0 ? d1 : d == d1 ? d0 : d;
    return SYZ_OK;
}

syz_status syz_forward_transpose(syz_call *c) {
    syz_shape dims;
    SYZ_TRY(swap(c, &dims));
    c->out = permuted(c, c->in[0], dims);
    return c->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_transpose(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_shape dims;
    SYZ_TRY(swap(c, &dims));
    gin[0] = permuted(c, gout, dims);
    return SYZ_OK;
}

/* ---- concat, slice ---- */

/* The nest over `part`, a stretch along some dimension of a tensor of shape `whole`: steps in whole, steps in part. */
static syz_nest stretch(syz_shape whole, syz_shape part) {
    syz_nest nest = {.n = part.n};
    for (int d = 0; d < part.n; d++)
        nest.dim[d] = part.dim[d];
    contiguous_steps(nest.a, whole);
    contiguous_steps(nest.b, part);
    return nest;
}

static int64_t stride_of(syz_shape s, int64_t dim) {
    int64_t stride = 1;
    for (int d = s.n - 1; d > dim; d--)
        stride *= s.dim[d];
    return stride;
}

/* part = whole[.., start .. start + size of part, ..] along dim */
static void read_stretch(const syz_call *c, syz_tensor *part, const syz_tensor *whole, int64_t dim, int64_t start) {
    syz_nest nest = stretch(whole->shape, part->shape);
    copy(c, part, 0, whole, start * stride_of(whole->shape, dim), &nest);
}

static void write_stretch(const syz_call *c, syz_tensor *whole, const syz_tensor *part, int64_t dim, int64_t start) {
    syz_nest read = stretch(whole->shape, part->shape), nest = read;
    for (int d = 0; d < nest.n; d++) {
        nest.a[d] = read.b[d];
        nest.b[d] = read.a[d];
    }
    copy(c, whole, start * stride_of(whole->shape, dim), part, 0, &nest);
}

static bool joinable(syz_shape a, syz_shape b, int64_t dim) {
    if (a.n != b.n) return false;
    b.dim[dim] = a.dim[dim];
    return syz_shape_equal(a, b);
}

syz_status syz_forward_concat(syz_call *c) {
    if (c->nin == 0) return syz_fail(SYZ_EINVAL, "concat: the list is empty");
    syz_shape shape = c->in[0]->shape;
    int64_t dim = c->i[0], start = 0;
    SYZ_TRY(need_dim(c, &dim, shape));
    shape.dim[dim] = 0;
    for (int k = 0; k < c->nin; k++) {
        if (!joinable(c->in[0]->shape, c->in[k]->shape, dim))
            return syz_fail(SYZ_ESHAPE, "concat: shapes %s and %s differ outside dimension %lld", syz_dims(c->in[0]),
                            syz_dims(c->in[k]), (long long)dim);
        SYZ_TRY(syz_need_dtype(c, k, c->in[0]->dtype));
        shape.dim[dim] += c->in[k]->shape.dim[dim];
    }
    if (!(c->out = syz_empty(c->in[0]->dtype, shape))) return syz_error_status();
    for (int k = 0; k < c->nin; k++) {
        write_stretch(c, c->out, c->in[k], dim, start);
        start += c->in[k]->shape.dim[dim];
    }
    return SYZ_OK;
}

syz_status syz_backward_concat(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    int64_t dim = c->i[0], start = 0;
    SYZ_TRY(need_dim(c, &dim, gout->shape));
    for (int k = 0; k < c->nin; k++) {
        if (c->needs[k]) {
            if (!(gin[k] = syz_empty(gout->dtype, c->in[k]->shape))) return syz_error_status();
            read_stretch(c, gin[k], gout, dim, start);
        }
        start += c->in[k]->shape.dim[dim];
    }
    return SYZ_OK;
}

static int64_t position(int64_t p, int64_t n) {
    if (p < 0) p += n;
    return p < 0 ? 0 : p > n ? n : p;
}

syz_status syz_forward_slice(syz_call *c) {
    syz_shape shape = c->in[0]->shape;
    int64_t dim = c->i[0];
    SYZ_TRY(need_dim(c, &dim, shape));
    int64_t start = position(c->i[1], shape.dim[dim]), stop = position(c->i[2], shape.dim[dim]);
    shape.dim[dim] = stop > start ? stop - start : 0;
    if (!(c->out = syz_empty(c->in[0]->dtype, shape))) return syz_error_status();
    read_stretch(c, c->out, c->in[0], dim, start);
    return SYZ_OK;
}

/* dx += gout in the rows that were taken; each of `outer` pieces lies together. */
static syz_status add_stretch(const syz_call *c, syz_tensor *dx, const syz_tensor *gout, int64_t dim, int64_t start) {
    int64_t inner = stride_of(dx->shape, dim), whole = dx->shape.dim[dim] * inner, part = gout->shape.dim[dim] * inner;
    const syz_backend *kernels = syz_device_kernels(dx->device, dx->dtype);
    int64_t size = (int64_t)syz_dtype_size(dx->dtype), outer = part ? syz_numel(gout) / part : 0;
    for (int64_t n = 0; n < outer; n++) {
        void *to = (char *)syz_data(dx) + (n * whole + start * inner) * size;
        const void *from = (char *)syz_data(gout) + n * part * size;
        SYZ_TRY(syz_ran(c, kernels->axpy(to, from, 1, part)));
    }
    return SYZ_OK;
}

enum { WORTH_A_CALL = 4096 }; /* elements */

/* A stretch adds to what the other stretches left, where it can: each of them would else be a tensor of zeros. */
syz_status syz_backward_slice(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_shape shape = c->in[0]->shape;
    int64_t dim = c->i[0];
    SYZ_TRY(need_dim(c, &dim, shape));
    int64_t start = position(c->i[1], shape.dim[dim]), part = gout->shape.dim[dim] * stride_of(shape, dim);
    bool together = part >= WORTH_A_CALL || part == syz_numel(gout);
    if (together && (gin[0] = syz_gradient_sum(c, 0, gout->dtype))) return add_stretch(c, gin[0], gout, dim, start);
    if (!(gin[0] = syz_zeros(gout->dtype, shape))) return syz_error_status();
    write_stretch(c, gin[0], gout, dim, start);
    return SYZ_OK;
}

/* ---- slice_view ---- */

/* A slice whose elements lie together is a view. */
syz_status syz_forward_slice_view(syz_call *c) {
    syz_shape shape = c->in[0]->shape;
    int64_t dim = c->i[0];
    SYZ_TRY(need_dim(c, &dim, shape));
    int64_t start = position(c->i[1], shape.dim[dim]), stop = position(c->i[2], shape.dim[dim]);
    int64_t stride = stride_of(shape, dim);
    if (stop <= start || syz_numel(c->in[0]) != shape.dim[dim] * stride) return syz_forward_slice(c);
    shape.dim[dim] = stop - start;
    c->out = syz_view_from(c->in[0], start * stride, shape);
    return syz_error_status();
}

syz_status syz_backward_slice_view(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    return syz_backward_slice(c, gout, gin);
}

/* ---- broadcast_to ---- */

syz_status syz_forward_broadcast_to(syz_call *c) {
    syz_tensor *x = c->in[0];
    syz_shape to = c->shape;
    syz_nest nest = {.n = to.n ? to.n : 1, .dim = {1}, .a = {1}, .b = {1}};
    bool fits = x->shape.n <= to.n;
    int64_t stride = 1;
    for (int d = to.n - 1; fits && d >= 0; d--) {
        int own = d - (to.n - x->shape.n);
        int64_t size = own >= 0 ? x->shape.dim[own] : 1;
        fits = size == to.dim[d] || size == 1;
        nest.dim[d] = to.dim[d];
        nest.a[d] = size == 1 ? 0 : stride;
        stride *= size;
    }
    if (!fits) {
        char text[96];
        return syz_fail(SYZ_ESHAPE, "broadcast_to: shape %s cannot become %s", syz_dims(x),
                        syz_shape_text(to, text, sizeof text));
    }
    contiguous_steps(nest.b, to);
    if (!(c->out = syz_empty(x->dtype, to))) return syz_error_status();
    copy(c, c->out, 0, x, 0, &nest);
    return SYZ_OK;
}

syz_status syz_backward_broadcast_to(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    gin[0] = as_dtype(syz_sum_to(c, as_f32(gout), c->in[0]->shape), gout->dtype);
    return SYZ_OK;
}

/* ---- index_select ---- */

/* Sizes before and after `dim`. */
static void around(syz_shape s, int64_t dim, int64_t *outer, int64_t *inner) {
    *outer = 1;
    for (int d = 0; d < dim; d++)
        *outer *= s.dim[d];
    *inner = stride_of(s, dim);
}

syz_status syz_forward_index_select(syz_call *c) {
    syz_tensor *x = c->in[0], *ids = c->in[1];
    syz_shape shape = x->shape;
    int64_t dim = c->i[0], outer, inner;
    SYZ_TRY(syz_need_dtype(c, 1, SYZ_I64));
    SYZ_TRY(syz_need_rank(c, 1, 1));
    SYZ_TRY(need_dim(c, &dim, shape));
    for (int64_t k = 0; k < syz_numel(ids) && ids->device == 0; k++) /* a GPU trusts them */
        if (syz_i64(ids)[k] < 0 || syz_i64(ids)[k] >= shape.dim[dim])
            return syz_fail(SYZ_EINVAL, "index_select: index %lld is outside 0..%lld", (long long)syz_i64(ids)[k],
                            (long long)shape.dim[dim] - 1);
    around(shape, dim, &outer, &inner);
    shape.dim[dim] = syz_numel(ids);
    const int64_t *index = syz_indices(c, 1);
    if (!index || !(c->out = syz_empty(x->dtype, shape))) return syz_error_status();
    return syz_ran(c, c->kernels->gather(syz_data(c->out), syz_data(x), index, outer, x->shape.dim[dim], syz_numel(ids),
                                         (size_t)inner * syz_dtype_size(x->dtype)));
}

syz_status syz_backward_index_select(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_shape shape = c->in[0]->shape;
    int64_t dim = c->i[0], outer, inner;
    SYZ_TRY(need_dim(c, &dim, shape));
    around(shape, dim, &outer, &inner);
    syz_tensor *g = as_f32(gout), *dx = syz_zeros(SYZ_F32, shape);
    const int64_t *index = syz_indices(c, 1);
    if (!g || !dx || !index) return syz_error_status();
    SYZ_TRY(syz_ran(c, c->kernels->scatter_add(syz_f32(dx), syz_reals(g), index, outer, shape.dim[dim],
                                               syz_numel(c->in[1]), inner)));
    gin[0] = as_dtype(dx, gout->dtype);
    return SYZ_OK;
}
