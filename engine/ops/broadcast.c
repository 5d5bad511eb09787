#include "ops/broadcast.h"

/* Steps of a contiguous tensor of shape `s` inside a result of n dimensions; 0 where it repeats. */
static void steps_in(int64_t *step, syz_shape s, int n) {
    int64_t stride = 1;
    for (int d = n - 1; d >= 0; d--) {
        int own = d - (n - s.n);
        int64_t size = own >= 0 ? s.dim[own] : 1;
        step[d] = size == 1 ? 0 : stride;
        stride *= size;
    }
}

void syz_nest_simplify(syz_nest *nest) {
    int out = nest->n - 1;
    for (int d = nest->n - 2; d >= 0; d--) {
        int64_t size = nest->dim[out];
        bool merge_a = nest->a[d] == nest->a[out] * size, merge_b = nest->b[d] == nest->b[out] * size;
        if (nest->dim[d] == 1) continue;
        if (nest->dim[out] == 1 || (merge_a && merge_b)) {
            if (nest->dim[out] == 1) {
                nest->a[out] = nest->a[d];
                nest->b[out] = nest->b[d];
            }
            nest->dim[out] *= nest->dim[d];
        } else {
            out--;
            nest->dim[out] = nest->dim[d];
            nest->a[out] = nest->a[d];
            nest->b[out] = nest->b[d];
        }
    }
    int n = nest->n - out;
    for (int d = 0; d < n; d++) {
        nest->dim[d] = nest->dim[out + d];
        nest->a[d] = nest->a[out + d];
        nest->b[d] = nest->b[out + d];
    }
    nest->n = n;
}

syz_status syz_broadcast(syz_nest *nest, syz_shape *shape, const syz_tensor *a, const syz_tensor *b, const char *name) {
    int n = a->shape.n > b->shape.n ? a->shape.n : b->shape.n;
    shape->n = n;
    for (int d = 0; d < n; d++) {
        int da = d - (n - a->shape.n), db = d - (n - b->shape.n);
        int64_t sa = da >= 0 ? a->shape.dim[da] : 1, sb = db >= 0 ? b->shape.dim[db] : 1;
        if (sa != sb && sa != 1 && sb != 1)
            return syz_fail(SYZ_ESHAPE, "%s: shapes %s and %s cannot be broadcast together", name, syz_dims(a),
                            syz_dims(b));
        shape->dim[d] = sa == 1 ? sb : sa;
    }
    *nest = (syz_nest){.n = n ? n : 1, .dim = {1}};
    for (int d = 0; d < n; d++)
        nest->dim[d] = shape->dim[d];
    steps_in(nest->a, a->shape, n);
    steps_in(nest->b, b->shape, n);
    syz_nest_simplify(nest);
    return SYZ_OK;
}

void syz_reduction_nest(syz_nest *nest, syz_shape from, syz_shape to) {
    *nest = (syz_nest){.n = from.n ? from.n : 1, .dim = {1}};
    for (int d = 0; d < from.n; d++)
        nest->dim[d] = from.dim[d];
    steps_in(nest->a, to, from.n);
    steps_in(nest->b, from, from.n);
    syz_nest_simplify(nest);
}

syz_tensor *syz_sum_to(const syz_call *c, syz_tensor *t, syz_shape shape) {
    if (!t || syz_shape_equal(t->shape, shape)) return t;
    syz_tensor *sum = syz_zeros(t->dtype, shape);
    if (!sum) return NULL;
    syz_nest nest;
    syz_reduction_nest(&nest, t->shape, shape);
    if (syz_numel(t) == 0 || c->kernels->sum(syz_reals(sum), syz_reals(t), &nest, 1.0f, syz_numel(sum)) == 0)
        return sum;
    (void)syz_kernel_failed(c->device, "the sum of %s to %s", syz_dims(t), syz_dims(sum));
    return NULL;
}
