#include "ops/reference.h"

static syz_tensor *cosine, *sine;

static void make_tables(void) {
    syz_tensor *ids = check_tensor(SYZ_SHAPE(4, 3), 0, 0, 0, 0, 1, 2, 1, 3, 0, 0, 7, 5);
    assert_int_equal(syz_rope_table(&cosine, &sine, ids, (int64_t[]){2, 4, 4}, 3, 10000), SYZ_OK);
}

static syz_tensor *f_rope(syz_tensor *const in[]) {
    return syz_rope(in[0], cosine, sine);
}

static void gradients(void **state) {
    (void)state;
    make_tables();
    check_gradients(f_rope, (syz_tensor *[]){check_leaf(SYZ_SHAPE(2, 4, 3, 10), 1)}, 1, 1e-2, 1e-3);
}

/* A rotation by position * theta^(-2k/D) of each pair. */
static void rotation(void **state) {
    (void)state;
    make_tables();
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 4, 3, 10), 2), *y = f_rope(&x);
    check_ok(y);
    const double position[5] = {0, 7, 7, 5, 5}, exponent[5] = {0, 0, 0.5, 0, 0.5};
    for (int64_t k = 0; k < 5; k++) { /* the last token of the last sample, head 1 */
        const float *from = check_f32(x) + ((1 * 4 + 3) * 3 + 1) * 10 + 2 * k;
        const float *to = check_f32(y) + ((1 * 4 + 3) * 3 + 1) * 10 + 2 * k;
        double angle = position[k] * pow(10000, -exponent[k]);
        assert_float_equal(to[0], from[0] * cos(angle) - from[1] * sin(angle), 1e-6);
        assert_float_equal(to[1], from[1] * cos(angle) + from[0] * sin(angle), 1e-6);
    }
}

static void timesteps(void **state) {
    (void)state;
    syz_tensor *y = syz_timestep_embedding(check_tensor(SYZ_SHAPE(2), 0, 3), 4);
    check_close(
        y, check_tensor(SYZ_SHAPE(2, 4), 1, 1, 0, 0, (float)cos(3), (float)cos(0.03), (float)sin(3), (float)sin(0.03)),
        1e-6);
}

static void mismatches_are_named(void **state) {
    (void)state;
    make_tables();
    check_fails(syz_rope(check_randn(SYZ_SHAPE(2, 5, 3, 10), 1), cosine, sine), SYZ_ESHAPE);
    check_fails(syz_rope(check_randn(SYZ_SHAPE(2, 4, 3, 8), 1), cosine, sine), SYZ_ESHAPE);
    syz_tensor *ids = check_tensor(SYZ_SHAPE(1, 2), 0, 0), *a, *b;
    check_fails(syz_rope_table(&a, &b, ids, (int64_t[]){2, 4, 4}, 3, 10000), SYZ_ESHAPE);
    check_fails(syz_rope_table(&a, &b, ids, (int64_t[]){3, 4}, 2, 10000), SYZ_ESHAPE);
    check_fails(syz_timestep_embedding(check_tensor(SYZ_SHAPE(1), 1), 5), SYZ_EINVAL);
}

/* diffusers' tables hold each value twice in a row. */
static syz_tensor *each_once(syz_tensor *table) {
    syz_shape s = SYZ_SHAPE(table->shape.dim[0], table->shape.dim[1] / 2, 2);
    return syz_reshape(syz_slice(syz_reshape(table, s), 2, 0, 1), SYZ_SHAPE(s.dim[0], s.dim[1]));
}

static void diffusers(void **state) {
    (void)state;
    syz_tensor *ids = reference("rope_axes", "ids");
    assert_int_equal(syz_rope_table(&cosine, &sine, ids, (int64_t[]){4, 6, 6}, 3, 10000), SYZ_OK);
    check_close(cosine, each_once(reference("rope_axes", "output_cos")), 1e-7);
    check_close(sine, each_once(reference("rope_axes", "output_sin")), 1e-7);
    syz_tensor *x = reference_leaf("rope", "input"); /* [B, heads, S, D] */
    syz_tensor *y = syz_transpose(syz_rope(syz_transpose(x, 1, 2), cosine, sine), 1, 2);
    check_reference("rope", y, &x, (const char *[]){"input"}, 1, 1e-6);
    syz_tensor *embedded = syz_timestep_embedding(reference("timesteps", "timestep"), 256);
    check_close(embedded, reference("timesteps", "output"), 2e-4); /* the reference's angles are f32 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(diffusers),
        CHECK_TEST(gradients),
        CHECK_TEST(rotation),
        CHECK_TEST(timesteps),
        CHECK_TEST(mismatches_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
