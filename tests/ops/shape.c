#include "check.h"

static syz_tensor *counting(syz_shape shape) {
    syz_tensor *t = syz_host_zeros(SYZ_F32, shape);
    for (int64_t i = 0; i < syz_numel(t); i++)
        syz_f32(t)[i] = (float)i;
    return check_placed(t);
}

static syz_tensor *f_reshape(syz_tensor *const in[]) {
    return syz_square(syz_reshape(in[0], SYZ_SHAPE(4, -1)));
}
static syz_tensor *f_permute(syz_tensor *const in[]) {
    return syz_permute(in[0], SYZ_SHAPE(2, 0, 1));
}
static syz_tensor *f_transpose(syz_tensor *const in[]) {
    return syz_transpose(in[0], 0, -1);
}
static syz_tensor *f_concat(syz_tensor *const in[]) {
    return syz_concat(in, 2, 1);
}
static syz_tensor *f_slice(syz_tensor *const in[]) {
    return syz_slice(in[0], 1, 1, -1);
}
static syz_tensor *f_broadcast_to(syz_tensor *const in[]) {
    return syz_broadcast_to(syz_reshape(in[0], SYZ_SHAPE(2, 1, 12)), SYZ_SHAPE(3, 2, 5, 12));
}
static syz_tensor *f_index_select(syz_tensor *const in[]) {
    return syz_index_select(in[0], -2, check_ids(SYZ_SHAPE(5), 1, 0, 1, 2, 1));
}

static void gradients(void **state) {
    (void)state;
    check_function functions[] = {f_reshape, f_permute, f_transpose, f_concat, f_slice, f_broadcast_to, f_index_select};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        syz_tensor *in[] = {check_leaf(SYZ_SHAPE(2, 3, 4), 1), check_leaf(SYZ_SHAPE(2, 2, 4), 2)};
        check_gradients(functions[f], in, functions[f] == f_concat ? 2 : 1, 1e-2, 1e-3);
    }
}

/* Half-precision gradients pass through operations that handle every dtype. */
static void half_gradients(void **state) {
    (void)state;
    check_function functions[] = {f_permute, f_slice, f_broadcast_to, f_index_select};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        syz_tensor *grads[2];
        for (int half = 0; half < 2; half++) {
            syz_tensor *x = syz_cast(syz_cast(check_randn(SYZ_SHAPE(2, 3, 4), 1), SYZ_BF16), half ? SYZ_BF16 : SYZ_F32);
            syz_set_requires_grad(x, true);
            syz_tensor *y = functions[f]((syz_tensor *[]){x});
            check_ok(y);
            assert_int_equal(y->dtype, x->dtype);
            assert_int_equal(syz_backward(y, syz_full(y->dtype, y->shape, 0.5)), SYZ_OK);
            assert_int_equal(x->grad->dtype, SYZ_F32); /* a leaf's is f32 whatever the leaf is */
            grads[half] = x->grad;
        }
        check_close(grads[1], grads[0], 0); /* small multiples of 0.5 are exact */
    }
}

static void reshape_shares_memory(void **state) {
    (void)state;
    syz_tensor *x = counting(SYZ_SHAPE(2, 6)), *y = syz_reshape(x, SYZ_SHAPE(3, -1, 2));
    check_ok(y);
    assert_ptr_equal(syz_data(x), syz_data(y));
    assert_true(syz_shape_equal(y->shape, SYZ_SHAPE(3, 2, 2)));
    check_fails(syz_reshape(x, SYZ_SHAPE(5, -1)), SYZ_ESHAPE);
    check_fails(syz_reshape(x, SYZ_SHAPE(-1, -1)), SYZ_ESHAPE);
    check_fails(syz_reshape(x, SYZ_SHAPE(13)), SYZ_ESHAPE);
    check_fails(syz_reshape(x, SYZ_SHAPE(-2, -6)), SYZ_ESHAPE);
}

/* One sample's rows are a view; rows of several samples are not. Stretches add their gradients to each other's. */
static void slice_views(void **state) {
    (void)state;
    for (int64_t batch = 1; batch < 3; batch++)
        for (int64_t width = 3; width < 9000; width += 8000) {
            syz_shape shape = SYZ_SHAPE(batch, 5, width);
            syz_tensor *x = check_leaf(shape, 1), *same = check_leaf(shape, 1), *loss = NULL, *expected = NULL;
            for (int64_t k = 0; k < 3; k++) {
                syz_tensor *view = syz_slice_view(syz_affine(x, 2, 0), 1, k, k + 2);
                syz_tensor *copy = syz_slice(syz_affine(same, 2, 0), 1, k, k + 2);
                check_ok(view);
                assert_memory_equal(check_f32(view), check_f32(copy), syz_nbytes(copy));
            }
            syz_tensor *y = syz_affine(x, 2, 0), *weight = check_randn(SYZ_SHAPE(batch, 2, width), 2);
            bool shared = syz_data(syz_slice_view(y, 1, 2, 4)) == (void *)((float *)syz_data(y) + 2 * width);
            assert_int_equal(shared, batch == 1);
            for (int64_t k = 0; k < 3; k++) {
                syz_tensor *part = syz_sum(syz_mul(syz_slice_view(y, 1, k, k + 2), weight), SYZ_SHAPE(0, 1, 2), false);
                loss = loss ? syz_add(loss, part) : part;
                part =
                    syz_sum(syz_mul(syz_affine(syz_slice(same, 1, k, k + 2), 2, 0), weight), SYZ_SHAPE(0, 1, 2), false);
                expected = expected ? syz_add(expected, part) : part;
            }
            assert_int_equal(syz_backward(loss, NULL), SYZ_OK);
            assert_int_equal(syz_backward(expected, NULL), SYZ_OK);
            check_close(x->grad, same->grad, 1e-6);
        }
    syz_tensor *x = counting(SYZ_SHAPE(4, 2)), *y = syz_slice_view(syz_slice_view(x, 0, 1, 4), 0, -2, 3);
    assert_int_equal(syz_numel(y), 4);
    assert_true(syz_data(y) == (void *)((float *)syz_data(x) + 4));
    assert_true(syz_data(syz_reshape(y, SYZ_SHAPE(4))) == syz_data(y));
    assert_int_equal(syz_numel(syz_slice_view(x, 0, 3, 1)), 0);
    check_fails(syz_slice_view(x, 2, 0, 1), SYZ_ESHAPE);
}

/* Against index arithmetic, over shapes that take every path: runs, tiles, single elements, several threads. */
static void permute_values(void **state) {
    (void)state;
    static const struct {
        syz_shape shape, dims;
    } cases[] = {
        {SYZ_SHAPE(3, 4), SYZ_SHAPE(1, 0)},
        {SYZ_SHAPE(70, 65), SYZ_SHAPE(1, 0)},
        {SYZ_SHAPE(3, 100, 190), SYZ_SHAPE(0, 2, 1)},
        {SYZ_SHAPE(2, 4, 2, 4, 2, 16), SYZ_SHAPE(0, 1, 3, 5, 2, 4)},
        {SYZ_SHAPE(5, 33, 4, 64), SYZ_SHAPE(0, 2, 1, 3)},
        {SYZ_SHAPE(2, 3, 2, 5), SYZ_SHAPE(3, 1, 0, 2)},
        {SYZ_SHAPE(2, 3, 5, 1), SYZ_SHAPE(3, 2, 1, 0)},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        syz_tensor *x = counting(cases[k].shape), *y = syz_permute(x, cases[k].dims);
        check_ok(y);
        int64_t step[6], stride = 1, n = cases[k].shape.n;
        for (int64_t d = n - 1; d >= 0; d--) {
            step[d] = stride;
            stride *= x->shape.dim[d];
        }
        const float *from = check_f32(x), *to = check_f32(y);
        for (int64_t i = 0; i < syz_numel(y); i++) {
            int64_t rest = i, at = 0;
            for (int64_t d = n - 1; d >= 0; d--) {
                at += rest % y->shape.dim[d] * step[cases[k].dims.dim[d]];
                rest /= y->shape.dim[d];
            }
            assert_true(to[i] == from[at]);
        }
    }
    check_fails(syz_permute(counting(SYZ_SHAPE(2, 3)), SYZ_SHAPE(0, 0)), SYZ_ESHAPE);
}

static void every_element_size(void **state) {
    (void)state;
    syz_tensor *x = counting(SYZ_SHAPE(9, 13)), *y = syz_transpose(x, 0, 1);
    syz_dtype dtypes[] = {SYZ_U8, SYZ_BF16, SYZ_F64, SYZ_I64, SYZ_I32};
    for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++)
        check_close(syz_cast(syz_transpose(syz_cast(x, dtypes[k]), -1, -2), SYZ_F32), y, 0);
}

static void concat_and_slice_values(void **state) {
    (void)state;
    syz_tensor *x = counting(SYZ_SHAPE(2, 3));
    check_close(syz_slice(x, -1, 1, 3), check_tensor(SYZ_SHAPE(2, 2), 1, 2, 4, 5), 0);
    check_close(syz_slice(x, 0, -1, 1000), check_tensor(SYZ_SHAPE(1, 3), 3, 4, 5), 0);
    assert_int_equal(syz_numel(syz_slice(x, 0, 2, 1)), 0);
    syz_tensor *parts[] = {x, syz_slice(x, 1, 0, 1), x};
    check_close(syz_concat(parts, 3, -1), check_tensor(SYZ_SHAPE(2, 7), 0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 3, 3, 4, 5), 0);
    check_fails(syz_concat(parts, 2, 0), SYZ_ESHAPE);
    check_fails(syz_concat(parts, 0, 0), SYZ_EINVAL);
    check_fails(syz_slice(x, 2, 0, 1), SYZ_ESHAPE);
}

static void other_values(void **state) {
    (void)state;
    syz_tensor *x = counting(SYZ_SHAPE(2, 1));
    check_close(syz_broadcast_to(x, SYZ_SHAPE(2, 2, 3)),
                check_tensor(SYZ_SHAPE(2, 2, 3), 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1), 0);
    check_fails(syz_broadcast_to(x, SYZ_SHAPE(3, 1)), SYZ_ESHAPE);
    check_fails(syz_broadcast_to(x, SYZ_SHAPE(2)), SYZ_ESHAPE);
    syz_tensor *ids = check_ids(SYZ_SHAPE(3), 1, 1, 0);
    check_close(syz_index_select(x, 0, ids), check_tensor(SYZ_SHAPE(3, 1), 1, 1, 0), 0);
    check_fails(syz_index_select(x, 1, ids), SYZ_EINVAL);
    check_fails(syz_index_select(x, 0, x), SYZ_EDTYPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(gradients),
        CHECK_TEST(half_gradients),
        CHECK_TEST(reshape_shares_memory),
        CHECK_TEST(slice_views),
        CHECK_TEST(permute_values),
        CHECK_TEST(every_element_size),
        CHECK_TEST(concat_and_slice_values),
        CHECK_TEST(other_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
