/* Every allocation of a training step fails once, and every seventh from then on: loading, a forward and a backward
 * pass, an update and a save. Each time the step ends with one clear status, nothing leaks, and once no allocation
 * fails any more the result is that of a run in which none ever did. */
#include "core/alloc.h"
#include "models/reference.h"
#include "unit/temporary.h"

enum {
    MAX_INPUTS = 7,
    MAX_OUTPUTS = 3,
    MAX_PARAMS = 256,
    MAX_ALLOCATIONS = 100000,
    STRIDE = 7 /* of failures that last; odd, so that layers alike are not always hit in the same place */
};

typedef struct {
    const char *name, *method, *inputs[MAX_INPUTS];
    int ninputs;
    bool image, checkpointing;
} fault_case;

typedef struct {
    syz_model *model;
    syz_weights *values;
    syz_adamw *optimizer;
} things;

static syz_tensor *read_input(const fault_case *c, const things *t, int k) {
    if (syz_weights_find(t->values, c->inputs[k]) < 0) return NULL;
    syz_tensor *input = syz_weights_get(t->values, c->inputs[k]);
    return c->image && input && input->shape.n == 4 ? syz_permute(input, SYZ_SHAPE(0, 2, 3, 1)) : input;
}

static void optimize(things *t) {
    syz_tensor *params[MAX_PARAMS];
    int64_t count = syz_model_param_count(t->model);
    assert_true(count <= MAX_PARAMS);
    for (int64_t i = 0; i < count; i++)
        params[i] = syz_model_param(t->model, i);
    syz_adamw_options options = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    if (syz_adamw_create(&t->optimizer, params, count, options) == SYZ_OK) syz_adamw_step(t->optimizer, 1e-3);
}

/* Stops by itself at the first failure: every call returns at once while an error is pending. */
static void train(const fault_case *c, things *t) {
    char path[512];
    syz_tensor *in[MAX_INPUTS] = {0}, *out[MAX_OUTPUTS] = {0};
    int nout = 0;
    snprintf(path, sizeof path, "%s/reference.safetensors", reference_folder(c->name));
    if (syz_model_load(&t->model, reference_folder(c->name)) != SYZ_OK) return;
    syz_model_set_requires_grad(t->model, true);
    syz_model_set_checkpointing(t->model, c->checkpointing);
    if (!(t->values = syz_weights_open(path))) return;
    for (int k = 0; k < c->ninputs && !syz_failed(); k++)
        in[k] = read_input(c, t, k);
    syz_model_call(t->model, c->method, in, c->ninputs, out, MAX_OUTPUTS, &nout);
    syz_tensor *loss = syz_failed() ? NULL : syz_sum(syz_mul(out[0], out[0]), (syz_shape){0}, false);
    if (loss && syz_backward(loss, NULL) == SYZ_OK) optimize(t);
    if (!syz_failed()) syz_model_save(t->model, temporary_path("saved"), SYZ_F32);
}

static bool attempt(const fault_case *c) {
    things t = {0};
    if (syz_scope_push() == SYZ_OK) {
        train(c, &t);
        syz_scope_pop();
    }
    syz_adamw_free(t.optimizer);
    syz_model_release(t.model);
    syz_weights_close(t.values);
    return !syz_failed();
}

static void saved_sum(char text[SYZ_SHA256_TEXT], const fault_case *c) {
    char path[1200];
    bool pipeline_part = strncmp(c->name, "flux", 4) == 0 || strncmp(c->name, "vae", 3) == 0;
    snprintf(path, sizeof path, "%s/%s", temporary_path("saved"),
             pipeline_part ? "diffusion_pytorch_model.safetensors" : "model.safetensors");
    assert_int_equal(syz_sha256_file(text, path), SYZ_OK);
}

static void survives(const fault_case *c, bool persistent) {
    char clean[SYZ_SHA256_TEXT], last[SYZ_SHA256_TEXT];
    syz_fault_set(-1, false);
    assert_true(attempt(c));
    int64_t made = syz_fault_count();
    saved_sum(clean, c);
    size_t live = syz_memory_stats().live;
    bool done = false;
    int64_t n = 0;
    while (!done && n < MAX_ALLOCATIONS) {
        syz_fault_set(n, persistent);
        done = attempt(c);
        syz_fault_set(-1, false);
        if (!done && syz_error_status() != SYZ_ENOMEM)
            fail_msg("%s: allocation %lld: %s (%s)", c->name, (long long)n, syz_error_message(), syz_error_where());
        if (!done) assert_non_null(strstr(syz_error_message(), "out of memory"));
        syz_error_clear();
        if (syz_memory_stats().live != live)
            fail_msg("%s: allocation %lld leaves %zu bytes", c->name, (long long)n, syz_memory_stats().live - live);
        assert_int_equal(syz_scope_depth(), 0);
        assert_int_equal(done, n >= made);
        if (!done) n = persistent && n + STRIDE < made ? n + STRIDE : n + 1;
    }
    assert_true(done);
    assert_int_equal(n, made);
    saved_sum(last, c);
    assert_string_equal(last, clean);
}

static const fault_case text = {.name = "clip_text_a", .method = "forward", .inputs = {"input_ids"}, .ninputs = 1},
                        decoder = {.name = "vae_a", .method = "decode", .inputs = {"latent"}, .ninputs = 1, .image = 1},
                        transformer = {.name = "flux_b",
                                       .method = "forward",
                                       .inputs = {"hidden_states", "encoder_hidden_states", "pooled_projections",
                                                  "timestep", "guidance", "img_ids", "txt_ids"},
                                       .ninputs = 7,
                                       .checkpointing = true},
                        encoder = {.name = "t5_c",
                                   .method = "forward",
                                   .inputs = {"input_ids", "attention_mask"},
                                   .ninputs = 2,
                                   .checkpointing = true},
                        reward = {.name = "image_reward_c",
                                  .method = "forward",
                                  .inputs = {"pixel_values", "input_ids", "attention_mask"},
                                  .ninputs = 3,
                                  .image = true,
                                  .checkpointing = true};

static const fault_case
    siglip = {.name = "siglip_b", .method = "forward", .inputs = {"pixel_values"}, .ninputs = 1, .image = 1},
    open_clip = {
        .name = "open_clip_c", .method = "image_features", .inputs = {"pixel_values"}, .ninputs = 1, .image = 1};

/* The steps; each is a test of its own in CTest, so that they run side by side: test_faults NAME. */
#define FAULT_CASES(X) X(text) X(decoder) X(transformer) X(encoder) X(reward) X(siglip) X(open_clip)

#define FAULT_TEST(name)                                                                                               \
    static void name##_once(void **state) {                                                                            \
        (void)state;                                                                                                   \
        survives(&name, false);                                                                                        \
    }                                                                                                                  \
    static void name##_from_then_on(void **state) {                                                                    \
        (void)state;                                                                                                   \
        survives(&name, true);                                                                                         \
    }
FAULT_CASES(FAULT_TEST)

/* A graph that outgrows the list it is collected in: the list's second and third allocation fail too. */
static bool long_chain(int links) {
    if (syz_scope_push() != SYZ_OK) return false;
    syz_tensor *x = syz_full(SYZ_F32, SYZ_SHAPE(4), 1), *y = x;
    if (x) syz_set_requires_grad(x, true);
    for (int k = 0; k < links && y; k++)
        y = syz_affine(y, 1, 1);
    y = y ? syz_sum(y, (syz_shape){0}, false) : NULL;
    if (y) syz_backward(y, NULL);
    if (!syz_failed()) assert_true(syz_f32(syz_grad(x))[3] == 1);
    syz_scope_pop();
    return !syz_failed();
}

static void chain(void **state) {
    (void)state;
    size_t live = syz_memory_stats().live;
    bool done = false;
    for (int64_t n = 0; !done && n < MAX_ALLOCATIONS; n++) {
        syz_fault_set(n, n % 2);
        done = long_chain(600);
        syz_fault_set(-1, false);
        if (!done) assert_int_equal(syz_error_status(), SYZ_ENOMEM);
        syz_error_clear();
        assert_int_equal(syz_memory_stats().live, live);
    }
    assert_true(done);
}

/* The tokenizer's folder, read whole: its tables are many small allocations. */
static void tokenizer(void **state) {
    (void)state;
    bool done = false;
    for (int64_t n = 0; !done && n < MAX_ALLOCATIONS; n++) {
        syz_tokenizer *opened = NULL;
        int64_t ids[8];
        syz_fault_set(n, n % 2);
        done = syz_tokenizer_open(&opened, "tests/models/data/pipeline/tokenizer") == SYZ_OK &&
               syz_tokenizer_encode_padded(opened, "a red cat", -1, ids, 8, NULL) == SYZ_OK;
        syz_fault_set(-1, false);
        if (!done) assert_int_equal(syz_error_status(), SYZ_ENOMEM);
        syz_error_clear();
        syz_tokenizer_free(opened);
    }
    assert_true(done);
}

int main(int argc, char **argv) {
    const char *asked = argc > 1 ? argv[1] : "";
#define FAULT_GROUP(name)                                                                                              \
    if (strcmp(asked, #name) == 0) {                                                                                   \
        const struct CMUnitTest group[] = {cmocka_unit_test(name##_once), cmocka_unit_test(name##_from_then_on)};      \
        return cmocka_run_group_tests(group, temporary_setup, temporary_teardown);                                     \
    }
    FAULT_CASES(FAULT_GROUP)
    const struct CMUnitTest rest[] = {cmocka_unit_test(chain), cmocka_unit_test(tokenizer)};
    return cmocka_run_group_tests(rest, temporary_setup, temporary_teardown);
}
