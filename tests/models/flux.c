/* FluxTransformer2DModel against diffusers: outputs and every gradient of three configurations. */
#include "models/reference.h"

enum { INPUTS = 7, MAX_PARAMS = 256 };

static const char *const input_names[INPUTS] = {
    "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids",
};

/* The first three collect gradients. */
static void take_inputs(const reference_case *c, syz_tensor *in[INPUTS]) {
    for (int k = 0; k < INPUTS; k++)
        in[k] = reference_has(c, input_names[k]) ? reference_get(c, input_names[k]) : NULL;
    for (int k = 0; k < 3; k++)
        in[k] = reference_leaf(in[k]);
}

static syz_tensor *forward(syz_model *m, syz_tensor *const in[]) {
    syz_tensor *out = NULL;
    int nout = 0;
    syz_model_call(m, "forward", in, INPUTS, &out, 1, &nout);
    check_ok(out);
    assert_int_equal(nout, 1);
    return out;
}

static void compare(const char *name) {
    reference_case c = reference_open(name);
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *in[INPUTS];
    take_inputs(&c, in);
    syz_tensor *out = forward(c.model, in);
    check_close(out, reference_get(&c, "output"), 1e-5);
    assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
    for (int k = 0; k < 3; k++) {
        char key[64];
        snprintf(key, sizeof key, "grad.%s", input_names[k]);
        check_close(syz_grad(in[k]), reference_get(&c, key), 1e-4);
    }
    reference_gradients(&c, "", 1e-4);
    reference_close(&c);
}

static void two_of_each_block(void **state) {
    (void)state;
    compare("flux_a");
}

static void embedded_guidance(void **state) {
    (void)state;
    compare("flux_b");
}

static void one_head(void **state) {
    (void)state;
    compare("flux_c");
}

static void checkpointing_changes_nothing(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_model_set_requires_grad(c.model, true);
    syz_tensor *out[2], *input_grads[2][3], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    for (int on = 0; on < 2; on++) {
        syz_tensor *in[INPUTS];
        take_inputs(&c, in);
        syz_model_set_checkpointing(c.model, on);
        out[on] = forward(c.model, in);
        assert_int_equal(syz_backward(out[on], reference_get(&c, "grad_output")), SYZ_OK);
        for (int k = 0; k < 3; k++)
            input_grads[on][k] = syz_grad(in[k]);
        reference_take_gradients(c.model, grads[on]);
    }
    reference_same(out[1], out[0]);
    for (int k = 0; k < 3; k++)
        reference_same(input_grads[1][k], input_grads[0][k]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

/* A graph with checkpoints runs the model again, and so must keep it. */
static void graphs_keep_the_model(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_tensor *in[INPUTS];
    take_inputs(&c, in);
    syz_model_set_checkpointing(c.model, true);
    syz_tensor *out = forward(c.model, in);
    syz_model_release(c.model);
    assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
    check_close(syz_grad(in[0]), reference_get(&c, "grad.hidden_states"), 1e-4);
    syz_weights_close(c.values);
}

/* Without gradients a forward pass holds one block's temporaries, not all of them. */
static void inference_frees_as_it_goes(void **state) {
    (void)state;
    reference_case c = reference_open("flux_c");
    syz_tensor *in[INPUTS];
    take_inputs(&c, in);
    syz_no_grad_push();
    syz_scope_push();
    size_t before = syz_memory_stats().live;
    syz_tensor *out = syz_scope_return(forward(c.model, in));
    assert_false(syz_requires_grad(out));
    assert_true(syz_memory_stats().live - before <= 2 * syz_nbytes(out) + 1024);
    syz_scope_pop();
    syz_no_grad_pop();
    reference_close(&c);
}

/* The modulation of several steps at once, row by row in place of what each forward computes for itself; gradients pass
 * through it to the prompt. */
static void modulation_in_one_product(void **state) {
    (void)state;
    static const char *const names[] = {"flux_a", "flux_b"};
    for (int k = 0; k < 2; k++) {
        reference_case c = reference_open(names[k]);
        syz_tensor *in[INPUTS + 1] = {0}, *rows[3], *table = NULL, *plain, *out = NULL;
        take_inputs(&c, in);
        plain = forward(c.model, in);
        assert_int_equal(syz_backward(plain, reference_get(&c, "grad_output")), SYZ_OK);
        syz_tensor *expected = syz_copy(syz_grad(in[2]));
        syz_set_grad(in[2], NULL);
        for (int n = 0; n < 3; n++) {
            syz_tensor *x = in[n + 2];
            rows[n] = x ? syz_concat((syz_tensor *[]){n ? syz_affine(x, 0.5, 0) : x, x}, 2, 0) : NULL;
        }
        int nout;
        syz_model_call(c.model, "modulation", rows, 3, &table, 1, &nout);
        int64_t batch = in[0]->shape.dim[0];
        in[INPUTS] = syz_slice(table, 0, batch, 2 * batch);
        syz_model_call(c.model, "forward", in, INPUTS + 1, &out, 1, &nout);
        check_close(out, plain, 2e-6);
        assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
        check_close(syz_grad(in[2]), expected, 1e-5);
        in[INPUTS] = syz_slice(table, 0, 0, batch); /* of other noise levels */
        syz_model_call(c.model, "forward", in, INPUTS + 1, &out, 1, &nout);
        assert_true(check_error(out, plain) > 1e-4);
        in[INPUTS] = syz_slice(table, 1, 1, table->shape.dim[1]);
        check_fails_with(syz_model_call(c.model, "forward", in, INPUTS + 1, &out, 1, &nout), SYZ_ESHAPE,
                         "modulation has shape");
        if (rows[2])
            check_fails_with(syz_model_call(c.model, "modulation", rows, 2, &out, 1, &nout), SYZ_EINVAL,
                             "guidance is missing");
        reference_close(&c);
    }
}

/* Noise from the prompt's and the image's storage in bf16 costs about its eight bits. */
static void half_precision_inputs(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_tensor *in[INPUTS];
    take_inputs(&c, in);
    for (int k = 0; k < 3; k++)
        in[k] = syz_cast(in[k], SYZ_BF16);
    check_close(forward(c.model, in), reference_get(&c, "output"), 3e-2);
    reference_close(&c);
}

/* Tables of rotary positions are kept for the ids that come again, also when more sizes take turns than are kept. */
static void positions_come_again(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_tensor *in[INPUTS], *first[6];
    take_inputs(&c, in);
    syz_tensor *ids = syz_copy_to(in[5], 0);
    for (int n = 0; n < 18; n++) {
        in[5] = syz_affine(ids, 1, n % 6); /* other positions */
        if (n >= 12) in[5] = syz_cast(in[5], SYZ_I64);
        syz_tensor *out = forward(c.model, in);
        if (n < 6)
            first[n] = out;
        else
            reference_same(out, first[n % 6]);
    }
    assert_true(check_error(first[1], first[0]) > 1e-5);
    check_close(first[0], reference_get(&c, "output"), 1e-5);
    reference_close(&c);
}

static void wrong_inputs_are_named(void **state) {
    (void)state;
    reference_case c = reference_open("flux_b");
    syz_tensor *in[INPUTS], *out;
    int nout;
    take_inputs(&c, in);
    syz_tensor *guidance = in[4], *ids = in[5];
    in[4] = NULL;
    check_fails_with(syz_model_call(c.model, "forward", in, INPUTS, &out, 1, &nout), SYZ_EINVAL, "guidance is missing");
    in[4] = guidance;
    in[5] = in[6];
    check_fails_with(syz_model_call(c.model, "forward", in, INPUTS, &out, 1, &nout), SYZ_ESHAPE, "img_ids");
    in[5] = ids;
    in[2] = NULL;
    check_fails_with(syz_model_call(c.model, "forward", in, INPUTS, &out, 1, &nout), SYZ_EINVAL, "pooled_projections");
    check_fails_with(syz_model_call(c.model, "encode", in, INPUTS, &out, 1, &nout), SYZ_ENOTFOUND, "encode");
    reference_close(&c);
}

/* adaLN-Zero: a fresh transformer predicts zero velocity, and learns. */
static void fresh_weights(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_tensor *in[INPUTS], *out;
    take_inputs(&c, in);
    assert_int_equal(syz_model_init(c.model, 7), SYZ_OK);
    assert_true(reference_peak(forward(c.model, in)) == 0);
    syz_model_set_requires_grad(c.model, true);
    out = forward(c.model, in);
    assert_int_equal(syz_backward(out, reference_get(&c, "grad_output")), SYZ_OK);
    int64_t last = syz_model_param_find(c.model, "proj_out.weight");
    assert_true(reference_peak(syz_grad(syz_model_param(c.model, last))) > 0);
    reference_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(two_of_each_block),
        CHECK_TEST(embedded_guidance),
        CHECK_TEST(one_head),
        CHECK_TEST(checkpointing_changes_nothing),
        CHECK_TEST(graphs_keep_the_model),
        CHECK_TEST(inference_frees_as_it_goes),
        CHECK_TEST(modulation_in_one_product),
        CHECK_TEST(half_precision_inputs),
        CHECK_TEST(positions_come_again),
        CHECK_TEST(wrong_inputs_are_named),
        CHECK_TEST(fresh_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
