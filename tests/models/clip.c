/* The CLIP classes against transformers. The reference runs the text towers as pipelines do: causal, without a mask. */
#include "models/reference.h"
#include "unit/temporary.h"

enum { MAX_PARAMS = 256, OUTPUTS = 3 };

static void call(syz_model *m, const char *method, syz_tensor *const in[], int nin, syz_tensor *out[], int nout) {
    int count = 0;
    syz_model_call(m, method, in, nin, out, nout, &count);
    if (syz_failed()) fail_msg("%s (%s)", syz_error_message(), syz_error_where());
    assert_int_equal(count, nout);
}

/* The gradient of sum(a * grad_a) + sum(b * grad_b), from one scalar. */
static void backward(const reference_case *c, syz_tensor *const outputs[], const char *const names[], int n) {
    syz_tensor *loss = syz_full(SYZ_F32, SYZ_SHAPE(1), 0);
    for (int k = 0; k < n; k++) {
        char key[64];
        snprintf(key, sizeof key, "grad_%s", names[k]);
        loss = syz_add(loss, syz_sum(syz_mul(outputs[k], reference_get(c, key)), (syz_shape){0}, 0));
    }
    assert_int_equal(syz_backward(loss, NULL), SYZ_OK);
}

/* Also both rules for the pooled token: eos_token_id is the historical 2 in a and d, a true one in c. */
static void text_model(void **state) {
    (void)state;
    static const char *const cases[] = {"clip_text_a", "clip_text_c", "clip_text_d"};
    static const char *const names[] = {"last_hidden_state", "pooler_output"};
    for (int n = 0; n < 3; n++) {
        reference_case c = reference_open(cases[n]);
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *ids = reference_get(&c, "input_ids"), *out[2];
        call(c.model, "forward", &ids, 1, out, 2);
        for (int k = 0; k < 2; k++)
            check_close(out[k], reference_get(&c, names[k]), 1e-5);
        backward(&c, out, names, 2);
        reference_gradients(&c, "", 1e-4);
        reference_close(&c);
    }
}

/* Also the rule for a true eos_token_id, in b: its first place, though padding repeats it and larger ids exist. */
static void text_model_with_projection(void **state) {
    (void)state;
    static const char *const cases[] = {"clip_text_b", "clip_text_e", "clip_text_f"};
    static const char *const names[] = {"text_embeds", "last_hidden_state", "pooler_output"};
    for (int n = 0; n < 3; n++) {
        reference_case c = reference_open(cases[n]);
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *ids = reference_get(&c, "input_ids"), *out[3], *features;
        call(c.model, "forward", &ids, 1, out, 3);
        for (int k = 0; k < 3; k++)
            check_close(out[k], reference_get(&c, names[k]), 1e-5);
        backward(&c, out, names, 2);
        reference_gradients(&c, "", 1e-4);
        call(c.model, "text_features", &ids, 1, &features, 1);
        reference_same(features, out[0]);
        reference_close(&c);
    }
}

static void compare_vision(const char *name) {
    static const char *const names[] = {"image_embeds", "last_hidden_state", "pooler_output"};
    reference_case c = reference_open(name);
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *pixels = reference_leaf(reference_image(&c, "pixel_values")), *out[3], *features;
    call(c.model, "forward", &pixels, 1, out, 3);
    for (int k = 0; k < 3; k++)
        check_close(out[k], reference_get(&c, names[k]), 1e-5);
    backward(&c, out, names, 1);
    check_close(syz_grad(pixels), reference_image(&c, "grad.pixel_values"), 1e-4);
    reference_gradients(&c, "", 1e-4);
    call(c.model, "image_features", &pixels, 1, &features, 1);
    reference_same(features, out[0]);
    reference_close(&c);
}

static void vision_model(void **state) {
    (void)state;
    compare_vision("clip_vision_a");
    compare_vision("clip_vision_b");
    compare_vision("clip_vision_c");
}

static void compare_both(const char *name) {
    static const char *const names[] = {"logits_per_image", "text_embeds", "image_embeds"};
    reference_case c = reference_open(name);
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *in[2] = {reference_get(&c, "input_ids"), reference_leaf(reference_image(&c, "pixel_values"))};
    syz_tensor *out[3], *features[2];
    call(c.model, "forward", in, 2, out, 3);
    for (int k = 0; k < 3; k++)
        check_close(out[k], reference_get(&c, names[k]), 1e-5);
    backward(&c, out, names, 1);
    check_close(syz_grad(in[1]), reference_image(&c, "grad.pixel_values"), 1e-4);
    reference_gradients(&c, "", 1e-4);
    call(c.model, "text_features", in, 1, &features[0], 1);
    call(c.model, "image_features", in + 1, 1, &features[1], 1);
    for (int k = 0; k < 2; k++)
        check_close(syz_normalize(features[k], 1e-12), reference_get(&c, names[1 + k]), 1e-5);
    reference_close(&c);
}

static void both_towers(void **state) {
    (void)state;
    compare_both("clip_a");
    compare_both("clip_b");
    compare_both("clip_c");
}

/* A lone tower as transformers 5 saves it, without its name before the parameters'. */
static void bare_names(void **state) {
    (void)state;
    reference_case c = reference_open("clip_text_a");
    syz_model *m;
    reference_save_bare(c.model, temporary_folder(), temporary_path("model.safetensors"), "text_model.");
    syz_model_load(&m, temporary_folder());
    check_ok(m);
    reference_same_parameters(m, c.model);
    syz_model_release(m);
    reference_close(&c);
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("clip_a");
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *out[2], *input_grad[2], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    for (int on = 0; on < 2; on++) {
        syz_model_set_checkpointing(c.model, on);
        syz_tensor *in[2] = {reference_get(&c, "input_ids"), reference_leaf(reference_image(&c, "pixel_values"))};
        call(c.model, "forward", in, 2, &out[on], 1);
        assert_int_equal(syz_backward(out[on], reference_get(&c, "grad_logits_per_image")), SYZ_OK);
        input_grad[on] = syz_grad(in[1]);
        reference_take_gradients(c.model, grads[on]);
    }
    reference_same(out[1], out[0]);
    reference_same(input_grad[1], input_grad[0]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

/* Old checkpoints carry the positions 0,1,2,... as a buffer; it is passed over. */
static void old_buffers_are_ignored(void **state) {
    (void)state;
    reference_case c = reference_open("clip_text_a");
    const char *names[MAX_PARAMS];
    syz_tensor *tensors[MAX_PARAMS];
    int64_t n = syz_model_param_count(c.model);
    for (int64_t i = 0; i < n; i++) {
        names[i] = syz_model_param_name(c.model, i);
        tensors[i] = syz_model_param(c.model, i);
    }
    names[n] = "text_model.embeddings.position_ids";
    tensors[n] = syz_zeros(SYZ_I64, SYZ_SHAPE(1, 9));
    syz_model *m;
    assert_int_equal(syz_model_save(c.model, temporary_folder(), SYZ_F32), SYZ_OK);
    assert_int_equal(syz_weights_save(temporary_path("model.safetensors"), names, tensors, n + 1, NULL, 0), SYZ_OK);
    assert_int_equal(syz_model_load(&m, temporary_folder()), SYZ_OK);
    assert_int_equal(syz_model_param_count(m), n);
    syz_model_release(m);
    reference_close(&c);
}

static reference_case embedded_case; /* of the two tests below; check_gradients passes inputs only */
static syz_tensor *embedded_ids;

static syz_tensor *embedded_features(syz_tensor *const in[]) {
    syz_tensor *arguments[2] = {in[0], embedded_ids}, *out = NULL;
    int n;
    syz_model_call(embedded_case.model, "text_features_from_embeddings", arguments, 2, &out, 1, &n);
    return out;
}

static syz_tensor *token_embeddings(const char *name) {
    embedded_case = reference_open(name);
    embedded_ids = reference_get(&embedded_case, "input_ids");
    syz_tensor *table = NULL;
    for (int64_t i = 0; i < syz_model_param_count(embedded_case.model); i++)
        if (strstr(syz_model_param_name(embedded_case.model, i), "token_embedding.weight"))
            table = syz_model_param(embedded_case.model, i);
    assert_non_null(table);
    return syz_embedding(table, embedded_ids);
}

/* Both rules for the end of a text: clip_text_b has a true eos_token_id, clip_a the historical one. */
static void embeddings_of_tokens_give_their_features(void **state) {
    (void)state;
    static const char *const cases[] = {"clip_text_b", "clip_a"};
    for (int k = 0; k < 2; k++) {
        syz_tensor *x = token_embeddings(cases[k]), *features;
        call(embedded_case.model, "text_features", &embedded_ids, 1, &features, 1);
        reference_same(embedded_features(&x), features);
        /* of the ids only the ends count: another first token changes the features of ids, not those of embeddings */
        embedded_ids = syz_copy(embedded_ids);
        syz_i64(embedded_ids)[0] = syz_i64(embedded_ids)[0] == 1 ? 3 : 1;
        reference_same(embedded_features(&x), features);
        syz_tensor *others;
        call(embedded_case.model, "text_features", &embedded_ids, 1, &others, 1);
        assert_true(check_error(others, features) > 1e-3);
        reference_close(&embedded_case);
    }
}

static void embeddings_receive_gradients(void **state) {
    (void)state;
    syz_tensor *x = syz_copy(token_embeddings("clip_a"));
    syz_set_requires_grad(x, true);
    check_gradients(embedded_features, &x, 1, 1e-2, 1e-2);
    reference_close(&embedded_case);
}

static void wrong_inputs_are_named(void **state) {
    (void)state;
    syz_set_device(0);
    reference_case c = reference_open("clip_a");
    syz_tensor *longer = syz_zeros(SYZ_I64, SYZ_SHAPE(1, 10)), *out;
    syz_tensor *outside = syz_full(SYZ_I64, SYZ_SHAPE(1, 4), 48), *pixels = syz_zeros(SYZ_F32, SYZ_SHAPE(1, 3, 12, 12));
    syz_tensor *unlike[2] = {syz_zeros(SYZ_F32, SYZ_SHAPE(1, 3, 5)), syz_zeros(SYZ_I64, SYZ_SHAPE(1, 4))};
    int n;
    check_fails_with(syz_model_call(c.model, "text_features_from_embeddings", unlike, 2, &out, 1, &n), SYZ_ESHAPE,
                     "inputs_embeds must be [1,4,");
    check_fails_with(syz_model_call(c.model, "text_features", &longer, 1, &out, 1, &n), SYZ_ESHAPE, "up to 9");
    check_fails_with(syz_model_call(c.model, "text_features", &outside, 1, &out, 1, &n), SYZ_EINVAL, "48");
    check_fails_with(syz_model_call(c.model, "image_features", &pixels, 1, &out, 1, &n), SYZ_ESHAPE, "[N,12,12,3]");
    reference_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(text_model),
        CHECK_TEST(text_model_with_projection),
        CHECK_TEST(vision_model),
        CHECK_TEST(both_towers),
        CHECK_TEST(bare_names),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(old_buffers_are_ignored),
        CHECK_TEST(embeddings_of_tokens_give_their_features),
        CHECK_TEST(embeddings_receive_gradients),
        CHECK_TEST(wrong_inputs_are_named),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
