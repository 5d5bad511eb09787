/* ImageReward against its own classes. */
#include "models/reference.h"
#include "unit/temporary.h"

static const char *const cases[] = {"image_reward_a", "image_reward_b", "image_reward_c"};
static const char *const outputs[] = {"reward", "last_hidden_state", "image_embeds"};

static void call(syz_model *m, const char *method, syz_tensor *const in[], int nin, syz_tensor *out[], int nout) {
    int count = 0;
    syz_model_call(m, method, in, nin, out, nout, &count);
    if (syz_failed()) fail_msg("%s (%s)", syz_error_message(), syz_error_where());
    assert_int_equal(count, nout);
}

/* in: pixel_values, input_ids, attention_mask */
static void take_inputs(const reference_case *c, syz_tensor *in[3]) {
    in[0] = reference_leaf(reference_image(c, "pixel_values"));
    in[1] = reference_get(c, "input_ids");
    in[2] = reference_get(c, "attention_mask");
}

static void outputs_and_gradients(void **state) {
    (void)state;
    for (int n = 0; n < 3; n++) {
        reference_case c = reference_open(cases[n]);
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *in[3], *out[3];
        take_inputs(&c, in);
        call(c.model, "forward", in, 3, out, 3);
        for (int k = 0; k < 3; k++)
            check_close(out[k], reference_get(&c, outputs[k]), 1e-5);
        assert_int_equal(syz_backward(out[0], reference_get(&c, "grad_reward")), SYZ_OK);
        check_close(syz_grad(in[0]), reference_image(&c, "grad.pixel_values"), 1e-4);
        reference_gradients(&c, "", 1e-4);
        reference_close(&c);
    }
}

/* An image is encoded once and scored under several texts. */
static void a_reward_of_encoded_images(void **state) {
    (void)state;
    reference_case c = reference_open("image_reward_a");
    syz_tensor *in[3], *image, *rewards, *other;
    take_inputs(&c, in);
    call(c.model, "image_features", in, 1, &image, 1);
    call(c.model, "reward", (syz_tensor *[]){image, in[1], in[2]}, 3, &rewards, 1);
    check_close(rewards, reference_get(&c, "reward"), 1e-5);
    syz_tensor *ids = syz_copy(in[1]);
    syz_i64(ids)[1] = (syz_i64(ids)[1] + 1) % 40;
    call(c.model, "reward", (syz_tensor *[]){image, ids, in[2]}, 3, &other, 1);
    assert_true(fabs(syz_f32(other)[0] - syz_f32(rewards)[0]) > 1e-4); /* the text that changed */
    assert_true(syz_f32(other)[1] == syz_f32(rewards)[1] && syz_f32(other)[2] == syz_f32(rewards)[2]);
    reference_close(&c);
}

/* What stands behind a text's end, and how long the padding is, is nothing to its score. */
static void padding_is_not_read(void **state) {
    (void)state;
    reference_case c = reference_open("image_reward_a"); /* lengths 9, 2, 5 */
    syz_tensor *in[3], *image, *before, *after, *cut;
    take_inputs(&c, in);
    call(c.model, "image_features", in, 1, &image, 1);
    call(c.model, "reward", (syz_tensor *[]){image, in[1], in[2]}, 3, &before, 1);
    syz_tensor *ids = syz_copy(in[1]);
    for (int64_t t = 2; t < 9; t++)
        syz_i64(ids)[9 + t] = 30 + t;
    call(c.model, "reward", (syz_tensor *[]){image, ids, in[2]}, 3, &after, 1);
    reference_same(after, before);
    syz_tensor *one[3] = {syz_slice(image, 0, 1, 2), syz_slice(syz_slice(in[1], 0, 1, 2), 1, 0, 2),
                          syz_slice(syz_slice(in[2], 0, 1, 2), 1, 0, 2)};
    call(c.model, "reward", one, 3, &cut, 1);
    check_close(cut, syz_slice(before, 0, 1, 2), 1e-5);
    reference_close(&c);
}

/* Products in bf16 stay within twice the error of the classes run in bf16 altogether. */
static void precision_in_bf16(void **state) {
    (void)state;
    for (int n = 0; n < 3; n++) {
        reference_case c = reference_open(cases[n]);
        syz_tensor *in[3], *out[3];
        take_inputs(&c, in);
        assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
        call(c.model, "forward", in, 3, out, 3);
        assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
        for (int k = 0; k < 3; k++) {
            char key[64];
            snprintf(key, sizeof key, "bf16_error.%s", outputs[k]);
            check_close(out[k], reference_get(&c, outputs[k]), 2 * (double)syz_f32(reference_get(&c, key))[0]);
        }
        reference_close(&c);
    }
}

/* The image's states get gradients from every text layer; recomputed layers add theirs up first, so that the last bits
 * of a sum may differ. */
static void checkpointing_changes_nothing(void **state) {
    (void)state;
    for (int n = 0; n < 3; n++) {
        reference_case c = reference_open(cases[n]);
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *in[3], *plain, *out;
        take_inputs(&c, in);
        call(c.model, "forward", in, 3, &plain, 1);
        syz_model_set_checkpointing(c.model, true);
        call(c.model, "forward", in, 3, &out, 1);
        reference_same(out, plain);
        assert_int_equal(syz_backward(out, reference_get(&c, "grad_reward")), SYZ_OK);
        check_close(syz_grad(in[0]), reference_image(&c, "grad.pixel_values"), 1e-4);
        reference_gradients(&c, "", 1e-4);
        reference_close(&c);
    }
}

static void wrong_inputs_are_named(void **state) {
    (void)state;
    reference_case c = reference_open("image_reward_a");
    syz_tensor *in[3], *image, *out;
    int n;
    take_inputs(&c, in);
    call(c.model, "image_features", in, 1, &image, 1);
    syz_tensor *chw = syz_zeros(SYZ_F32, SYZ_SHAPE(1, 3, 20, 20)), *floats = syz_zeros(SYZ_F32, SYZ_SHAPE(3, 9));
    syz_tensor *longer = syz_zeros(SYZ_I64, SYZ_SHAPE(3, 13)), *two = syz_zeros(SYZ_I64, SYZ_SHAPE(2, 9));
    syz_tensor *outside = syz_full(SYZ_I64, SYZ_SHAPE(3, 9), 40), *wide = syz_zeros(SYZ_F32, SYZ_SHAPE(3, 26, 16));
#define REFUSED(a, b, c_, status, text)                                                                                \
    check_fails_with(syz_model_call(c.model, "reward", (syz_tensor *[]){a, b, c_}, 3, &out, 1, &n), status, text)
    check_fails_with(syz_model_call(c.model, "image_features", &chw, 1, &out, 1, &n), SYZ_ESHAPE, "[N,20,20,3]");
    REFUSED(wide, in[1], in[2], SYZ_ESHAPE, "image_embeds must be [B,26,24]");
    REFUSED(image, longer, longer, SYZ_ESHAPE, "input_ids must be i64 [3,T]");
    REFUSED(image, two, two, SYZ_ESHAPE, "input_ids must be i64 [3,T]");
    REFUSED(image, in[1], floats, SYZ_ESHAPE, "attention_mask must be i64 [3,9]");
    REFUSED(image, outside, in[2], SYZ_EINVAL, "40");
#undef REFUSED
    reference_close(&c);
}

static void refuse(const char *config, const char *text) {
    syz_model *m;
    check_fails_with(syz_model_create(&m, config), syz_error_status(), text);
    assert_null(m);
}

static void configurations_that_are_not_implemented(void **state) {
    (void)state;
#define CONFIG(rest) "{\"_class_name\": \"ImageReward\", " rest "}"
    refuse(CONFIG("\"hidden_act\": \"relu\""), "\"hidden_act\" must be \"gelu\"");
    refuse(CONFIG("\"add_cross_attention\": false"), "\"add_cross_attention\" must be true");
    refuse(CONFIG("\"position_embedding_type\": \"relative_key\""), "must be \"absolute\"");
    refuse(CONFIG("\"num_attention_heads\": 7"), "\"num_attention_heads\" must divide hidden_size");
    refuse(CONFIG("\"mlp_sizes\": [4, 3]"), "\"mlp_sizes\" must hold 4 sizes");
    refuse(CONFIG("\"mlp_sizes\": [4, 3, 0, 1]"), "\"mlp_sizes\" must hold 4 sizes");
    refuse(CONFIG("\"vision_config\": {\"patch_size\": 300}"), "\"patch_size\" is 300, outside 1..224");
#undef CONFIG
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(outputs_and_gradients),
        CHECK_TEST(a_reward_of_encoded_images),
        CHECK_TEST(padding_is_not_read),
        CHECK_TEST(precision_in_bf16),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(wrong_inputs_are_named),
        CHECK_TEST(configurations_that_are_not_implemented),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
