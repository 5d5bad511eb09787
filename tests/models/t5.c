/* T5EncoderModel against transformers: outputs and every gradient of four configurations. */
#include "models/reference.h"

#include "unit/temporary.h"

enum { MAX_PARAMS = 128 };

static const char *const cases[] = {"t5_a", "t5_b", "t5_c", "t5_d"};
enum { CASES = sizeof cases / sizeof *cases };

static syz_tensor *forward(const reference_case *c) {
    syz_tensor *in[2] = {reference_get(c, "input_ids"), NULL}, *out = NULL;
    int nout = 0;
    if (reference_has(c, "attention_mask")) in[1] = reference_get(c, "attention_mask");
    syz_model_call(c->model, "forward", in, 2, &out, 1, &nout);
    check_ok(out);
    assert_int_equal(nout, 1);
    return out;
}

static void outputs_and_gradients(void **state) {
    (void)state;
    for (int k = 0; k < CASES; k++) {
        reference_case c = reference_open(cases[k]);
        check_close(forward(&c), reference_get(&c, "last_hidden_state"), 1e-5); /* the fused attention */
        syz_model_set_requires_grad(c.model, true);
        syz_tensor *out = forward(&c);
        check_close(out, reference_get(&c, "last_hidden_state"), 1e-5);
        assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
        reference_gradients(&c, "", 1e-4);
        reference_close(&c);
    }
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("t5_b");
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *out[2], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    for (int on = 0; on < 2; on++) {
        syz_model_set_checkpointing(c.model, on);
        out[on] = forward(&c);
        assert_int_equal(syz_backward(out[on], reference_get(&c, "grad_output")), SYZ_OK);
        reference_take_gradients(c.model, grads[on]);
    }
    reference_same(out[1], out[0]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

/* Padding has no influence on what is read, whatever tokens lie there. */
static void masked_tokens_are_passed_over(void **state) {
    (void)state;
    reference_case c = reference_open("t5_c");
    syz_tensor *ids = syz_copy(reference_get(&c, "input_ids")), *mask = reference_get(&c, "attention_mask"), *out[2];
    int n, length = (int)ids->shape.dim[1], read = 41;
    for (int changed = 0; changed < 2; changed++) {
        for (int t = read; changed && t < length; t++)
            syz_i64(ids)[length + t] = (syz_i64(ids)[length + t] + 1) % 21;
        syz_tensor *in[2] = {ids, mask};
        syz_model_call(c.model, "forward", in, 2, &out[changed], 1, &n);
        out[changed] = syz_slice(syz_slice(out[changed], 0, 1, 2), 1, 0, read);
    }
    reference_same(out[1], out[0]);
    reference_close(&c);
}

/* Checkpoints of transformers store the shared table once or twice; weights kept in bf16 give nearly the same. */
static void published_files_load(void **state) {
    (void)state;
    reference_case c = reference_open("t5_a");
    const char *names[MAX_PARAMS];
    syz_tensor *tensors[MAX_PARAMS];
    int64_t n = syz_model_param_count(c.model);
    for (int64_t i = 0; i < n; i++) {
        names[i] = syz_model_param_name(c.model, i);
        tensors[i] = syz_cast(syz_model_param(c.model, i), SYZ_BF16);
    }
    names[n] = "encoder.embed_tokens.weight";
    tensors[n] = tensors[syz_model_param_find(c.model, "shared.weight")];
    assert_int_equal(syz_model_save(c.model, temporary_folder(), SYZ_F32), SYZ_OK);
    assert_int_equal(syz_weights_save(temporary_path("model.safetensors"), names, tensors, n + 1, NULL, 0), SYZ_OK);
    syz_model *f32 = c.model;
    assert_int_equal(syz_model_load_stored(&c.model, temporary_folder()), SYZ_OK);
    assert_int_equal(syz_tensor_dtype(syz_model_param(c.model, 0)), SYZ_BF16);
    double error = check_error(syz_cast(forward(&c), SYZ_F32), reference_get(&c, "last_hidden_state"));
    assert_true(error > 0 && error < 5e-2);
    syz_model_release(f32);
    reference_close(&c);
}

/* A file alone tells its configuration; the table may have either name, or both. */
static void lone_files_load(void **state) {
    (void)state;
    static const char *const tables[][2] = {
        {"shared.weight"}, {"encoder.embed_tokens.weight"}, {"shared.weight", "encoder.embed_tokens.weight"}};
    for (int k = 0; k < 3; k++) {
        reference_case c = reference_open("t5_d"); /* the distance that every published T5 has */
        const char *names[MAX_PARAMS];
        syz_tensor *tensors[MAX_PARAMS];
        int64_t n = 0;
        for (int64_t i = 0; i < syz_model_param_count(c.model); i++) {
            bool table = strcmp(syz_model_param_name(c.model, i), "shared.weight") == 0;
            for (int t = 0; t < (table ? 2 : 1); t++) {
                names[n] = table ? tables[k][t] : syz_model_param_name(c.model, i);
                tensors[n] = syz_model_param(c.model, i);
                if (names[n]) n++;
            }
        }
        syz_model *whole = c.model;
        remove(temporary_path("config.json")); /* of another test */
        assert_int_equal(syz_weights_save(temporary_path("t5.safetensors"), names, tensors, n, NULL, 0), SYZ_OK);
        assert_int_equal(syz_model_load(&c.model, temporary_path("t5.safetensors")), SYZ_OK);
        check_close(forward(&c), reference_get(&c, "last_hidden_state"), 1e-5);
        syz_model_release(whole);
        reference_close(&c);
    }
}

static void files_that_do_not_tell_are_refused(void **state) {
    (void)state;
    const char *name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    syz_tensor *table = syz_zeros(SYZ_F32, SYZ_SHAPE(32, 4));
    syz_model *m;
    remove(temporary_path("config.json")); /* of another test */
    assert_int_equal(syz_weights_save(temporary_path("t5.safetensors"), &name, &table, 1, NULL, 0), SYZ_OK);
    check_fails_with(syz_model_load(&m, temporary_path("t5.safetensors")), SYZ_EFORMAT,
                     "its shapes do not tell the configuration of a T5 encoder");
}

static void wrong_inputs_and_configurations_are_named(void **state) {
    (void)state;
    syz_set_device(0);
    reference_case c = reference_open("t5_a");
    syz_tensor *in[2] = {syz_zeros(SYZ_F32, SYZ_SHAPE(1, 4)), NULL}, *out;
    syz_model *m;
    int n;
    check_fails_with(syz_model_call(c.model, "forward", in, 2, &out, 1, &n), SYZ_ESHAPE, "must be i64 [B,T]");
    in[0] = syz_full(SYZ_I64, SYZ_SHAPE(1, 4), 40);
    check_fails_with(syz_model_call(c.model, "forward", in, 2, &out, 1, &n), SYZ_EINVAL, "40");
    in[0] = syz_zeros(SYZ_I64, SYZ_SHAPE(1, 4)), in[1] = syz_zeros(SYZ_I64, SYZ_SHAPE(1, 5));
    check_fails_with(syz_model_call(c.model, "forward", in, 2, &out, 1, &n), SYZ_ESHAPE, "attention_mask");
    check_fails_with(
        syz_model_create(&m, "{\"_class_name\": \"T5EncoderModel\", \"feed_forward_proj\": \"gated-silu\"}"),
        SYZ_EUNSUPPORTED, "feed_forward_proj");
    check_fails_with(
        syz_model_create(&m, "{\"_class_name\": \"T5EncoderModel\", \"relative_attention_max_distance\": 8}"),
        SYZ_EUNSUPPORTED, "relative_attention_max_distance");
    reference_close(&c);
}

/* Starting values have the deviations of transformers, and a fresh encoder learns. */
static void fresh_weights(void **state) {
    (void)state;
    reference_case c = reference_open("t5_b");
    assert_int_equal(syz_model_init(c.model, 3), SYZ_OK);
    syz_model_set_requires_grad(c.model, true);
    assert_int_equal(syz_backward(forward(&c), reference_get(&c, "grad_output")), SYZ_OK);
    for (int64_t i = 0; i < syz_model_param_count(c.model); i++)
        assert_true(reference_peak(syz_grad(syz_model_param(c.model, i))) > 0);
    reference_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(outputs_and_gradients),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(masked_tokens_are_passed_over),
        CHECK_TEST(published_files_load),
        CHECK_TEST(lone_files_load),
        CHECK_TEST(files_that_do_not_tell_are_refused),
        CHECK_TEST(wrong_inputs_and_configurations_are_named),
        CHECK_TEST(fresh_weights),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
