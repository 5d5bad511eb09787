/* The embedded pipeline's configurations: the parts fit each other, and gradients run from the image to the noise. */
#include "models/reference.h"

enum { BATCH = 2, SIDE = 64, LATENT = 8, CHANNELS = 16, TOKENS = 16, TEXT = 16, WIDTH = 256 };

static syz_model *fresh(const char *name) {
    char path[128], text[4096] = {0};
    snprintf(path, sizeof path, "examples/emoji/configs/%s.json", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    syz_model *m;
    syz_model_create(&m, text);
    check_ok(m);
    assert_int_equal(syz_model_init(m, 1), SYZ_OK);
    return m;
}

static syz_tensor *call(syz_model *m, const char *method, syz_tensor *const in[], int nin) {
    syz_tensor *out = NULL;
    int count;
    syz_model_call(m, method, in, nin, &out, 1, &count);
    check_ok(out);
    return out;
}

static void check_shape(const syz_tensor *t, syz_shape shape) {
    char text[96];
    if (!syz_shape_equal(t->shape, shape))
        fail_msg("shape %s, not %s", syz_dims(t), syz_shape_text(shape, text, sizeof text));
}

/* [B,8,8,16] -> [B,16,64]: 2x2 patches, channel outermost, as FluxPipeline packs */
static syz_tensor *pack(syz_tensor *z) {
    z = syz_reshape(z, SYZ_SHAPE(BATCH, LATENT / 2, 2, LATENT / 2, 2, CHANNELS));
    return syz_reshape(syz_permute(z, SYZ_SHAPE(0, 1, 3, 5, 2, 4)), SYZ_SHAPE(BATCH, TOKENS, 4 * CHANNELS));
}

static syz_tensor *unpack(syz_tensor *x) {
    x = syz_reshape(x, SYZ_SHAPE(BATCH, LATENT / 2, LATENT / 2, CHANNELS, 2, 2));
    return syz_reshape(syz_permute(x, SYZ_SHAPE(0, 1, 4, 2, 5, 3)), SYZ_SHAPE(BATCH, LATENT, LATENT, CHANNELS));
}

static syz_tensor *image_ids(void) {
    syz_tensor *ids = syz_zeros(SYZ_F32, SYZ_SHAPE(TOKENS, 3));
    for (int t = 0; t < TOKENS; t++) {
        syz_f32(ids)[3 * t + 1] = (float)(t / (LATENT / 2));
        syz_f32(ids)[3 * t + 2] = (float)(t % (LATENT / 2));
    }
    return ids;
}

static syz_tensor *input_ids(void) {
    syz_rng rng = {.seed = 9};
    syz_tensor *ids = syz_randint(&rng, 0, 4094, SYZ_SHAPE(BATCH, TEXT));
    for (int b = 0; b < BATCH; b++)
        syz_i64(ids)[b * TEXT + 7] = 4095;
    return ids;
}

static void parts_fit(void **state) {
    (void)state;
    syz_model *vae = fresh("vae"), *transformer = fresh("transformer"), *text = fresh("text_encoder");
    syz_model *reward = fresh("reward");
    syz_tensor *image = check_randn(SYZ_SHAPE(BATCH, SIDE, SIDE, 3), 1), *ids = input_ids();
    syz_tensor *moments = call(vae, "encode", &image, 1);
    check_shape(moments, SYZ_SHAPE(BATCH, LATENT, LATENT, 2 * CHANNELS));
    syz_tensor *prompt[2];
    int count;
    syz_model_call(text, "forward", &ids, 1, prompt, 2, &count);
    check_shape(prompt[0], SYZ_SHAPE(BATCH, TEXT, WIDTH));
    check_shape(prompt[1], SYZ_SHAPE(BATCH, WIDTH));

    syz_tensor *noise = reference_leaf(pack(syz_slice(moments, 3, 0, CHANNELS)));
    syz_tensor *in[] = {noise,
                        prompt[0],
                        prompt[1],
                        syz_full(SYZ_F32, SYZ_SHAPE(BATCH), 0.5),
                        NULL,
                        image_ids(),
                        syz_zeros(SYZ_F32, SYZ_SHAPE(TEXT, 3))};
    syz_tensor *velocity = call(transformer, "forward", in, 7);
    syz_tensor *latent = unpack(syz_sub(noise, syz_affine(velocity, 0.5, 0)));
    syz_tensor *decoded = call(vae, "decode", &latent, 1);
    check_shape(decoded, SYZ_SHAPE(BATCH, SIDE, SIDE, 3));
    syz_tensor *features = call(reward, "image_features", &decoded, 1);
    check_shape(features, SYZ_SHAPE(BATCH, 128));
    check_shape(call(reward, "text_features", &ids, 1), SYZ_SHAPE(BATCH, 128));
    assert_int_equal(syz_backward(syz_mean(features, (syz_shape){0}, 0), NULL), SYZ_OK);
    assert_true(reference_peak(syz_grad(noise)) > 0);
    syz_model_release(vae);
    syz_model_release(transformer);
    syz_model_release(text);
    syz_model_release(reward);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(parts_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
