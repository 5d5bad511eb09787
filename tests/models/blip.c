/* ImageReward against its own classes. */
#include "models/reference.h"
#include "unit/temporary.h"

enum { MAX_PARAMS = 256 };

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
    assert_true(fabs(check_f32(other)[0] - check_f32(rewards)[0]) > 1e-4); /* the text that changed */
    assert_true(check_f32(other)[1] == check_f32(rewards)[1] && check_f32(other)[2] == check_f32(rewards)[2]);
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
    syz_set_device(0);
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
    syz_set_device(0);
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

/* Heads of 64, the published sizes of nothing else. */
static const char *const wide = "{\"_class_name\": \"ImageReward\", \"hidden_size\": 64, \"intermediate_size\": 10, "
                                "\"num_hidden_layers\": 2, \"num_attention_heads\": 1, \"vocab_size\": 9, "
                                "\"max_position_embeddings\": 6, \"mlp_sizes\": [5, 4, 3, 2], \"vision_config\": "
                                "{\"hidden_size\": 128, \"num_attention_heads\": 2, \"num_hidden_layers\": 1, "
                                "\"image_size\": 12, \"patch_size\": 4, \"intermediate_size\": 7}}";

static const char *save_as_published(syz_model *m, int leave_out) {
    const char *names[MAX_PARAMS], *path = temporary_path("ImageReward.safetensors");
    syz_tensor *tensors[MAX_PARAMS];
    int64_t count = 0;
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        if (i == leave_out) continue;
        names[count] = syz_model_param_name(m, i);
        tensors[count++] = syz_model_param(m, i);
    }
    assert_int_equal(syz_weights_save(path, names, tensors, count, NULL, 0), SYZ_OK);
    return path;
}

/* A lone file tells everything but the number of heads, which are 64 wide as in every published one. */
static void a_file_by_itself(void **state) {
    (void)state;
    syz_set_device(0);
    syz_model *m, *loaded;
    assert_int_equal(syz_model_create(&m, wide), SYZ_OK);
    assert_int_equal(syz_model_init(m, 5), SYZ_OK);
    assert_true(syz_model_param_count(m) <= MAX_PARAMS);
    assert_int_equal(syz_model_load(&loaded, save_as_published(m, -1)), SYZ_OK);
    assert_string_equal(syz_model_class(loaded), "ImageReward");
    assert_int_equal(syz_model_param_count(loaded), syz_model_param_count(m));
    syz_rng rng = {.seed = 3};
    syz_tensor *in[3] = {syz_randn(&rng, SYZ_SHAPE(2, 12, 12, 3)), syz_full(SYZ_I64, SYZ_SHAPE(2, 6), 4),
                         syz_full(SYZ_I64, SYZ_SHAPE(2, 6), 1)};
    syz_tensor *expected, *rewards;
    call(m, "forward", in, 3, &expected, 1);
    call(loaded, "forward", in, 3, &rewards, 1);
    reference_same(rewards, expected);
    syz_model_release(loaded);
    syz_model_release(m);
}

/* Whichever of its tensors is missing (here every fourth), that one is named. */
static void an_incomplete_file_names_what_it_lacks(void **state) {
    (void)state;
    syz_model *m, *loaded;
    assert_int_equal(syz_model_create(&m, wide), SYZ_OK);
    assert_int_equal(syz_model_init(m, 5), SYZ_OK);
    for (int i = 0; i < syz_model_param_count(m); i += 4) {
        const char *path = save_as_published(m, i);
        assert_true(syz_model_load_as(&loaded, path, wide, false) != SYZ_OK);
        assert_non_null(strstr(syz_error_message(), syz_model_param_name(m, i)));
        assert_non_null(strstr(syz_error_message(), "is missing"));
        syz_error_clear();
        assert_true(syz_model_load(&loaded, path) != SYZ_OK);
        assert_non_null(strstr(syz_error_message(), "ImageReward.safetensors"));
        syz_error_clear();
    }
    int head = (int)syz_model_param_find(m, "mlp.layers.2.weight");
    check_fails_with(syz_model_load(&loaded, save_as_published(m, head)), SYZ_EFORMAT,
                     "\"mlp.layers.2.weight\" is missing");
    syz_model_release(m);
}

/* As published, ImageReward.pt gives med_config.json the last word: heads that are not 64 wide do not show. */
static void the_published_layout(void **state) {
    (void)state;
    static const char *const path = "tests/models/data/image_reward_pt/ImageReward.pt";
    reference_case c = reference_open("image_reward_c");
    syz_model *m;
    check_fails_with(syz_model_load(&m, path), SYZ_EUNSUPPORTED, "give a configuration (med_config.json)");
    assert_int_equal(syz_model_load_as(&m, path, syz_model_config(c.model), true), SYZ_OK);
    reference_same_parameters(m, c.model);
    syz_tensor *in[3], *rewards;
    take_inputs(&c, in);
    call(m, "forward", in, 3, &rewards, 1);
    check_close(rewards, reference_get(&c, "reward"), 1e-5);
    syz_model_release(m);
    reference_close(&c);
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
        CHECK_TEST(a_file_by_itself),
        CHECK_TEST(an_incomplete_file_names_what_it_lacks),
        CHECK_TEST(the_published_layout),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
