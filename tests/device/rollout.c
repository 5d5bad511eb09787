/* A rollout of a small FLUX on a device: what it asks of the host, and the same work recorded and repeated. */
#include "emu/counts.h"
#include "models/reference.h"

enum { INPUTS = 8, STEPS = 6 };

/* The inputs of a rollout: position ids on the CPU, all else on the device. */
static void take_inputs(const reference_case *c, syz_tensor *in[INPUTS]) {
    static const char *const names[INPUTS] = {
        "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids",
        "modulation"};
    for (int k = 0; k < INPUTS; k++) {
        in[k] = reference_has(c, names[k]) ? reference_get(c, names[k]) : NULL;
        if (k == 5 || k == 6) in[k] = syz_copy_to(in[k], 0);
    }
}

static syz_tensor *forward(syz_model *m, syz_tensor *const in[INPUTS]) {
    syz_tensor *out = NULL;
    int nout = 0;
    syz_model_call(m, "forward", in, INPUTS, &out, 1, &nout);
    check_ok(out);
    return out;
}

/* x' = x + (t' - t) v with the noise level as the sampler makes it */
static syz_tensor *euler_step(syz_model *m, syz_tensor *const in[INPUTS], syz_tensor *x, int step) {
    syz_tensor *now[INPUTS];
    double level = 1 - step / (double)STEPS;
    memcpy(now, in, sizeof now);
    assert_int_equal(syz_scope_push(), SYZ_OK);
    now[0] = x;
    now[3] = syz_full(SYZ_F32, SYZ_SHAPE(x->shape.dim[0]), level);
    if (now[4]) now[4] = syz_full(SYZ_F32, SYZ_SHAPE(x->shape.dim[0]), 3.5);
    syz_tensor *y = syz_scope_return(syz_add(x, syz_affine(forward(m, now), -1 / (double)STEPS, 0)));
    syz_scope_pop();
    check_ok(y);
    return y;
}

static syz_tensor *rollout(syz_model *m, syz_tensor *const in[INPUTS]) {
    syz_tensor *x = in[0];
    for (int step = 0; step < STEPS; step++)
        x = euler_step(m, in, x, step);
    return x;
}

static reference_case open_case(const char *name, syz_tensor *in[INPUTS]) {
    reference_case c = reference_open(name);
    take_inputs(&c, in);
    syz_no_grad_push();
    return c;
}

static void close_case(reference_case *c) {
    syz_no_grad_pop();
    reference_close(c);
}

/* Nothing is copied from the host or to it, and nobody waits. */
static void steps_need_no_host(void **state) {
    (void)state;
    syz_tensor *in[INPUTS];
    reference_case c = open_case("flux_b", in);
    syz_tensor *x = euler_step(c.model, in, in[0], 0);
    emu_counted = (emu_counts){0};
    euler_step(c.model, in, x, 1);
    assert_true(emu_counted.kernels > 100);
    assert_int_equal(emu_counted.from_host, 0);
    assert_int_equal(emu_counted.to_host, 0);
    assert_int_equal(emu_counted.waits, 0);
    close_case(&c);
}

/* Equal bits; the kernels of a repeated step are those of the Euler step and the embedding's inputs alone. */
static void repeated_steps(void **state) {
    (void)state;
    syz_tensor *in[INPUTS];
    reference_case c = open_case("flux_b", in);
    syz_tensor *plain = rollout(c.model, in);
    double flops = syz_model_flops(c.model);
    emu_counts before = emu_counted;
    rollout(c.model, in);
    double work = syz_model_flops(c.model) - flops;
    assert_true(emu_counted.graphs == before.graphs);

    syz_model_set_graphs(c.model, true);
    reference_same(rollout(c.model, in), plain);
    syz_graph_counts counts = syz_model_graph_counts(c.model);
    assert_int_equal(counts.recorded, 1);
    assert_int_equal(counts.replayed, STEPS - 1);
    assert_int_equal(counts.refused, 0);
    assert_true(syz_model_flops(c.model) - flops == 2 * work);

    emu_counted = (emu_counts){0};
    syz_tensor *again = rollout(c.model, in);
    assert_int_equal(emu_counted.graphs, STEPS);
    assert_true(emu_counted.kernels <= 4 * STEPS);
    assert_int_equal(emu_counted.from_host + emu_counted.to_host + emu_counted.waits, 0);
    reference_same(again, plain);
    close_case(&c);
}

/* What a repeated step gives against the plain one, and whether it was recorded anew. */
static void compare(syz_model *m, syz_tensor *const in[INPUTS], bool anew) {
    int64_t before = syz_model_graph_counts(m).recorded;
    syz_model_set_graphs(m, false);
    syz_tensor *plain = forward(m, in);
    syz_model_set_graphs(m, true);
    for (int run = 0; run < 3; run++)
        reference_same(forward(m, in), plain);
    assert_int_equal(syz_model_graph_counts(m).recorded - before, anew);
    assert_int_equal(syz_model_graph_counts(m).refused, 0);
}

/* Other values of weights are seen by the old recording; parameters that moved, gradients that are wanted and gradients
 * that are recorded are not for it. */
static void weights_change(void **state) {
    (void)state;
    syz_tensor *in[INPUTS];
    reference_case c = open_case("flux_a", in);
    compare(c.model, in, true);
    syz_tensor *before = forward(c.model, in);
    syz_tensor *weight = syz_model_param(c.model, syz_model_param_find(c.model, "x_embedder.weight"));
    assert_int_equal(syz_assign(weight, syz_affine(weight, 1.5, 0)), SYZ_OK);
    compare(c.model, in, false);
    assert_true(check_error(forward(c.model, in), before) > 1e-3);
    syz_tensor *placeholder = syz_copy(weight); /* the old place stays taken */
    assert_int_equal(syz_move(weight, 0), SYZ_OK);
    syz_tensor *other = syz_zeros(SYZ_F32, weight->shape);
    assert_int_equal(syz_move(weight, check_device()), SYZ_OK);
    check_ok(other);
    check_ok(placeholder);
    compare(c.model, in, true);
    syz_model_set_requires_grad(c.model, true);
    compare(c.model, in, true);
    syz_graph_counts counts = syz_model_graph_counts(c.model);
    syz_no_grad_pop();
    syz_tensor *out = forward(c.model, in);
    syz_no_grad_push();
    assert_true(syz_requires_grad(out));
    assert_int_equal(syz_model_graph_counts(c.model).replayed, counts.replayed);
    close_case(&c);
}

static syz_tensor *twice(syz_tensor *x) {
    return x ? syz_concat((syz_tensor *[]){x, x}, 2, 0) : NULL;
}

static void shapes_and_positions_change(void **state) {
    (void)state;
    syz_tensor *in[INPUTS], *more[INPUTS], *elsewhere[INPUTS];
    reference_case c = open_case("flux_a", in);
    memcpy(more, in, sizeof in);
    memcpy(elsewhere, in, sizeof in);
    for (int k = 0; k < 5; k++)
        more[k] = twice(in[k]);
    elsewhere[5] = syz_affine(in[5], 1, 3); /* equal shapes */
    compare(c.model, in, true);
    compare(c.model, more, true);
    compare(c.model, elsewhere, true);
    compare(c.model, in, false);
    compare(c.model, elsewhere, false);
    for (int n = 0; n < 6; n++) { /* the tables of the first positions are dropped, and their memory goes to others */
        syz_tensor *far[INPUTS];
        memcpy(far, in, sizeof in);
        far[5] = syz_affine(in[5], 1, 10 + n);
        forward(c.model, far);
    }
    compare(c.model, in, true);
    close_case(&c);
}

static void adapters_change(void **state) {
    (void)state;
    syz_tensor *in[INPUTS];
    reference_case c = open_case("flux_a", in);
    compare(c.model, in, true);
    assert_int_equal(syz_lora_attach(c.model, "{\"r\": 2, \"lora_alpha\": 2, \"target_modules\": [\"to_q\"]}", 3),
                     SYZ_OK);
    for (int64_t k = 0; k < syz_lora_count(c.model); k++) {
        syz_tensor *t = syz_lora_param(c.model, k);
        assert_int_equal(syz_assign(t, syz_full(SYZ_F32, t->shape, 0.1)), SYZ_OK);
    }
    compare(c.model, in, true);
    syz_lora_set_strength(c.model, 0.5);
    compare(c.model, in, true);
    syz_lora_set_enabled(c.model, false);
    compare(c.model, in, true);
    assert_int_equal(syz_lora_merge(c.model), SYZ_OK);
    compare(c.model, in, true);
    syz_lora_remove(c.model);
    compare(c.model, in, true);
    close_case(&c);
}

/* Indices of tokens come from the CPU, which no recording can do: such calls run as they are. */
static void what_needs_the_host_is_not_recorded(void **state) {
    (void)state;
    reference_case c = reference_open("clip_text_a");
    syz_tensor *ids = reference_get(&c, "input_ids"), *first[2], *out[2];
    int nout;
    syz_no_grad_push();
    syz_model_call(c.model, "forward", &ids, 1, first, 2, &nout);
    syz_model_set_graphs(c.model, true);
    for (int run = 0; run < 4; run++) {
        syz_model_call(c.model, "forward", &ids, 1, out, 2, &nout);
        reference_same(out[0], first[0]);
    }
    syz_graph_counts counts = syz_model_graph_counts(c.model);
    assert_int_equal(counts.refused, 1);
    assert_int_equal(counts.recorded + counts.replayed, 0);
    assert_non_null(strstr(counts.reason, "needs the host"));
    close_case(&c);
}

/* Weights rounded to e4m3 are kept beside them and made anew when they change. */
static void codes_change(void **state) {
    (void)state;
    static const char *const config =
        "{\"_class_name\": \"FluxTransformer2DModel\", \"in_channels\": 128, \"num_layers\": 1, "
        "\"num_single_layers\": 1, \"num_attention_heads\": 1, \"attention_head_dim\": 128, "
        "\"joint_attention_dim\": 128, \"pooled_projection_dim\": 16}";
    reference_case c = {0};
    assert_int_equal(syz_model_create(&c.model, config), SYZ_OK);
    assert_int_equal(syz_model_init(c.model, 1), SYZ_OK);
    for (int64_t k = 0; k < syz_model_param_count(c.model); k++) { /* adaLN starts at zero */
        syz_tensor *t = syz_model_param(c.model, k);
        syz_assign(t, syz_affine(check_randn(t->shape, (uint64_t)k + 1), 0.1, 0));
    }
    assert_int_equal(syz_model_to_device(c.model, check_device()), SYZ_OK);
    syz_tensor *ids = syz_copy_to(syz_affine(check_randn(SYZ_SHAPE(4, 3), 5), 3, 0), 0);
    syz_tensor *in[INPUTS] = {[0] = check_randn(SYZ_SHAPE(1, 4, 128), 1),
                              [1] = check_randn(SYZ_SHAPE(1, 4, 128), 2),
                              [2] = check_randn(SYZ_SHAPE(1, 16), 3),
                              [3] = syz_full(SYZ_F32, SYZ_SHAPE(1), 0.5),
                              [5] = ids,
                              [6] = ids};
    syz_no_grad_push();
    compare(c.model, in, true);
    syz_tensor *exact = forward(c.model, in);
    assert_int_equal(syz_set_fp8(true), SYZ_OK);
    compare(c.model, in, true);
    syz_tensor *rounded = forward(c.model, in);
    assert_true(check_error(rounded, exact) > 1e-3);
    syz_tensor *weight = syz_model_param(c.model, syz_model_param_find(c.model, "x_embedder.weight"));
    assert_int_equal(syz_assign(weight, syz_affine(weight, -1, 0)), SYZ_OK);
    syz_tensor *changed = forward(c.model, in);
    assert_true(check_error(changed, rounded) > 1e-3);
    compare(c.model, in, false);
    reference_same(forward(c.model, in), changed);
    assert_int_equal(syz_set_fp8(false), SYZ_OK);
    compare(c.model, in, false);
    close_case(&c);
}

/* Every recording gives its memory back. */
static void memory_returns(void **state) {
    (void)state;
    syz_device_use before, after;
    syz_device_memory(check_device(), &before);
    for (int run = 0; run < 2; run++) {
        syz_tensor *in[INPUTS];
        assert_int_equal(syz_scope_push(), SYZ_OK);
        reference_case c = open_case("flux_a", in);
        compare(c.model, in, true);
        close_case(&c);
        syz_scope_pop();
        syz_device_memory(check_device(), run ? &after : &before); /* the first run makes what the libraries keep */
    }
    assert_int_equal(after.live, before.live);
    assert_int_equal(after.unused, before.unused);
}

/* An interrupted recording is begun again by the next call. */
static void interrupted(void **state) {
    (void)state;
    syz_tensor *in[INPUTS], *out = NULL;
    int nout;
    reference_case c = open_case("flux_a", in);
    syz_tensor *plain = forward(c.model, in);
    syz_model_set_graphs(c.model, true);
    for (int run = 0; run < 2; run++) { /* before the recording, and before it is repeated */
        reference_same(forward(c.model, in), plain);
        if (run) reference_same(forward(c.model, in), plain);
        syz_cancel();
        check_fails_with(syz_model_call(c.model, "forward", in, INPUTS, &out, 1, &nout), SYZ_ECANCELED, "interrupted");
        syz_cancel_clear();
    }
    reference_same(forward(c.model, in), plain);
    assert_int_equal(syz_model_graph_counts(c.model).refused, 0);
    assert_int_equal(syz_model_graph_counts(c.model).recorded, 1);
    close_case(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(steps_need_no_host), CHECK_TEST(repeated_steps),
        CHECK_TEST(weights_change),     CHECK_TEST(shapes_and_positions_change),
        CHECK_TEST(adapters_change),    CHECK_TEST(what_needs_the_host_is_not_recorded),
        CHECK_TEST(codes_change),       CHECK_TEST(memory_returns),
        CHECK_TEST(interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
