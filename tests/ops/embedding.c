#include "check.h"

static syz_tensor *f_embedding(syz_tensor *const in[]) {
    return syz_embedding(in[0], check_ids(SYZ_SHAPE(2, 3), 4, 0, 4, 1, 4, 3));
}
static syz_tensor *f_gather_rows(syz_tensor *const in[]) {
    return syz_gather_rows(in[0], check_ids(SYZ_SHAPE(3), 1, 0, 1));
}

static void gradients(void **state) {
    (void)state;
    syz_tensor *weight[] = {check_leaf(SYZ_SHAPE(5, 3), 1)}, *x[] = {check_leaf(SYZ_SHAPE(3, 2, 4), 2)};
    check_gradients(f_embedding, weight, 1, 1e-2, 1e-3);
    check_gradients(f_gather_rows, x, 1, 1e-2, 1e-3);
}

static void values(void **state) {
    (void)state;
    syz_tensor *t = check_tensor(SYZ_SHAPE(3, 2), 1, 2, 3, 4, 5, 6);
    syz_tensor *ids = check_ids(SYZ_SHAPE(2, 1), 2, 0);
    check_close(syz_embedding(t, ids), check_tensor(SYZ_SHAPE(2, 1, 2), 5, 6, 1, 2), 0);
    syz_tensor *x = check_tensor(SYZ_SHAPE(2, 2, 1), 1, 2, 3, 4), *index = check_ids(SYZ_SHAPE(2), 1, 0);
    check_close(syz_gather_rows(x, index), check_tensor(SYZ_SHAPE(2, 1), 2, 3), 0);
}

static void frozen_half_tables(void **state) {
    (void)state;
    static const syz_dtype dtypes[] = {SYZ_BF16, SYZ_F16};
    syz_tensor *ids = check_ids(SYZ_SHAPE(2, 2), 2, 0, 4, 2);
    for (int k = 0; k < 2; k++) {
        syz_tensor *half = syz_cast(check_randn(SYZ_SHAPE(5, 3), 1), dtypes[k]);
        syz_tensor *y = syz_embedding(half, ids);
        check_ok(y);
        assert_int_equal(y->dtype, check_device() && dtypes[k] == SYZ_BF16 ? SYZ_BF16 : SYZ_F32);
        check_close(syz_cast(y, SYZ_F32), syz_embedding(syz_cast(half, SYZ_F32), ids), 0);
        syz_set_requires_grad(half, true);
        assert_true(syz_requires_grad(syz_embedding(half, ids)));
    }
}

/* Wide enough for several strips and threads: each row's gradient is the count of its uses. */
static void repeated_rows_add_up(void **state) {
    (void)state;
    enum { USES = 900, WIDTH = 200 };
    int64_t ids[USES];
    for (int i = 0; i < USES; i++)
        ids[i] = i % 7 == 0 ? 0 : 1 + i % 2;
    syz_tensor *weight = check_leaf(SYZ_SHAPE(4, WIDTH), 1);
    syz_tensor *y = syz_embedding(weight, syz_from(SYZ_I64, SYZ_SHAPE(USES), ids));
    check_ok(y);
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
    float uses[4] = {0};
    for (int i = 0; i < USES; i++)
        uses[ids[i]]++;
    const float *grad = check_f32(weight->grad);
    for (int i = 0; i < 4 * WIDTH; i++)
        assert_true(grad[i] == uses[i / WIDTH]);
}

static void outside_the_table(void **state) {
    (void)state;
    syz_tensor *t = check_randn(SYZ_SHAPE(3, 2), 1), *x = check_randn(SYZ_SHAPE(1, 3, 2), 1);
    check_fails(syz_embedding(t, check_ids(SYZ_SHAPE(1), 3)), SYZ_EINVAL);
    check_fails(syz_embedding(t, check_ids(SYZ_SHAPE(1), -1)), SYZ_EINVAL);
    check_fails(syz_gather_rows(x, check_ids(SYZ_SHAPE(1), 3)), SYZ_EINVAL);
    check_fails(syz_gather_rows(x, check_ids(SYZ_SHAPE(2), 0, 0)), SYZ_ESHAPE);
    check_fails(syz_embedding(t, t), SYZ_EDTYPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(gradients), CHECK_TEST(values), CHECK_TEST(frozen_half_tables),
                                       CHECK_TEST(repeated_rows_add_up), CHECK_TEST(outside_the_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
