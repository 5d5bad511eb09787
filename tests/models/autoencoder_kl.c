/* AutoencoderKL against diffusers: both directions and every gradient. */
#include "models/reference.h"

enum { MAX_PARAMS = 256 };

static syz_tensor *call(syz_model *m, const char *method, syz_tensor *x) {
    syz_tensor *out = NULL;
    int nout;
    syz_model_call(m, method, &x, 1, &out, 1, &nout);
    check_ok(out);
    return out;
}

/* One direction: its output, the gradient of its input and those of its half's parameters. */
static void one_way(const reference_case *c, const char *method, const char *input, const char *output,
                    const char *half) {
    char key[64];
    syz_tensor *x = reference_leaf(reference_image(c, input)), *y = call(c->model, method, x);
    check_close(y, reference_image(c, output), 1e-5);
    snprintf(key, sizeof key, "grad_%s", output);
    assert_int_equal(syz_backward(y, reference_image(c, key)), SYZ_OK);
    snprintf(key, sizeof key, "grad.%s", input);
    check_close(syz_grad(x), reference_image(c, key), 1e-4);
    reference_gradients(c, half, 1e-4);
}

static void compare(const char *name) {
    reference_case c = reference_open(name);
    syz_model_set_requires_grad(c.model, true);
    one_way(&c, "encode", "image", "moments", "encoder.");
    one_way(&c, "decode", "latent", "decoded", "decoder.");
    reference_close(&c);
}

static void with_attention(void **state) {
    (void)state;
    compare("vae_a");
}

static void without_attention(void **state) {
    (void)state;
    compare("vae_b");
}

static void one_level_with_quant_convolutions(void **state) {
    (void)state;
    reference_case c = reference_open("vae_c");
    syz_model_set_requires_grad(c.model, true);
    one_way(&c, "encode", "image", "moments", "encoder.");
    reference_gradients(&c, "quant_conv.", 1e-4);
    one_way(&c, "decode", "latent", "decoded", "decoder.");
    reference_gradients(&c, "post_quant_conv.", 1e-4);
    reference_close(&c);
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("vae_a");
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *y[2], *input_grad[2], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    for (int on = 0; on < 2; on++) {
        syz_model_set_checkpointing(c.model, on);
        syz_tensor *x = reference_leaf(reference_image(&c, "image"));
        syz_tensor *moments = call(c.model, "encode", x);
        y[on] = call(c.model, "decode", syz_slice(moments, 3, 0, 4));
        assert_int_equal(syz_backward(y[on], reference_image(&c, "grad_decoded")), SYZ_OK);
        input_grad[on] = syz_grad(x);
        reference_take_gradients(c.model, grads[on]);
    }
    reference_same(y[1], y[0]);
    reference_same(input_grad[1], input_grad[0]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

/* A frozen decoder passes the gradient through and collects none. */
static void frozen_weights_cost_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("vae_b");
    syz_tensor *z = reference_leaf(reference_image(&c, "latent")), *y = call(c.model, "decode", z);
    assert_int_equal(syz_backward(y, reference_image(&c, "grad_decoded")), SYZ_OK);
    check_close(syz_grad(z), reference_image(&c, "grad.latent"), 1e-4);
    for (int64_t i = 0; i < syz_model_param_count(c.model); i++)
        assert_null(syz_grad(syz_model_param(c.model, i)));
    reference_close(&c);
}

/* The 1x1 convolutions around the latents that older autoencoders have: the moments pass through one. */
static void quant_convolutions(void **state) {
    (void)state;
    syz_set_device(0);
    static const char config[] =
        "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [4], \"latent_channels\": 2,"
        "\"norm_num_groups\": 2, \"mid_block_add_attention\": false, \"use_quant_conv\": true,"
        "\"use_post_quant_conv\": true}";
    syz_model *m;
    assert_int_equal(syz_model_create(&m, config), SYZ_OK);
    syz_model_init(m, 3);
    syz_tensor *weight = syz_model_param(m, syz_model_param_find(m, "quant_conv.weight"));
    syz_tensor *bias = syz_model_param(m, syz_model_param_find(m, "quant_conv.bias"));
    assert_int_equal(weight->shape.dim[0], 4);
    for (int64_t i = 0; i < 16; i++)
        syz_f32(weight)[i] = i / 4 == i % 4 ? 2 : 0;
    for (int64_t i = 0; i < 4; i++)
        syz_f32(bias)[i] = 1;
    syz_tensor *x = check_randn(SYZ_SHAPE(1, 4, 4, 3), 1), *doubled = call(m, "encode", x);
    for (int64_t i = 0; i < 16; i++)
        syz_f32(weight)[i] /= 2;
    check_close(doubled, syz_affine(call(m, "encode", x), 2, -1), 1e-5);
    assert_int_equal(call(m, "decode", syz_slice(doubled, 3, 0, 2))->shape.dim[3], 3);
    syz_model_release(m);
}

static void unsupported_configurations_are_named(void **state) {
    (void)state;
    syz_model *m;
    check_fails_with(syz_model_create(&m, "{\"_class_name\": \"AutoencoderKL\", \"act_fn\": \"relu\"}"),
                     SYZ_EUNSUPPORTED, "\"act_fn\"");
    check_fails_with(
        syz_model_create(&m, "{\"_class_name\": \"AutoencoderKL\", \"up_block_types\": [\"AttnUpDecoderBlock2D\"]}"),
        SYZ_EUNSUPPORTED, "\"up_block_types\"");
    check_fails_with(syz_model_create(&m, "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [48]}"),
                     SYZ_EUNSUPPORTED, "\"block_out_channels\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(with_attention),
        CHECK_TEST(without_attention),
        CHECK_TEST(one_level_with_quant_convolutions),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(frozen_weights_cost_nothing),
        CHECK_TEST(quant_convolutions),
        CHECK_TEST(unsupported_configurations_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
