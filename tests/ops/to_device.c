/* The device that the tests run on, from the CPU and back. */
#include "check.h"

static syz_tensor *there_and_back(syz_tensor *const in[]) {
    syz_tensor *there = syz_to_device(in[0], check_device());
    return syz_to_device(syz_mul(there, there), 0);
}

static void values_and_gradients(void **state) {
    (void)state;
    syz_tensor *x = syz_copy_to(check_randn(SYZ_SHAPE(3, 5), 1), 0), *y;
    syz_set_requires_grad(x, true);
    check_ok(y = there_and_back(&x));
    assert_int_equal(syz_tensor_device(y), 0);
    check_close(y, syz_square(x), 0);
    check_gradients(there_and_back, &x, 1, 1e-2, 1e-3);
    assert_int_equal(syz_tensor_device(syz_to_device(x, check_device())), check_device());
}

static void devices_do_not_mix(void **state) {
    (void)state;
    check_fails(syz_to_device(check_randn(SYZ_SHAPE(2), 1), 999), check_device() ? SYZ_EINVAL : SYZ_EUNSUPPORTED);
    if (!check_device()) return;
    syz_tensor *there = check_randn(SYZ_SHAPE(2), 1), *here = syz_copy_to(there, 0);
    (void)syz_add(there, here);
    assert_int_equal(syz_error_status(), SYZ_EINVAL);
    assert_string_equal(syz_error_message(),
                        "add: argument 1 lies on cuda:0, argument 2 on the CPU: move one with :to()");
    syz_error_clear();
}

/* A parameter moves with its gradient and stays the tensor that it is. */
static void moving_in_place(void **state) {
    (void)state;
    syz_tensor *x = syz_copy_to(check_randn(SYZ_SHAPE(7), 1), 0), *before = syz_copy(x);
    syz_set_grad(x, syz_copy(x));
    assert_int_equal(syz_move(x, check_device()), SYZ_OK);
    assert_int_equal(syz_tensor_device(x), check_device());
    assert_int_equal(syz_tensor_device(syz_grad(x)), check_device());
    assert_int_equal(syz_move(x, 0), SYZ_OK);
    check_close(x, before, 0);
    check_close(syz_grad(x), before, 0);
}

/* The report names what the memory is used for, and the settings that need less. */
static void a_full_device(void **state) {
    (void)state;
    if (!check_device()) return;
    syz_device_use use;
    syz_memory_tag tag = syz_memory_tag_swap(SYZ_MEMORY_WEIGHTS);
    syz_tensor *held = check_randn(SYZ_SHAPE(1 << 20), 1);
    syz_memory_tag_swap(tag);
    assert_int_equal(syz_device_memory(check_device(), &use), SYZ_OK);
    assert_true(use.live >= syz_nbytes(held));
    syz_device_limit(check_device(), use.live + 1000);
    (void)syz_square(held);
    assert_int_equal(syz_error_status(), SYZ_ENOMEM);
    assert_non_null(strstr(syz_error_message(), "out of memory on cuda:0"));
    assert_non_null(strstr(syz_error_message(), "weights"));
    assert_non_null(strstr(syz_error_message(), "dtype = \"bf16\""));
    syz_error_clear();
    syz_device_limit(check_device(), 0);
    check_ok(syz_square(held)); /* and nothing is lost */
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(values_and_gradients), CHECK_TEST(devices_do_not_mix),
                                       CHECK_TEST(moving_in_place), CHECK_TEST(a_full_device)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
