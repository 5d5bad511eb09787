/* The vision tower of SigLIP against transformers. */
#include "models/reference.h"
#include "unit/temporary.h"

enum { MAX_PARAMS = 128 };

static const char *const names[] = {"last_hidden_state", "pooler_output"};

static void forward(syz_model *m, syz_tensor *pixels, syz_tensor *out[2]) {
    int count = 0;
    syz_model_call(m, "forward", &pixels, 1, out, 2, &count);
    if (syz_failed()) fail_msg("%s (%s)", syz_error_message(), syz_error_where());
    assert_int_equal(count, 2);
}

static void backward(const reference_case *c, syz_tensor *const out[2]) {
    syz_tensor *parts[2];
    for (int k = 0; k < 2; k++) {
        char key[64];
        snprintf(key, sizeof key, "grad_%s", names[k]);
        parts[k] = syz_sum(syz_mul(out[k], reference_get(c, key)), (syz_shape){0}, 0);
    }
    assert_int_equal(syz_backward(syz_add(parts[0], parts[1]), NULL), SYZ_OK);
}

static void compare(const char *name) {
    reference_case c = reference_open(name);
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *pixels = reference_leaf(reference_image(&c, "pixel_values")), *out[2];
    forward(c.model, pixels, out);
    for (int k = 0; k < 2; k++)
        check_close(out[k], reference_get(&c, names[k]), 1e-5);
    backward(&c, out);
    check_close(syz_grad(pixels), reference_image(&c, "grad.pixel_values"), 1e-4);
    reference_gradients(&c, "", 1e-4);
    reference_close(&c);
}

/* Also an image size that the patches do not divide. */
static void vision_model(void **state) {
    (void)state;
    compare("siglip_a");
    compare("siglip_b");
}

/* A whole SiglipModel: its text tower is passed over, and its configuration says only what is not default. */
static void vision_tower_of_both(void **state) {
    (void)state;
    compare("siglip_c");
    reference_case c = reference_open("siglip_c");
    assert_string_equal(syz_model_class(c.model), "SiglipModel");
    for (int64_t i = 0; i < syz_model_param_count(c.model); i++)
        assert_int_equal(strncmp(syz_model_param_name(c.model, i), "vision_model.", 13), 0);
    reference_close(&c);
}

/* Weights stored in bf16, products in bf16: at most twice the error of transformers in bf16. */
static void half_precision(void **state) {
    (void)state;
    syz_set_device(0);
    static const char *const cases[] = {"siglip_a", "siglip_b", "siglip_c"};
    for (int k = 0; k < 3; k++) {
        reference_case c = reference_open(cases[k]);
        syz_model *m;
        assert_int_equal(syz_model_save(c.model, temporary_folder(), SYZ_BF16), SYZ_OK);
        assert_int_equal(syz_model_load_stored(&m, temporary_folder()), SYZ_OK);
        assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
        syz_tensor *out[2];
        forward(m, reference_image(&c, "pixel_values"), out);
        assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
        for (int i = 0; i < 2; i++)
            check_close(out[i], reference_get(&c, names[i]), 2 * syz_f32(reference_get(&c, "bf16_error"))[i]);
        syz_model_release(m);
        reference_close(&c);
    }
}

/* A lone tower as transformers 5 saves it, without its name before the parameters'. */
static void bare_names(void **state) {
    (void)state;
    reference_case c = reference_open("siglip_b");
    syz_model *m;
    reference_save_bare(c.model, temporary_folder(), temporary_path("model.safetensors"), "vision_model.");
    syz_model_load(&m, temporary_folder());
    check_ok(m);
    reference_same_parameters(m, c.model);
    syz_model_release(m);
    reference_close(&c);
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("siglip_a");
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *input_grad[2], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    for (int on = 0; on < 2; on++) {
        syz_model_set_checkpointing(c.model, on);
        syz_tensor *pixels = reference_leaf(reference_image(&c, "pixel_values")), *out[2];
        forward(c.model, pixels, out);
        backward(&c, out);
        input_grad[on] = syz_grad(pixels);
        reference_take_gradients(c.model, grads[on]);
    }
    reference_same(input_grad[1], input_grad[0]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

static void wrong_things_are_named(void **state) {
    (void)state;
    reference_case c = reference_open("siglip_a");
    syz_tensor *small = syz_zeros(SYZ_F32, SYZ_SHAPE(1, 12, 12, 3)), *out[2];
    int n;
    check_fails_with(syz_model_call(c.model, "forward", &small, 1, out, 2, &n), SYZ_ESHAPE, "[N,13,13,3]");
    syz_model *m;
    check_fails_with(syz_model_create(&m, "{\"architectures\": [\"SiglipVisionModel\"], \"vision_use_head\": false}"),
                     SYZ_EUNSUPPORTED, "vision_use_head");
    check_fails_with(syz_model_create(&m, "{\"architectures\": [\"SiglipVisionModel\"], \"hidden_act\": \"relu\"}"),
                     SYZ_EUNSUPPORTED, "gelu_pytorch_tanh");
    reference_close(&c);
}

/* google/siglip-so400m-patch14-384 at its published width, one layer deep. */
static void published_configuration(void **state) {
    (void)state;
    syz_model *m;
    syz_model_create(&m, "{\"architectures\": [\"SiglipModel\"], \"vision_config\": {\"hidden_size\": 1152, "
                         "\"intermediate_size\": 4304, \"num_hidden_layers\": 1, \"num_attention_heads\": 16, "
                         "\"image_size\": 384, \"patch_size\": 14}}");
    check_ok(m);
    assert_int_equal(syz_model_init(m, 1), SYZ_OK);
    int64_t k = syz_model_param_find(m, "vision_model.embeddings.position_embedding.weight");
    assert_true(syz_shape_equal(syz_model_param(m, k)->shape, SYZ_SHAPE(729, 1152)));
    syz_tensor *out[2];
    forward(m, check_randn(SYZ_SHAPE(1, 384, 384, 3), 2), out);
    assert_true(syz_shape_equal(out[0]->shape, SYZ_SHAPE(1, 729, 1152)));
    assert_true(syz_shape_equal(out[1]->shape, SYZ_SHAPE(1, 1152)));
    syz_model_release(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(vision_model),
        CHECK_TEST(vision_tower_of_both),
        CHECK_TEST(half_precision),
        CHECK_TEST(bare_names),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(wrong_things_are_named),
        CHECK_TEST(published_configuration),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
