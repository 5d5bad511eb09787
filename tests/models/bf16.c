/* Products in bf16: every model's error against the f32 reference is at most twice the error that its own library makes
 * in bf16 (tests/oracle/bf16.py wrote those down). */
#include "models/reference.h"

#include "io/json.h"

enum { MAX_INPUTS = 8, MAX_OUTPUTS = 4 };

typedef struct {
    const char *cases; /* names separated by blanks */
    const char *method;
    const char *inputs[MAX_INPUTS];   /* of the reference, NULL where a case may lack one */
    const char *outputs[MAX_OUTPUTS]; /* by place; "" is not compared */
} comparison;

static const comparison comparisons[] = {
    {"flux_a flux_b flux_c",
     "forward",
     {"hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids"},
     {"output"}},
    {"clip_text_a clip_text_c clip_text_d", "forward", {"input_ids"}, {"last_hidden_state", "pooler_output"}},
    {"clip_text_b clip_text_e clip_text_f", "forward", {"input_ids"}, {"text_embeds", "last_hidden_state"}},
    {"vae_a vae_b vae_c", "encode", {"image"}, {"moments"}},
    {"vae_a vae_b vae_c", "decode", {"latent"}, {"decoded"}},
    {"clip_vision_a clip_vision_b clip_vision_c", "image_features", {"pixel_values"}, {"image_embeds"}},
    {"clip_a clip_b clip_c", "forward", {"input_ids", "pixel_values"}, {"logits_per_image"}},
    {"t5_a t5_b t5_c t5_d", "forward", {"input_ids", "attention_mask"}, {"last_hidden_state"}},
};

static json_t *errors;

static double library_error(const char *name, const char *output) {
    json_t *value = json_object_get(json_object_get(errors, name), output);
    if (!json_is_real(value)) fail_msg("bf16.json has no %s of %s", output, name);
    return json_real_value(value);
}

/* What has four dimensions is an image. */
static syz_tensor *stored(const reference_case *c, const char *name) {
    return reference_get(c, name)->shape.n == 4 ? reference_image(c, name) : reference_get(c, name);
}

static void compare_case(const comparison *p, const char *name) {
    reference_case c = reference_open(name);
    syz_tensor *in[MAX_INPUTS] = {0}, *out[MAX_OUTPUTS] = {0};
    int n;
    for (int k = 0; k < MAX_INPUTS && p->inputs[k]; k++)
        if (reference_has(&c, p->inputs[k])) in[k] = stored(&c, p->inputs[k]);
    int nin = 0;
    while (nin < MAX_INPUTS && p->inputs[nin])
        nin++;
    assert_int_equal(syz_set_matmul_precision(SYZ_BF16), SYZ_OK);
    bool rounds = syz_matmul_precision() == SYZ_BF16; /* processors without bf16 stay exact */
    syz_model_call(c.model, p->method, in, nin, out, MAX_OUTPUTS, &n);
    syz_set_matmul_precision(SYZ_F32);
    for (int k = 0; k < MAX_OUTPUTS && p->outputs[k]; k++) {
        check_ok(out[k]);
        double error = check_error(out[k], stored(&c, p->outputs[k]));
        double allowed = 2 * library_error(name, p->outputs[k]);
        if (!(error <= allowed)) fail_msg("%s %s: bf16 error %.3g is above %.3g", name, p->outputs[k], error, allowed);
        if (rounds && error < 1e-5) fail_msg("%s %s: nothing was rounded to bf16", name, p->outputs[k]);
    }
    reference_close(&c);
}

static void at_most_twice_the_library(void **state) {
    (void)state;
    json_error_t reason;
    errors = json_load_file("tests/models/data/bf16.json", 0, &reason);
    if (!errors) fail_msg("bf16.json: %s", reason.text);
    for (size_t k = 0; k < sizeof comparisons / sizeof *comparisons; k++) {
        char names[128];
        snprintf(names, sizeof names, "%s", comparisons[k].cases);
        for (char *rest = names, *name; (name = strtok_r(rest, " ", &rest));)
            compare_case(&comparisons[k], name);
    }
    json_decref(errors);
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(at_most_twice_the_library)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
