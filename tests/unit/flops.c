/* The count of floating-point operations: its values, and whose they are. */
#include "core/flops.h"
#include "check.h"

static const char text_config[] = "{\"architectures\": [\"CLIPTextModelWithProjection\"], \"hidden_size\": 8,"
                                  "\"intermediate_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 2,"
                                  "\"vocab_size\": 20, \"max_position_embeddings\": 6, \"projection_dim\": 4,"
                                  "\"eos_token_id\": 2}";

/* 3 texts of 6 tokens through 2 layers of width 8 and inner width 12, then a projection to 4 */
static const double layers = 2 * (2 * 18 * (4 * 8 * 8 + 2 * 8 * 12) + 4 * 3 * 6 * 6 * 8), projection = 2 * 3 * 8 * 4;

static double counted_since(double before) {
    return syz_flops() - before;
}

static void products_and_convolutions(void **state) {
    (void)state;
    syz_tensor *x = check_leaf(SYZ_SHAPE(2, 3, 5), 1), *weight = check_leaf(SYZ_SHAPE(7, 5), 2);
    double before = syz_flops();
    syz_tensor *y = syz_linear(x, weight, NULL);
    assert_true(counted_since(before) == 2 * 6 * 5 * 7);
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
    assert_true(counted_since(before) == 3 * 2 * 6 * 5 * 7);

    before = syz_flops();
    syz_tensor *image = check_leaf(SYZ_SHAPE(2, 6, 4, 3), 3), *kernel = check_randn(SYZ_SHAPE(5, 3, 3, 3), 4);
    y = syz_conv2d(image, kernel, NULL, 2, 0, 0, 1, 1); /* 3 x 2 windows */
    assert_true(counted_since(before) == 2 * 2 * 6 * 5 * 27);
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK); /* frozen: the input's gradient only */
    assert_true(counted_since(before) == 2 * 2 * 2 * 6 * 5 * 27);
}

static void attention(void **state) {
    (void)state;
    syz_tensor *q = check_leaf(SYZ_SHAPE(2, 3, 2, 4), 1), *k = check_randn(SYZ_SHAPE(2, 5, 2, 4), 2);
    double before = syz_flops();
    syz_tensor *y = syz_attention(q, k, k, NULL, 0, false);
    assert_true(counted_since(before) == 2 * 2 * 2 * 2 * 3 * 5 * 4);
    assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
    assert_true(counted_since(before) == (2 + 5) * 2 * 2 * 2 * 3 * 5 * 4);
}

static syz_tensor *text_features(syz_model *m) {
    int64_t ids[18] = {0};
    syz_tensor *in = syz_from(SYZ_I64, SYZ_SHAPE(3, 6), ids), *out = NULL;
    int n;
    assert_int_equal(syz_model_call(m, "text_features", &in, 1, &out, 1, &n), SYZ_OK);
    return out;
}

/* Forward and backward of each model go to its own meter, also when their graphs are mixed. */
static void models_have_their_own(void **state) {
    (void)state;
    syz_model *m[2];
    for (int k = 0; k < 2; k++) {
        assert_int_equal(syz_model_create(&m[k], text_config), SYZ_OK);
        assert_int_equal(syz_model_init(m[k], 1), SYZ_OK);
        syz_model_set_requires_grad(m[k], k == 1);
    }
    syz_tensor *a = text_features(m[0]), *b = text_features(m[1]);
    for (int k = 0; k < 2; k++)
        assert_true(syz_model_flops(m[k]) == layers + projection);
    double before = syz_flops();
    assert_int_equal(syz_backward(syz_sum(syz_mul(a, b), (syz_shape){0}, 0), NULL), SYZ_OK);
    assert_true(syz_model_flops(m[0]) == layers + projection);
    assert_true(syz_model_flops(m[1]) - (layers + projection) == counted_since(before));
    syz_model_release(m[0]);
    syz_model_release(m[1]);
}

static void checkpointing_repeats_the_blocks(void **state) {
    (void)state;
    double counted[2];
    for (int on = 0; on < 2; on++) {
        syz_model *m;
        assert_int_equal(syz_model_create(&m, text_config), SYZ_OK);
        assert_int_equal(syz_model_init(m, 1), SYZ_OK);
        syz_model_set_requires_grad(m, true);
        syz_model_set_checkpointing(m, on);
        syz_tensor *y = text_features(m);
        assert_int_equal(syz_backward(y, syz_full(SYZ_F32, y->shape, 1)), SYZ_OK);
        counted[on] = syz_model_flops(m);
        syz_model_release(m);
    }
    assert_true(counted[1] - counted[0] == layers);
}

static void meters_are_given_back(void **state) {
    (void)state;
    int first = syz_meter_take();
    assert_true(first > 0);
    syz_meter_return(first);
    for (int k = 0; k < 3 * SYZ_METERS; k++) {
        int meter = syz_meter_take();
        assert_int_equal(meter, first);
        assert_true(syz_meter_read(meter) == 0);
        int before = syz_meter_swap(meter);
        syz_flops_count(5);
        assert_int_equal(syz_meter_swap(before), meter);
        assert_true(syz_meter_read(meter) == 5);
        syz_meter_return(meter);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(products_and_convolutions), CHECK_TEST(attention),
        CHECK_TEST(models_have_their_own),     CHECK_TEST(checkpointing_repeats_the_blocks),
        CHECK_TEST(meters_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
