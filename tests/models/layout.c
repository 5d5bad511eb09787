/* Checkpoints in other libraries' names: the same parameters as from our own, and errors in the file's names. */
#include "models/layout.h"
#include "core/alloc.h"
#include "models/reference.h"
#include "unit/temporary.h"

#include <stdlib.h>

enum { MAX_TENSORS = 256, INPUTS = 7 };

/* To be freed. */
static char *read_config(const char *name) {
    char path[300];
    uint8_t *data;
    size_t size;
    snprintf(path, sizeof path, "%s/config.json", reference_folder(name));
    assert_int_equal(syz_file_read(&data, &size, path, 1 << 16), SYZ_OK);
    char *text = calloc(size + 1, 1);
    assert_non_null(text);
    memcpy(text, data, size);
    free(data);
    return text;
}

static const char *layout_file(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "tests/models/data/layouts/%s.safetensors", name);
    return path;
}

static syz_model *load_as(const char *path, const char *ours, bool stored) {
    syz_model *m;
    char *config = read_config(ours);
    syz_model_load_as(&m, path, config, stored);
    check_ok(m);
    free(config);
    return m;
}

static void check_same(const char *theirs, const char *ours) {
    syz_model *expected;
    syz_model_load(&expected, reference_folder(ours));
    check_ok(expected);
    for (int stored = 0; stored < 2; stored++) {
        syz_model *m = load_as(layout_file(theirs), ours, stored);
        assert_int_equal(syz_model_param_count(m), syz_model_param_count(expected));
        for (int64_t i = 0; i < syz_model_param_count(m); i++) {
            assert_string_equal(syz_model_param_name(m, i), syz_model_param_name(expected, i));
            reference_same(syz_model_param(m, i), syz_model_param(expected, i));
        }
        syz_model_release(m);
    }
    syz_model_release(expected);
}

static void flux_originals(void **state) {
    (void)state;
    check_same("flux_schnell", "flux_a");
    check_same("flux_dev", "flux_b");
    check_same("flux_comfy", "flux_c");
}

static void vae_originals(void **state) {
    (void)state;
    check_same("vae_a", "vae_a");
    check_same("vae_b", "vae_b");
}

/* From the file to diffusers' output in one go. */
static void original_gives_the_reference_output(void **state) {
    (void)state;
    static const char *const names[INPUTS] = {
        "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids",
    };
    reference_case c = reference_open("flux_b");
    syz_model *m = load_as(layout_file("flux_dev"), "flux_b", true);
    syz_tensor *in[INPUTS], *out;
    int nout;
    for (int k = 0; k < INPUTS; k++)
        in[k] = reference_get(&c, names[k]);
    syz_model_call(m, "forward", in, INPUTS, &out, 1, &nout);
    check_close(out, reference_get(&c, "output"), 1e-5);
    syz_model_release(m);
    reference_close(&c);
}

/* A fused matrix is not copied: its three parts lie one after the other in the mapped file. */
static void slices_share_the_file(void **state) {
    (void)state;
    syz_model *m = load_as(layout_file("flux_dev"), "flux_b", true);
    size_t before = syz_memory_stats().live;
    const uint8_t *data[3];
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "transformer_blocks.0.attn.to_%s.weight", names[i]);
        data[i] = syz_data(syz_model_param(m, syz_model_param_find(m, name)));
    }
    assert_ptr_equal(data[1], data[0] + 18 * 18 * sizeof(float));
    assert_ptr_equal(data[2], data[1] + 18 * 18 * sizeof(float));
    assert_int_equal(syz_memory_stats().live, before);
    syz_model_release(m);
}

/* ---- a small layout of each kind of rule ---- */

typedef struct {
    syz_params params;
    syz_weights *weights;
    const char *names[MAX_TENSORS];
    syz_tensor *tensors[MAX_TENSORS];
    int64_t count;
} sample;

static void put(sample *s, const char *name, syz_shape shape) {
    syz_tensor *t = syz_empty(SYZ_F32, shape);
    check_ok(t);
    for (int64_t i = 0; i < syz_numel(t); i++)
        ((float *)syz_data(t))[i] = (float)(100 * s->count + i);
    s->names[s->count] = name;
    s->tensors[s->count++] = t;
}

static bool ignore_steps(const char *name) {
    return strcmp(name, "steps") == 0;
}

static const syz_layout_rule rules[] = {
    {"block.#.k.*", "layers.@.kv.*", SYZ_LAYOUT_ROWS},
    {"block.#.v.*", "layers.@.kv.*", SYZ_LAYOUT_ROWS},
    {"out.weight", "projection", SYZ_LAYOUT_TRANSPOSED},
    {"mod", "modulation", SYZ_LAYOUT_SWAPPED_HALVES},
    {"patch", "conv", SYZ_LAYOUT_RESHAPED},
    {"bias", "new_bias", SYZ_LAYOUT_SAME},
    {"bias", "old_bias", SYZ_LAYOUT_SAME},
    {0},
};

static const char *const prefixes[] = {"module.", NULL};
static const syz_layout sample_layouts[] = {{"sample", "projection", prefixes, rules, ignore_steps, NULL}, {0}};

static void declare(sample *s) {
    *s = (sample){0};
    for (int i = 0; i < 2; i++) {
        syz_params_add(&s->params, syz_pathf("block.%d.k.weight", i).text, SYZ_SHAPE(2, 3), SYZ_INIT_ZEROS);
        syz_params_add(&s->params, syz_pathf("block.%d.v.weight", i).text, SYZ_SHAPE(1, 3), SYZ_INIT_ZEROS);
    }
    syz_params_add(&s->params, "out.weight", SYZ_SHAPE(2, 3), SYZ_INIT_ZEROS);
    syz_params_add(&s->params, "mod", SYZ_SHAPE(4), SYZ_INIT_ZEROS);
    syz_params_add(&s->params, "patch", SYZ_SHAPE(2, 2), SYZ_INIT_ZEROS);
    syz_params_add(&s->params, "bias", SYZ_SHAPE(1), SYZ_INIT_ZEROS);
    put(s, "layers.0.kv.weight", SYZ_SHAPE(3, 3));
    put(s, "layers.1.kv.weight", SYZ_SHAPE(3, 3));
    put(s, "projection", SYZ_SHAPE(3, 2));
    put(s, "modulation", SYZ_SHAPE(4));
    put(s, "conv", SYZ_SHAPE(2, 2, 1, 1));
    put(s, "old_bias", SYZ_SHAPE(1));
    put(s, "steps", SYZ_SHAPE(1));
}

static void write_sample(sample *s) {
    const char *path = temporary_path("sample.safetensors");
    assert_int_equal(syz_weights_save(path, s->names, s->tensors, s->count, NULL, 0), SYZ_OK);
    s->weights = syz_weights_open(path);
    check_ok(s->weights);
}

static syz_status load_sample(sample *s) {
    syz_naming naming = syz_layout_find(sample_layouts, s->weights);
    syz_source *sources = syz_layout_resolve(&s->params, s->weights, "sample", naming, NULL);
    syz_status status = sources ? syz_params_load(&s->params, s->weights, sources, false) : syz_error_status();
    free(sources);
    return status;
}

static void close_sample(sample *s) {
    syz_weights_close(s->weights);
    syz_params_free(&s->params);
}

static void check_values(const sample *s, const char *name, int count, const float expected[]) {
    const syz_tensor *t = s->params.items[syz_params_find(&s->params, name)].tensor;
    check_ok(t);
    assert_int_equal(syz_numel(t), count);
    assert_memory_equal(syz_data(t), expected, (size_t)count * sizeof *expected);
}

static void every_kind_of_rule(void **state) {
    (void)state;
    sample s;
    declare(&s);
    write_sample(&s);
    assert_int_equal(load_sample(&s), SYZ_OK);
    check_values(&s, "block.0.k.weight", 6, (float[]){100, 101, 102, 103, 104, 105}); /* layers.1: counted down */
    check_values(&s, "block.0.v.weight", 3, (float[]){106, 107, 108});
    check_values(&s, "block.1.v.weight", 3, (float[]){6, 7, 8});
    check_values(&s, "out.weight", 6, (float[]){200, 202, 204, 201, 203, 205});
    check_values(&s, "mod", 4, (float[]){302, 303, 300, 301});
    check_values(&s, "patch", 4, (float[]){400, 401, 402, 403});
    check_values(&s, "bias", 1, (float[]){500}); /* the second alternative */
    close_sample(&s);
}

/* With a prefix, tensors without it are another model's. */
static void prefixed_names(void **state) {
    (void)state;
    sample s;
    char names[MAX_TENSORS][64];
    declare(&s);
    for (int64_t i = 0; i < s.count; i++) {
        snprintf(names[i], sizeof names[i], "module.%s", s.names[i]);
        s.names[i] = names[i];
    }
    put(&s, "elsewhere", SYZ_SHAPE(5));
    write_sample(&s);
    assert_int_equal(load_sample(&s), SYZ_OK);
    check_values(&s, "patch", 4, (float[]){400, 401, 402, 403});
    close_sample(&s);
}

static void check_refused(int64_t replaced, const char *name, syz_shape shape, const char *message) {
    sample s;
    declare(&s);
    if (replaced < s.count) {
        s.names[replaced] = name;
        s.tensors[replaced] = syz_zeros(SYZ_F32, shape);
    } else {
        put(&s, name, shape);
    }
    write_sample(&s);
    check_fails_with(load_sample(&s), SYZ_EFORMAT, message);
    close_sample(&s);
}

static void misfits_are_named_as_the_file_does(void **state) {
    (void)state;
    check_refused(0, "other", SYZ_SHAPE(3, 3), "sample: \"layers.0.kv.weight\" is missing");
    check_refused(0, "layers.0.kv.weight", SYZ_SHAPE(4, 3),
                  "\"layers.0.kv.weight\" has shape [4,3], the configuration expects [3,3]");
    check_refused(2, "projection", SYZ_SHAPE(2, 3), "\"projection\" has shape [2,3], the configuration expects [3,2]");
    check_refused(4, "conv", SYZ_SHAPE(5), "\"conv\" has shape [5], the configuration expects [2,2]");
    check_refused(5, "newest_bias", SYZ_SHAPE(1), "\"new_bias\" is missing");
    check_refused(7, "extra", SYZ_SHAPE(1), "\"extra\" does not belong");
    check_refused(7, "new_bias", SYZ_SHAPE(1), "\"old_bias\" does not belong"); /* both alternatives */
}

static void impossible_models(void **state) {
    (void)state;
    sample s;
    declare(&s);
    write_sample(&s);
    syz_params_add(&s.params, "gate", SYZ_SHAPE(1), SYZ_INIT_ZEROS);
    check_fails_with(load_sample(&s), SYZ_EUNSUPPORTED, "layout \"sample\" has no place for \"gate\"");
    close_sample(&s);
}

/* ---- files without a configuration ---- */

static void configuration_from_the_weights(void **state) {
    (void)state;
    syz_model *m;
    check_fails_with(syz_model_load(&m, layout_file("flux_dev")), SYZ_EUNSUPPORTED, "do not tell \"axes_dims_rope\"");
    assert_null(m);
    check_fails_with(syz_model_load(&m, layout_file("vae_a")), SYZ_EUNSUPPORTED, "norm_num_groups");
    check_fails_with(syz_model_load(&m, "tests/models/data/flux_a/reference.safetensors"), SYZ_EFORMAT, "missing");
    check_fails_with(syz_model_load(&m, temporary_path("sample.safetensors")), SYZ_ENOTFOUND, "config.json beside it");
    check_fails_with(syz_model_load(&m, temporary_path("none.safetensors")), SYZ_ENOTFOUND, "none.safetensors");
    check_fails_with(syz_model_load_as(&m, layout_file("vae_a"), "[]", false), SYZ_EFORMAT, "must hold a JSON object");
    syz_model_load(&m, "tests/models/data/flux_a/diffusion_pytorch_model.safetensors"); /* the config.json beside it */
    check_ok(m);
    syz_model_release(m);
}

/* Whatever allocation fails, it is reported and nothing leaks. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    char *config = read_config("vae_a");
    size_t before = syz_memory_stats().live;
    for (int n = 0;; n++) {
        assert_true(n < 10000);
        syz_model *m;
        syz_fault_set(n, false);
        syz_status status = syz_model_load_as(&m, layout_file("vae_a"), config, true);
        syz_fault_set(-1, false);
        syz_model_release(m);
        assert_int_equal(syz_memory_stats().live, before);
        if (status == SYZ_OK) break;
        assert_int_equal(status, SYZ_ENOMEM);
        syz_error_clear();
    }
    free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(flux_originals),
        CHECK_TEST(vae_originals),
        CHECK_TEST(original_gives_the_reference_output),
        CHECK_TEST(slices_share_the_file),
        CHECK_TEST(every_kind_of_rule),
        CHECK_TEST(prefixed_names),
        CHECK_TEST(misfits_are_named_as_the_file_does),
        CHECK_TEST(impossible_models),
        CHECK_TEST(configuration_from_the_weights),
        CHECK_TEST(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
