/* Models as named parameters: starting values, files, and the errors that a wrong file gives. */
#include "core/alloc.h"
#include "models/reference.h"
#include "unit/temporary.h"

#include <sys/stat.h>

static const char small_config[] =
    "{\"_class_name\": \"FluxTransformer2DModel\", \"in_channels\": 4, \"num_layers\": 1,"
    "\"num_single_layers\": 1, \"num_attention_heads\": 2, \"attention_head_dim\": 6,"
    "\"axes_dims_rope\": [2, 2, 2], \"joint_attention_dim\": 5,"
    "\"pooled_projection_dim\": 3}";

static syz_model *create(const char *config) {
    syz_model *m;
    syz_model_create(&m, config);
    check_ok(m);
    return m;
}

static syz_tensor *param(const syz_model *m, const char *name) {
    int64_t index = syz_model_param_find(m, name);
    assert_true(index >= 0);
    syz_tensor *t = syz_model_param(m, index);
    check_ok(t);
    return t;
}

static void starting_values(void **state) {
    (void)state;
    syz_model *a = create(small_config), *b = create(small_config);
    check_fails_with(syz_model_param(a, 0), SYZ_EINVAL, "no values yet");
    assert_int_equal(syz_model_init(a, 5), SYZ_OK);
    syz_model_init(b, 6);
    syz_tensor *kept = param(b, "x_embedder.weight");
    assert_memory_not_equal(syz_data(param(a, "x_embedder.weight")), syz_data(kept), syz_nbytes(kept));
    syz_model_init(b, 5);
    assert_ptr_equal(param(b, "x_embedder.weight"), kept); /* references stay valid */
    for (int64_t i = 0; i < syz_model_param_count(a); i++)
        reference_same(syz_model_param(b, i), syz_model_param(a, i));
    syz_tensor *w = param(a, "context_embedder.weight"), *v = param(a, "single_transformer_blocks.0.attn.to_q.weight");
    assert_true(reference_peak(w) <= 1 / sqrt(5) && reference_peak(w) > 0.9 / sqrt(5));
    assert_true(reference_peak(v) <= 1 / sqrt(12) && reference_peak(v) > 0.9 / sqrt(12));
    syz_tensor *other = param(a, "single_transformer_blocks.0.attn.to_k.weight");
    assert_memory_not_equal(syz_data(v), syz_data(other), syz_nbytes(v)); /* every name has numbers of its own */
    assert_true(reference_peak(param(a, "norm_out.linear.weight")) == 0);
    assert_float_equal(syz_f32(param(a, "transformer_blocks.0.attn.norm_q.weight"))[3], 1, 0);
    syz_model_release(a);
    syz_model_release(b);
}

/* A layer's start depends on the seed and its name, not on what else the model has. */
static void deeper_models_start_alike(void **state) {
    (void)state;
    char deeper[sizeof small_config];
    strcpy(deeper, small_config);
    *(strstr(deeper, "num_layers\": 1") + strlen("num_layers\": ")) = '3';
    syz_model *a = create(small_config), *b = create(deeper);
    syz_model_init(a, 5);
    syz_model_init(b, 5);
    assert_true(syz_model_param_count(b) > syz_model_param_count(a));
    for (int64_t i = 0; i < syz_model_param_count(a); i++)
        reference_same(param(b, syz_model_param_name(a, i)), syz_model_param(a, i));
    syz_model_release(a);
    syz_model_release(b);
}

static void save_and_load(void **state) {
    (void)state;
    reference_case c = reference_open("flux_b");
    syz_model *m;
    assert_int_equal(syz_model_save(c.model, temporary_path("copy"), SYZ_F32), SYZ_OK);
    assert_int_equal(syz_model_load(&m, temporary_path("copy")), SYZ_OK);
    assert_string_equal(syz_model_class(m), "FluxTransformer2DModel");
    assert_string_equal(syz_model_config(m), syz_model_config(c.model));
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        assert_string_equal(syz_model_param_name(m, i), syz_model_param_name(c.model, i));
        reference_same(syz_model_param(m, i), syz_model_param(c.model, i));
    }
    syz_model_release(m);
    reference_close(&c);
}

/* bf16 on disk: f32 in memory, or as stored on request. */
static void half_precision_files(void **state) {
    (void)state;
    reference_case c = reference_open("flux_b");
    syz_model *m;
    assert_int_equal(syz_model_save(c.model, temporary_path("half"), SYZ_BF16), SYZ_OK);
    assert_int_equal(syz_model_load(&m, temporary_path("half")), SYZ_OK);
    syz_tensor *original = syz_model_param(c.model, 3), *rounded = syz_cast(syz_cast(original, SYZ_BF16), SYZ_F32);
    reference_same(syz_model_param(m, 3), rounded);
    syz_model_release(m);
    assert_int_equal(syz_model_load_stored(&m, temporary_path("half")), SYZ_OK);
    assert_int_equal(syz_tensor_dtype(syz_model_param(m, 3)), SYZ_BF16);
    reference_same(syz_cast(syz_model_param(m, 3), SYZ_F32), rounded);
    syz_model_release(m);
    check_fails_with(syz_model_save(c.model, temporary_path("half"), SYZ_I64), SYZ_EDTYPE, "i64");
    reference_close(&c);
}

/* ---- files that do not fit ---- */

enum { MAX_PARAMS = 256 };

/* A folder whose weights are those of `m` with one name replaced (NULL: left out) and perhaps an extra one. */
static const char *write_variant(const syz_model *m, const char *old, const char *new, syz_tensor *value,
                                 const char *extra) {
    const char *names[MAX_PARAMS];
    syz_tensor *tensors[MAX_PARAMS];
    int64_t n = 0;
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        bool here = old && strcmp(syz_model_param_name(m, i), old) == 0;
        if (here && !new) continue;
        names[n] = here ? new : syz_model_param_name(m, i);
        tensors[n++] = here && value ? value : syz_model_param(m, i);
    }
    if (extra) {
        names[n] = extra;
        tensors[n++] = syz_zeros(SYZ_F32, SYZ_SHAPE(1));
    }
    assert_int_equal(syz_model_save(m, temporary_path("variant"), SYZ_F32), SYZ_OK);
    const char *path = temporary_path("variant/diffusion_pytorch_model.safetensors");
    assert_int_equal(syz_weights_save(path, names, tensors, n, NULL, 0), SYZ_OK);
    return temporary_path("variant");
}

static void wrong_weights_are_named(void **state) {
    (void)state;
    syz_model *a = create(small_config), *b;
    syz_model_init(a, 1);
    const char *folder = write_variant(a, "proj_out.bias", NULL, NULL, NULL);
    check_fails_with(syz_model_load(&b, folder), SYZ_EFORMAT, "\"proj_out.bias\" is missing");
    assert_null(b);
    folder = write_variant(a, NULL, NULL, NULL, "lora.up");
    check_fails_with(syz_model_load(&b, folder), SYZ_EFORMAT, "\"lora.up\" does not belong");
    folder = write_variant(a, "proj_out.bias", "proj_out.bias", syz_zeros(SYZ_F32, SYZ_SHAPE(2, 2)), NULL);
    check_fails_with(syz_model_load(&b, folder), SYZ_EFORMAT, "\"proj_out.bias\" has shape [2,2]");
    folder = write_variant(a, "proj_out.bias", "proj_out.bias", syz_zeros(SYZ_I64, SYZ_SHAPE(4)), NULL);
    check_fails_with(syz_model_load(&b, folder), SYZ_EFORMAT, "I64");
    check_fails_with(syz_model_load(&b, temporary_path("nothing")), SYZ_ENOTFOUND, "nothing/config.json");
    syz_model_release(a);
}

static void no_weights(void **state) {
    (void)state;
    syz_model *m;
    assert_int_equal(mkdir(temporary_path("bare"), 0700), 0);
    temporary_file("bare/config.json", small_config, strlen(small_config));
    check_fails_with(syz_model_load(&m, temporary_path("bare")), SYZ_ENOTFOUND, "holds no weights");
}

static void wrong_configurations_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        syz_status status;
    } cases[] = {
        {"[1]", "must hold a JSON object", SYZ_EFORMAT},
        {"{\"in_channels\": 4}", "names no model class", SYZ_EFORMAT},
        {"{\"_class_name\": \"GPT\"}", "\"GPT\" is not known", SYZ_EUNSUPPORTED},
        {"{\"architectures\": [\"GPT\"]}", "\"GPT\" is not known", SYZ_EUNSUPPORTED},
        {"{\"_class_name\": \"FluxTransformer2DModel\", \"num_layers\": -1}", "\"num_layers\" is -1", SYZ_EFORMAT},
        {"{\"_class_name\": \"FluxTransformer2DModel\", \"num_layers\": \"2\"}", "\"num_layers\" must be an integer",
         SYZ_EFORMAT},
        {"{\"_class_name\": \"FluxTransformer2DModel\", \"axes_dims_rope\": [2, 4]}", "\"axes_dims_rope\" must add up",
         SYZ_EUNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        syz_model *m;
        check_fails_with(syz_model_create(&m, cases[i].text), cases[i].status, cases[i].message);
        assert_null(m);
    }
}

/* Whatever allocation fails while a model is loaded, it is reported and nothing leaks. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    size_t before = syz_memory_stats().live;
    for (int n = 0;; n++) {
        assert_true(n < 10000);
        syz_model *m;
        syz_fault_set(n, false);
        syz_status status = syz_model_load(&m, reference_folder("flux_b"));
        syz_fault_set(-1, false);
        syz_model_release(m);
        assert_int_equal(syz_memory_stats().live, before);
        if (status == SYZ_OK) break;
        assert_int_equal(status, SYZ_ENOMEM);
        syz_error_clear();
    }
}

static void count_bytes(void *context, uint64_t done, uint64_t total) {
    uint64_t *last = context;
    assert_true(done > last[0] && done <= total);
    last[0] = done;
    last[1] = total;
}

/* A model without values is drawn while it is written: what comes out is what init and save give. */
static void random_weights(void **state) {
    (void)state;
    syz_model *m = create(small_config), *a, *b;
    uint64_t counted[2] = {0};
    syz_random_weights how = {.seed = 9, .zeros = true, .progress = count_bytes, .context = counted};
    const char *folder = temporary_path("random");
    assert_int_equal(syz_model_save_random(m, folder, SYZ_F32, SYZ_MAX_SHARD_BYTES, &how), SYZ_OK);
    assert_int_equal(counted[0], counted[1]);
    check_fails_with(syz_model_param(m, 0), SYZ_EINVAL, "no values yet");
    assert_int_equal(syz_model_load(&a, folder), SYZ_OK);
    assert_int_equal(syz_model_init(m, 9), SYZ_OK);
    for (int64_t i = 0; i < syz_model_param_count(m); i++)
        reference_same(syz_model_param(a, i), syz_model_param(m, i));
    how.zeros = false;
    how.progress = NULL;
    assert_int_equal(syz_model_save_random(m, folder, SYZ_F32, SYZ_MAX_SHARD_BYTES, &how), SYZ_OK);
    assert_int_equal(syz_model_load(&b, folder), SYZ_OK);
    assert_true(reference_peak(param(a, "norm_out.linear.weight")) == 0);
    assert_true(reference_peak(param(b, "norm_out.linear.weight")) > 0.02);
    reference_same(param(b, "norm_out.linear.bias"), param(a, "norm_out.linear.bias"));
    syz_model_release(m);
    syz_model_release(a);
    syz_model_release(b);
}

static void random_weights_may_fail(void **state) {
    (void)state;
    syz_model *m = create(small_config);
    syz_random_weights how = {.seed = 1};
    const char *folder = temporary_path("failing");
    size_t before = syz_memory_stats().live;
    for (int n = 0;; n++) {
        assert_true(n < 10000);
        syz_fault_set(n, false);
        syz_status status = syz_model_save_random(m, folder, SYZ_BF16, 4000, &how);
        syz_fault_set(-1, false);
        assert_int_equal(syz_memory_stats().live, before);
        if (status == SYZ_OK) break;
        assert_int_equal(status, SYZ_ENOMEM);
        syz_error_clear();
    }
    syz_model_release(m);
}

/* Names and shapes alone tell whether weights are a model's. */
static void weights_are_checked_without_reading(void **state) {
    (void)state;
    reference_case c = reference_open("flux_b");
    syz_model *m = create(small_config);
    assert_int_equal(syz_model_check(c.model, reference_folder("flux_b")), SYZ_OK);
    check_fails_with(syz_model_check(m, reference_folder("flux_b")), SYZ_EFORMAT, "has shape");
    check_fails_with(syz_model_check(m, temporary_path("nowhere")), SYZ_ENOTFOUND, "holds no weights");
    syz_model_release(m);
    reference_close(&c);
}

static void methods_describe_themselves(void **state) {
    (void)state;
    syz_model *m = create(small_config);
    assert_int_equal(syz_model_method_count(m), 2);
    assert_string_equal(syz_model_method_name(m, 0), "forward");
    assert_string_equal(syz_model_method_name(m, 1), "modulation");
    assert_string_equal(syz_model_method_outputs(m, 0), "sample");
    assert_non_null(strstr(syz_model_method_inputs(m, 0), "guidance?"));
    syz_model_release(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(starting_values),
        CHECK_TEST(deeper_models_start_alike),
        CHECK_TEST(save_and_load),
        CHECK_TEST(half_precision_files),
        CHECK_TEST(wrong_weights_are_named),
        CHECK_TEST(no_weights),
        CHECK_TEST(wrong_configurations_are_named),
        CHECK_TEST(every_allocation_may_fail),
        CHECK_TEST(random_weights),
        CHECK_TEST(random_weights_may_fail),
        CHECK_TEST(weights_are_checked_without_reading),
        CHECK_TEST(methods_describe_themselves),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
