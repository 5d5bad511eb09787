/* CLIP from open_clip's files: their names, their values, and what their shapes tell of the configuration. */
#include "models/params.h"
#include "models/reference.h"
#include "unit/temporary.h"

static const char *const names[] = {"text_embeds", "image_embeds", "logits_per_image"};
static const char *const cases[] = {"open_clip_a", "open_clip_b", "open_clip_c"};

static syz_tensor *call(syz_model *m, const char *method, syz_tensor *const in[], int nin) {
    syz_tensor *out = NULL;
    int count = 0;
    syz_model_call(m, method, in, nin, &out, 1, &count);
    check_ok(out);
    return out;
}

static void run(syz_model *m, const reference_case *c, syz_tensor *pixels, syz_tensor *out[3]) {
    syz_tensor *in[2] = {reference_get(c, "input_ids"), pixels};
    out[0] = call(m, "text_features", in, 1);
    out[1] = call(m, "image_features", in + 1, 1);
    out[2] = call(m, "forward", in, 2);
}

static void outputs_and_gradients(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        reference_case c = reference_open(cases[k]);
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *pixels = reference_leaf(reference_image(&c, "pixel_values")), *out[3];
        run(c.model, &c, pixels, out);
        syz_tensor *loss = syz_full(SYZ_F32, SYZ_SHAPE(1), 0);
        for (int i = 0; i < 3; i++) {
            check_close(out[i], reference_get(&c, names[i]), 1e-5);
            syz_tensor *grad = reference_get(&c, syz_pathf("grad_%s", names[i]).text);
            loss = syz_add(loss, syz_sum(syz_mul(out[i], grad), (syz_shape){0}, 0));
        }
        assert_int_equal(syz_backward(loss, NULL), SYZ_OK);
        check_close(syz_grad(pixels), reference_image(&c, "grad.pixel_values"), 1e-4);
        reference_gradients(&c, "", 1e-4);
        reference_close(&c);
    }
}

/* Weights stored in bf16, products in bf16: at most twice the error of open_clip in bf16. */
static void half_precision(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        reference_case c = reference_open(cases[k]);
        syz_model *m;
        assert_int_equal(syz_model_save(c.model, temporary_folder(), SYZ_BF16), SYZ_OK);
        assert_int_equal(syz_model_load_stored(&m, temporary_folder()), SYZ_OK);
        assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
        syz_tensor *out[3];
        run(m, &c, reference_image(&c, "pixel_values"), out);
        assert_int_equal(syz_set_matmul_precision(SYZ_F32), SYZ_OK);
        for (int i = 0; i < 2; i++)
            check_close(out[i], reference_get(&c, names[i]), 2 * syz_f32(reference_get(&c, "bf16_error"))[i]);
        syz_model_release(m);
        reference_close(&c);
    }
}

/* Kept as stored, f16 weights stay in the file but for the two that are turned. */
static void stored_as_they_are(void **state) {
    (void)state;
    reference_case c = reference_open("open_clip_c");
    syz_model *m;
    assert_int_equal(syz_model_load_stored(&m, reference_folder("open_clip_c")), SYZ_OK);
    for (int64_t i = 0; i < syz_model_param_count(m); i++)
        assert_int_equal(syz_model_param(m, i)->dtype, SYZ_F16);
    syz_tensor *out[3];
    run(m, &c, reference_image(&c, "pixel_values"), out);
    for (int i = 0; i < 3; i++)
        check_close(out[i], reference_get(&c, names[i]), 1e-5);
    syz_model_release(m);
    reference_close(&c);
}

/* What torch.save wrote under "state_dict", as HPS_v2.1_compressed.pt has it. */
static void torch_file(void **state) {
    (void)state;
    reference_case c = reference_open("open_clip_c");
    syz_model *m;
    syz_model_load(&m, "tests/models/data/open_clip_c/open_clip.pt");
    check_ok(m);
    assert_int_equal(syz_model_param_count(m), syz_model_param_count(c.model));
    reference_same_parameters(m, c.model);
    syz_model_release(m);
    reference_close(&c);
}

/* ---- files without a configuration: one layer of each tower at published widths ---- */

enum { MAX_TENSORS = 64 };

typedef struct {
    syz_path names[MAX_TENSORS];
    const char *pointers[MAX_TENSORS];
    syz_tensor *tensors[MAX_TENSORS];
    int64_t count;
} written;

static void add(written *w, const char *name, syz_shape shape) {
    assert_true(w->count < MAX_TENSORS);
    w->names[w->count] = syz_pathf("%s", name);
    w->pointers[w->count] = w->names[w->count].text;
    w->tensors[w->count++] = syz_zeros(SYZ_F16, shape);
}

static void add_pair(written *w, const char *prefix, const char *name, int out, int in) {
    add(w, syz_pathf("%s%s.weight", prefix, name).text, in ? SYZ_SHAPE(out, in) : SYZ_SHAPE(out));
    add(w, syz_pathf("%s%s.bias", prefix, name).text, SYZ_SHAPE(out));
}

static void add_block(written *w, const char *prefix, int width, int inner) {
    add(w, syz_pathf("%sattn.in_proj_weight", prefix).text, SYZ_SHAPE(3 * width, width));
    add(w, syz_pathf("%sattn.in_proj_bias", prefix).text, SYZ_SHAPE(3 * width));
    add_pair(w, prefix, "attn.out_proj", width, width);
    add_pair(w, prefix, "ln_1", width, 0);
    add_pair(w, prefix, "ln_2", width, 0);
    add_pair(w, prefix, "mlp.c_fc", inner, width);
    add_pair(w, prefix, "mlp.c_proj", width, inner);
}

/* A file like open_clip's; a small vocabulary, so that it stays small. Returns its path. */
static const char *write_clip(int vision, int patch, int positions, int text, int projection) {
    static written w;
    w.count = 0;
    remove(temporary_path("config.json")); /* an earlier test's: it would speak for the file beside it */
    add(&w, "logit_scale", (syz_shape){0});
    add(&w, "token_embedding.weight", SYZ_SHAPE(50, text));
    add(&w, "positional_embedding", SYZ_SHAPE(77, text));
    add(&w, "text_projection", SYZ_SHAPE(text, projection));
    add_pair(&w, "", "ln_final", text, 0);
    add_block(&w, "transformer.resblocks.0.", text, 4 * text);
    add(&w, "visual.class_embedding", SYZ_SHAPE(vision));
    add(&w, "visual.conv1.weight", SYZ_SHAPE(vision, 3, patch, patch));
    add(&w, "visual.positional_embedding", SYZ_SHAPE(positions, vision));
    add(&w, "visual.proj", SYZ_SHAPE(vision, projection));
    add_pair(&w, "visual.", "ln_pre", vision, 0);
    add_pair(&w, "visual.", "ln_post", vision, 0);
    add_block(&w, "visual.transformer.resblocks.0.", vision, 4 * vision);
    const char *path = temporary_path("clip.safetensors");
    assert_int_equal(syz_weights_save(path, w.pointers, w.tensors, w.count, NULL, 0), SYZ_OK);
    return path;
}

static void configurations_are_read_off_shapes(void **state) {
    (void)state;
    static const struct {
        int vision, patch, positions, text, projection, image, vision_heads, text_heads;
        const char *act;
    } published[] = {
        {1280, 14, 257, 1024, 1024, 224, 16, 16, "gelu"},     /* ViT-H/14: HPSv2, PickScore */
        {1408, 14, 257, 1024, 1024, 224, 16, 16, "gelu"},     /* ViT-g/14, with another inner width than published */
        {1024, 14, 257, 768, 768, 224, 16, 12, "quick_gelu"}, /* ViT-L/14 */
        {1024, 14, 577, 768, 768, 336, 16, 12, "quick_gelu"}, /* ViT-L/14 at 336 */
        {768, 32, 50, 512, 512, 224, 12, 8, "quick_gelu"},    /* ViT-B/32 */
        {768, 16, 197, 512, 512, 224, 12, 8, "quick_gelu"},   /* ViT-B/16 */
    };
    for (size_t k = 0; k < sizeof published / sizeof *published; k++) {
        syz_scope_push();
        const char *path = write_clip(published[k].vision, published[k].patch, published[k].positions,
                                      published[k].text, published[k].projection);
        syz_model *m = NULL;
        syz_model_load_stored(&m, path);
        check_ok(m);
        const char *config = syz_model_config(m);
        char want[3][64];
        snprintf(want[0], sizeof want[0], "\"image_size\": %d,", published[k].image);
        snprintf(want[1], sizeof want[1], "\"num_attention_heads\": %d,", published[k].vision_heads);
        snprintf(want[2], sizeof want[2], "\"hidden_act\": \"%s\",", published[k].act);
        const char *vision = strstr(config, "\"vision_config\"");
        assert_non_null(vision);
        for (int i = 0; i < 3; i++)
            if (!strstr(vision, want[i])) fail_msg("%s lacks %s", vision, want[i]);
        snprintf(want[1], sizeof want[1], "\"num_attention_heads\": %d,", published[k].text_heads);
        const char *text = strstr(config, "\"text_config\"");
        assert_non_null(text);
        assert_true(strstr(text, want[1]) && strstr(text, want[1]) < vision);
        assert_true(strstr(text, want[2]) && strstr(text, want[2]) < vision);
        assert_string_equal(syz_model_class(m), "CLIPModel");
        syz_model_release(m);
        syz_scope_pop();
    }
}

/* open_clip's own configuration, where it lies beside the file, says the activation. */
static void activation_beside(void **state) {
    (void)state;
    static const char *const said[][2] = {{"{\"model_cfg\": {\"quick_gelu\": true}}", "\"quick_gelu\""},
                                          {"{\"model_cfg\": {\"embed_dim\": 8}}", "\"gelu\""}};
    for (int k = 0; k < 2; k++) {
        const char *path = write_clip(64, 4, 10, 64, 8);
        syz_model *m;
        const char *beside = temporary_file("open_clip_config.json", said[k][0], strlen(said[k][0]));
        syz_model_load(&m, path);
        check_ok(m);
        assert_non_null(strstr(syz_model_config(m), said[k][1]));
        syz_model_release(m);
        remove(beside);
    }
    const char *path = write_clip(64, 4, 10, 64, 8), *beside = temporary_file("open_clip_config.json", "{", 1);
    syz_model *m;
    check_fails_with(syz_model_load(&m, path), SYZ_EFORMAT, "open_clip_config.json");
    remove(beside);
}

static void what_shapes_do_not_tell_is_asked_for(void **state) {
    (void)state;
    syz_model *m;
    check_fails_with(syz_model_load(&m, write_clip(72, 4, 10, 64, 8)), SYZ_EUNSUPPORTED,
                     "a tower of width 72: the weights do not tell \"num_attention_heads\"");
    check_fails_with(syz_model_load(&m, write_clip(64, 4, 9, 64, 8)), SYZ_EUNSUPPORTED,
                     "\"visual.positional_embedding\" has 9 positions");
}

/* What is wrong is named as the file calls it. */
static void wrong_files_are_named(void **state) {
    (void)state;
    syz_model *m;
    const char *path = write_clip(64, 4, 10, 64, 8);
    const char *config =
        "{\"architectures\": [\"CLIPModel\"], \"projection_dim\": 8, \"text_config\": {\"hidden_size\": 64,"
        "\"intermediate_size\": 256, \"num_hidden_layers\": 2, \"vocab_size\": 50},"
        "\"vision_config\": {\"hidden_size\": 64, \"intermediate_size\": 256, \"num_hidden_layers\": 1,"
        "\"num_attention_heads\": 1, \"image_size\": 12, \"patch_size\": 4}}";
    check_fails_with(syz_model_load_as(&m, path, config, false), SYZ_EFORMAT,
                     "\"transformer.resblocks.1.attn.in_proj_weight\" is missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(outputs_and_gradients),
        CHECK_TEST(half_precision),
        CHECK_TEST(stored_as_they_are),
        CHECK_TEST(torch_file),
        CHECK_TEST(configurations_are_read_off_shapes),
        CHECK_TEST(activation_beside),
        CHECK_TEST(what_shapes_do_not_tell_is_asked_for),
        CHECK_TEST(wrong_files_are_named),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
