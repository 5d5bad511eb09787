/* LoRA against peft: outputs, gradients and merged weights of adapters that diffusers and PEFT have saved; and what is
 * refused. */
#include "core/alloc.h"
#include "models/model.h"
#include "models/reference.h"
#include "unit/temporary.h"

#include <stdlib.h>
#include <unistd.h>

enum { INPUTS = 7 };

#define BASE  "flux_a"
#define LAYER "transformer_blocks.0.attn.to_q"

/* The inputs are those of the base's own reference; the first three collect gradients. */
static syz_tensor *forward(syz_model *m, syz_tensor *leaf[3]) {
    static const char *const names[INPUTS] = {
        "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids"};
    char path[512];
    snprintf(path, sizeof path, "%s/reference.safetensors", reference_folder(BASE));
    syz_weights *values = syz_weights_open(path);
    check_ok(values);
    syz_tensor *in[INPUTS] = {0}, *out = NULL;
    for (int k = 0; k < INPUTS; k++)
        if (syz_weights_find(values, names[k]) >= 0) in[k] = syz_weights_get(values, names[k]);
    for (int k = 0; k < 3; k++)
        leaf[k] = in[k] = reference_leaf(in[k]);
    int nout = 0;
    syz_model_call(m, "forward", in, INPUTS, &out, 1, &nout);
    syz_weights_close(values);
    check_ok(out);
    return out;
}

/* The case's reference tensors with the base as its model. */
static reference_case open_case(const char *name) {
    reference_case c = {.name = name};
    char path[512];
    assert_int_equal(syz_model_load(&c.model, reference_folder(BASE)), SYZ_OK);
    assert_int_equal(syz_model_to_device(c.model, check_device()), SYZ_OK);
    snprintf(path, sizeof path, "%s/reference.safetensors", reference_folder(name));
    c.values = syz_weights_open(path);
    check_ok(c.values);
    return c;
}

static reference_case open_adapted(const char *name) {
    reference_case c = open_case(name);
    assert_int_equal(syz_lora_load(c.model, reference_folder(name), "transformer"), SYZ_OK);
    return c;
}

static void check_adapter_gradients(const reference_case *c) {
    for (int64_t i = 0; i < syz_lora_count(c->model); i++) {
        char key[300];
        snprintf(key, sizeof key, "grad.%s", syz_lora_param_name(c->model, i));
        syz_tensor *grad = syz_grad(syz_lora_param(c->model, i));
        if (!grad) fail_msg("%s: no gradient", key);
        check_close(grad, reference_get(c, key), 1e-4);
    }
}

static void compare(const char *name) {
    reference_case c = open_adapted(name);
    syz_tensor *leaf[3], *out = forward(c.model, leaf);
    check_close(out, reference_get(&c, "output"), 1e-5);
    assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
    check_close(syz_grad(leaf[0]), reference_get(&c, "grad.hidden_states"), 1e-4);
    check_adapter_gradients(&c);
    for (int64_t i = 0; i < syz_model_param_count(c.model); i++)
        assert_null(syz_grad(syz_model_param(c.model, i)));
    reference_close(&c);
}

static void attention_only(void **state) {
    (void)state;
    compare("lora_a");
}

static void every_linear_layer(void **state) {
    (void)state;
    compare("lora_b");
}

static void patterns_and_rslora(void **state) {
    (void)state;
    compare("lora_c");
}

static void layout_of_peft(void **state) {
    (void)state;
    syz_set_device(0);
    compare("lora_d");
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = open_adapted("lora_b");
    syz_tensor *out[2], *leaf[3];
    for (int on = 0; on < 2; on++) {
        syz_model_set_checkpointing(c.model, on);
        out[on] = forward(c.model, leaf);
        assert_int_equal(syz_backward(out[on], reference_get(&c, "grad_output")), SYZ_OK);
        check_adapter_gradients(&c);
        for (int64_t i = 0; i < syz_lora_count(c.model); i++)
            syz_set_grad(syz_lora_param(c.model, i), NULL);
    }
    reference_same(out[1], out[0]);
    reference_close(&c);
}

/* Off means the base's bits, also under checkpointing, whose second run comes when they are on again. */
static void switched_off(void **state) {
    (void)state;
    double tolerance = check_device() ? 1e-6 : 0; /* on a GPU a lone layer's GELU is an epilogue of its product */
    reference_case c = open_case("lora_b");
    syz_tensor *leaf[3], *plain = forward(c.model, leaf);
    assert_int_equal(syz_lora_load(c.model, reference_folder("lora_b"), "transformer"), SYZ_OK);
    syz_model_set_checkpointing(c.model, true);
    syz_lora_set_enabled(c.model, false);
    syz_tensor *off = forward(c.model, leaf);
    check_close(off, plain, tolerance);
    syz_lora_set_enabled(c.model, true);
    assert_int_equal(syz_backward(off, reference_get(&c, "grad_output")), SYZ_OK);
    for (int64_t i = 0; i < syz_lora_count(c.model); i++)
        assert_null(syz_grad(syz_lora_param(c.model, i)));
    syz_lora_set_strength(c.model, 0);
    check_close(forward(c.model, leaf), plain, tolerance);
    syz_lora_set_strength(c.model, 1);
    check_close(forward(c.model, leaf), reference_get(&c, "output"), 1e-5);
    syz_lora_remove(c.model);
    assert_int_equal(syz_lora_count(c.model), 0);
    check_close(forward(c.model, leaf), plain, tolerance);
    reference_close(&c);
}

static syz_tensor *weight(const syz_model *m, const char *name) {
    return syz_model_param(m, syz_model_param_find(m, name));
}

/* A layer with GELU is one operation without an adapter, and two with one. */
static void gelu_of_a_layer(void **state) {
    (void)state;
    static const char *const layer = "transformer_blocks.0.ff.net.0.proj";
    reference_case c = open_adapted("lora_b");
    syz_tensor *w = weight(c.model, "transformer_blocks.0.ff.net.0.proj.weight"), *y[2];
    syz_tensor *x = check_randn(SYZ_SHAPE(2, 3, w->shape.dim[1]), 1);
    for (int on = 0; on < 2; on++) {
        syz_lora_set_enabled(c.model, on);
        check_ok(y[on] = syz_apply_linear_gelu(c.model, layer, x));
        check_close(y[on], syz_gelu_tanh(syz_apply_linear(c.model, layer, x)), 1e-6);
    }
    assert_true(check_error(y[0], y[1]) > 1e-3);
    reference_close(&c);
}

static void merged(void **state) {
    (void)state;
    reference_case c = open_case("lora_c");
    syz_tensor *leaf[3], *plain = forward(c.model, leaf), *before = syz_copy(weight(c.model, LAYER ".weight"));
    check_fails_with(syz_lora_merge(c.model), SYZ_EINVAL, "has no adapters");
    assert_int_equal(syz_lora_load(c.model, reference_folder("lora_c"), "transformer"), SYZ_OK);
    check_fails_with(syz_lora_unmerge(c.model), SYZ_EINVAL, "are not merged");
    assert_int_equal(syz_lora_merge(c.model), SYZ_OK);
    check_fails_with(syz_lora_merge(c.model), SYZ_EINVAL, "merged already");
    check_close(weight(c.model, LAYER ".weight"), reference_get(&c, "merged." LAYER ".weight"), 1e-6);
    check_close(forward(c.model, leaf), reference_get(&c, "output"), 1e-5);
    assert_int_equal(syz_lora_unmerge(c.model), SYZ_OK);
    reference_same(weight(c.model, LAYER ".weight"), before);
    assert_int_equal(syz_lora_merge(c.model), SYZ_OK);
    syz_lora_remove(c.model); /* what is merged stays */
    check_close(forward(c.model, leaf), reference_get(&c, "output"), 1e-5);
    assert_true(check_error(forward(c.model, leaf), plain) > 1e-2);
    reference_close(&c);
}

/* What is saved here is read here, in both layouts, bit for bit. tests/oracle/lora.py reads it with diffusers. */
static void saved(void **state) {
    (void)state;
    syz_set_device(0);
    static const char *const names[] = {"lora_a", "lora_b", "lora_c", "lora_d"};
    const char *kept = getenv("SYZ_LORA_OUT");
    const char *folder = kept ? kept : temporary_folder();
    for (int i = 0; i < 4; i++) {
        reference_case c = open_adapted(names[i]);
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        const char *component = i == 3 ? NULL : "transformer";
        assert_int_equal(syz_lora_save(c.model, path, component), SYZ_OK);
        syz_tensor *leaf[3], *out = forward(c.model, leaf);
        char *config = strdup(syz_lora_config(c.model));
        syz_lora_remove(c.model);
        assert_int_equal(syz_lora_load(c.model, path, component), SYZ_OK);
        assert_string_equal(syz_lora_config(c.model), config);
        reference_same(forward(c.model, leaf), out);
        free(config);
        reference_close(&c);
    }
}

/* No metadata, but an alpha beside each pair; names as a model saved alone has them; half precision. */
static void alphas_in_the_file(void **state) {
    (void)state;
    syz_set_device(0);
    enum { PREFIX = sizeof "transformer." - 1 };
    char path[512], alphas[64][128];
    snprintf(path, sizeof path, "%s/pytorch_lora_weights.safetensors", reference_folder("lora_a"));
    syz_weights *weights = syz_weights_open(path);
    check_ok(weights);
    const char *names[96];
    syz_tensor *tensors[96];
    int64_t n = 0;
    for (int64_t i = 0; i < syz_weights_count(weights); i++) {
        const char *name = syz_weights_info(weights, i).name, *a = strstr(name, ".lora_A.weight");
        names[n] = name + PREFIX;
        tensors[n++] = syz_cast(syz_weights_get(weights, name), SYZ_F16);
        if (!a) continue;
        snprintf(alphas[i], sizeof alphas[i], "%.*s.alpha", (int)(a - name - PREFIX), name + PREFIX);
        names[n] = alphas[i];
        tensors[n++] = syz_full(SYZ_F32, (syz_shape){0}, 6);
    }
    const char *made = temporary_path("alphas.safetensors");
    assert_int_equal(syz_weights_save(made, names, tensors, n, NULL, 0), SYZ_OK);
    syz_weights_close(weights);
    reference_case c = open_case("lora_a");
    assert_int_equal(syz_lora_load(c.model, made, "transformer"), SYZ_OK);
    syz_tensor *leaf[3];
    check_close(forward(c.model, leaf), reference_get(&c, "output"), 2e-3); /* f16 has 11 bits */
    reference_close(&c);
}

/* PEFT's starting values: B zero, A uniform within 1/sqrt(inputs), or normal with deviation 1/rank. */
static void starting_values(void **state) {
    (void)state;
    syz_set_device(0);
    for (int gaussian = 0; gaussian < 2; gaussian++) {
        reference_case c = open_case("lora_a");
        syz_tensor *leaf[3], *plain = forward(c.model, leaf);
        char config[256];
        snprintf(config, sizeof config, "{\"r\": 4, \"target_modules\": [\"to_q\", \"ff.net.2\"]%s}",
                 gaussian ? ", \"init_lora_weights\": \"gaussian\"" : "");
        assert_int_equal(syz_lora_attach(c.model, config, 3), SYZ_OK);
        assert_int_equal(syz_lora_count(c.model), 2 * 6); /* to_q of four blocks, ff.net.2 of two */
        double sum = 0, squares = 0, most = 0, n = 0;
        for (int64_t i = 0; i < syz_lora_count(c.model); i += 2) {
            syz_tensor *a = syz_lora_param(c.model, i);
            double unit = gaussian ? 1.0 / 4 : 1 / sqrt((double)a->shape.dim[1]);
            for (int64_t k = 0; k < syz_numel(a); k++) {
                double x = syz_f32(a)[k] / unit;
                sum += x, squares += x * x, most = fmax(most, fabs(x)), n++;
            }
            assert_true(reference_peak(syz_lora_param(c.model, i + 1)) == 0);
        }
        assert_true(fabs(sum / n) < 0.1);
        assert_true(fabs(squares / n - (gaussian ? 1 : 1.0 / 3)) < 0.12);
        assert_true(gaussian ? most > 1.5 : most <= 1);
        reference_same(forward(c.model, leaf), plain);
        reference_close(&c);
    }
}

/* Adapters on a base that stays as stored in bf16: they learn, it does not move, and there is no f32 copy of it. */
static void stored_half(void **state) {
    (void)state;
    syz_set_device(0);
    const char *folder = temporary_path("half");
    reference_case c = open_case("lora_a");
    assert_int_equal(syz_model_save(c.model, folder, SYZ_BF16), SYZ_OK);
    reference_close(&c);
    syz_model *m = NULL;
    size_t before = syz_memory_stats().live;
    assert_int_equal(syz_model_load_stored(&m, folder), SYZ_OK);
    assert_int_equal(syz_lora_attach(m, "{\"r\": 2, \"target_modules\": \"all-linear\"}", 1), SYZ_OK);
    size_t adapters = 0;
    int64_t count = syz_lora_count(m);
    syz_tensor *params[256];
    for (int64_t i = 0; i < count; i++)
        adapters += (syz_nbytes(params[i] = syz_lora_param(m, i)) + 63) / 64 * 64;
    assert_true(syz_memory_stats().live - before <= 2 * adapters); /* blocks of the pool are rounded up */
    syz_tensor *frozen = weight(m, LAYER ".weight");
    assert_int_equal(syz_tensor_dtype(frozen), SYZ_BF16);
    syz_adamw *adamw;
    assert_int_equal(syz_adamw_create(&adamw, params, count,
                                      (syz_adamw_options){.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}),
                     SYZ_OK);
    double first = 0, loss = 0;
    for (int step = 0; step < 30; step++) {
        syz_scope_push();
        syz_tensor *leaf[3], *out = forward(m, leaf), *error = syz_mean(syz_square(out), (syz_shape){0}, false);
        assert_int_equal(syz_item(&loss, error), SYZ_OK);
        if (step == 0) first = loss;
        assert_int_equal(syz_backward(error, NULL), SYZ_OK);
        assert_int_equal(syz_adamw_step(adamw, 1e-2), SYZ_OK);
        syz_adamw_zero_grad(adamw);
        syz_scope_pop();
    }
    assert_true(loss < 0.5 * first);
    assert_null(syz_grad(frozen));
    syz_adamw_free(adamw);
    syz_model_release(m);
}

/* Attach, merge, save, take off, load: whichever allocation fails, the model ends as it was, or without adapters. */
static void life(syz_model *m, const char *folder) {
    if (syz_lora_attach(m, "{\"r\": 1, \"target_modules\": [\"to_q\"]}", 5) != SYZ_OK) return;
    if (syz_lora_merge(m) != SYZ_OK || syz_lora_unmerge(m) != SYZ_OK) return;
    if (syz_lora_save(m, folder, "transformer") != SYZ_OK || syz_lora_assign(m, folder, "transformer") != SYZ_OK)
        return;
    syz_lora_remove(m);
    syz_lora_load(m, folder, "transformer");
}

static void failing_allocations(void **state) {
    (void)state;
    syz_set_device(0);
    reference_case c = open_case("lora_a");
    const char *folder = temporary_path("faults");
    syz_tensor *before = syz_copy(weight(c.model, LAYER ".weight"));
    bool done = false;
    int64_t failures = 0;
    for (int64_t n = 0; !done; n++) {
        assert_true(n < 10000);
        syz_fault_set(n, false);
        life(c.model, folder);
        syz_fault_set(-1, false);
        done = !syz_failed();
        if (!done) assert_int_equal(syz_error_status(), SYZ_ENOMEM);
        failures += !done;
        syz_error_clear();
        reference_same(weight(c.model, LAYER ".weight"), before);
        syz_lora_remove(c.model);
    }
    assert_true(failures > 50);
    reference_close(&c);
}

/* ---- what is refused ---- */

static void wrong_requests_are_named(void **state) {
    (void)state;
    syz_set_device(0);
    static const struct {
        const char *config;
        syz_status status;
        const char *says;
    } cases[] = {
        {"{\"target_modules\": [\"to_q\", \"to_z\"]}", SYZ_ENOTFOUND,
         "target \"to_z\" is no linear layer of FluxTransformer2DModel"},
        {"{\"target_modules\": [\"norm_q\"]}", SYZ_ENOTFOUND,
         "\"norm_q\" is no linear layer"},                                                /* a norm, not a layer */
        {"{\"target_modules\": [\"o_q\"]}", SYZ_ENOTFOUND, "\"o_q\" is no linear layer"}, /* ends at a dot only */
        {"{\"target_modules\": \"to_q\"}", SYZ_EINVAL, "must be a list of names of layers, or \"all-linear\""},
        {"{\"target_modules\": []}", SYZ_EINVAL, "must be a list"},
        {"{}", SYZ_EINVAL, "must be a list"},
        {"{\"r\": 21, \"target_modules\": [\"to_q\"]}", SYZ_EINVAL,
         "rank 21 of transformer_blocks.0.attn.to_q must be a whole number from 1 to 20"},
        {"{\"r\": 0, \"target_modules\": [\"to_q\"]}", SYZ_EINVAL, "rank 0 of"},
        {"{\"r\": 2, \"target_modules\": [\"to_q\"], \"use_dora\": true}", SYZ_EUNSUPPORTED, "\"use_dora\""},
        {"{\"r\": 2, \"target_modules\": [\"to_q\"], \"init_lora_weights\": \"pissa\"}", SYZ_EUNSUPPORTED, "not pissa"},
        {"{\"r\": 2, \"target_modules\": [\"to_q\"], \"rank_pattern\": {\"to_.*\": 3}}", SYZ_EUNSUPPORTED,
         "is a regular expression"},
        {"{\"r\": \"two\", \"target_modules\": [\"to_q\"]}", SYZ_EFORMAT, "\"r\""},
        {"[]", SYZ_EFORMAT, "must hold a JSON object"},
        {"{", SYZ_EFORMAT, "LoRA"},
    };
    reference_case c = open_case("lora_a");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_fails_with(syz_lora_attach(c.model, cases[i].config, 0), cases[i].status, cases[i].says);
        assert_int_equal(syz_lora_count(c.model), 0);
    }
    assert_int_equal(syz_lora_attach(c.model, "{\"r\": 2, \"target_modules\": [\"to_q\"]}", 0), SYZ_OK);
    check_fails_with(syz_lora_attach(c.model, "{\"target_modules\": [\"to_q\"]}", 0), SYZ_EINVAL,
                     "already has adapters");
    check_fails_with(syz_lora_load(c.model, reference_folder("lora_a"), "transformer"), SYZ_EINVAL,
                     "already has adapters");
    check_fails_with(syz_lora_assign(c.model, reference_folder("lora_a"), "transformer"), SYZ_EINVAL,
                     "adapts 14 layers, the model's adapters 4");
    reference_close(&c);
}

/* The file of lora_a with one change. */
typedef enum { RENAME, DROP, RESHAPE, POISON } change;

static const char *changed_file(change how, const char *name, const char *to) {
    char path[512];
    snprintf(path, sizeof path, "%s/pytorch_lora_weights.safetensors", reference_folder("lora_a"));
    syz_weights *weights = syz_weights_open(path);
    check_ok(weights);
    const char *names[64];
    syz_tensor *tensors[64];
    int64_t n = 0;
    for (int64_t i = 0; i < syz_weights_count(weights); i++) {
        names[n] = syz_weights_info(weights, i).name;
        tensors[n] = syz_copy(syz_weights_get(weights, names[n]));
        if (strcmp(names[n], name) == 0) {
            if (how == DROP) continue;
            if (how == RENAME) names[n] = to;
            if (how == RESHAPE) tensors[n] = syz_zeros(SYZ_F32, SYZ_SHAPE(3, 7));
            if (how == POISON) syz_f32(tensors[n])[1] = NAN;
        }
        n++;
    }
    const char *made = temporary_path("changed.safetensors");
    assert_int_equal(syz_weights_save(made, names, tensors, n, NULL, 0), SYZ_OK);
    syz_weights_close(weights);
    return made;
}

static void wrong_files_are_named(void **state) {
    (void)state;
    syz_set_device(0);
#define A "transformer." LAYER ".lora_A.weight"
#define B "transformer." LAYER ".lora_B.weight"
    static const struct {
        change how;
        const char *name, *to, *says;
        syz_status status;
    } cases[] = {
        {RENAME, A, "transformer.blocks.0.to_q.lora_A.weight", "adapts no linear layer of FluxTransformer2DModel",
         SYZ_EFORMAT},
        {RENAME, A, "text_encoder.layers.0.lora_A.weight", "\"text_encoder.layers.0.lora_A.weight\" adapts no linear",
         SYZ_EFORMAT},
        {RENAME, A, "lora_unet_x.lora_down.weight", "another layout (kohya's, or old diffusers')", SYZ_EUNSUPPORTED},
        {RENAME, A, "transformer." LAYER ".lora_magnitude_vector", "is no matrix of a LoRA", SYZ_EUNSUPPORTED},
        {DROP, B, NULL, "\"" B "\" is missing", SYZ_EFORMAT},
        {DROP, A, NULL, "a lora_A.weight is missing", SYZ_EFORMAT},
        {RESHAPE, A, NULL, "\"" A "\" has shape [3,7], this model's layer takes [3,20]: it was trained on another base",
         SYZ_EFORMAT},
        {POISON, B, NULL, "\"" B "\" holds values that are not finite", SYZ_EFORMAT},
    };
    reference_case c = open_case("lora_a");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = changed_file(cases[i].how, cases[i].name, cases[i].to);
        check_fails_with(syz_lora_load(c.model, path, "transformer"), cases[i].status, cases[i].says);
        assert_int_equal(syz_lora_count(c.model), 0);
    }
    check_fails_with(syz_lora_load(c.model, "tests/unit", "transformer"), SYZ_ENOTFOUND,
                     "tests/unit: holds no adapters");
    check_fails_with(syz_lora_load(c.model, "tests/none", "transformer"), SYZ_ENOTFOUND, "tests/none");
    /* Without metadata the scale is 1, as diffusers has it. */
    const char *path = changed_file(RENAME, "none", NULL);
    assert_int_equal(syz_lora_load(c.model, path, "transformer"), SYZ_OK);
    assert_non_null(strstr(syz_lora_config(c.model), "\"lora_alpha\": 3,"));
    assert_non_null(strstr(syz_lora_config(c.model), "\"r\": 3,"));
    assert_int_equal(truncate(path, 4000), 0);
    syz_lora_remove(c.model);
    check_fails_with(syz_lora_load(c.model, path, "transformer"), SYZ_EFORMAT, "changed.safetensors");
    reference_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(attention_only),
        CHECK_TEST(every_linear_layer),
        CHECK_TEST(patterns_and_rslora),
        CHECK_TEST(layout_of_peft),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(switched_off),
        CHECK_TEST(gelu_of_a_layer),
        CHECK_TEST(merged),
        CHECK_TEST(saved),
        CHECK_TEST(alphas_in_the_file),
        CHECK_TEST(starting_values),
        CHECK_TEST(stored_half),
        CHECK_TEST(failing_allocations),
        CHECK_TEST(wrong_requests_are_named),
        CHECK_TEST(wrong_files_are_named),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
