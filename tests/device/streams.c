/* FLUX with its text on a second stream gives the same bits, whichever of the two streams is the late one: the argument
 * says which put off their work until somebody waits for it (bit 0 the first, bit 1 the second). */
#include "emu/counts.h"
#include "models/model.h"
#include "models/reference.h"

#include <stdlib.h>

enum { INPUTS = 7, MAX_PARAMS = 256 };

static void take_inputs(const reference_case *c, syz_tensor *in[INPUTS]) {
    static const char *const names[INPUTS] = {
        "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids"};
    for (int k = 0; k < INPUTS; k++) {
        in[k] = reference_has(c, names[k]) ? reference_get(c, names[k]) : NULL;
        if (k < 3) in[k] = reference_leaf(in[k]);
        if (k > 4) in[k] = syz_copy_to(in[k], 0);
    }
}

static syz_tensor *forward(syz_model *m, syz_tensor *const in[INPUTS]) {
    syz_tensor *out = NULL;
    int nout = 0;
    syz_model_call(m, "forward", in, INPUTS, &out, 1, &nout);
    check_ok(out);
    return out;
}

static void forwards(void **state) {
    (void)state;
    static const char *const names[] = {"flux_a", "flux_b", "flux_c"};
    for (int k = 0; k < 3; k++) {
        reference_case c = reference_open(names[k]);
        syz_tensor *in[INPUTS], *out[2];
        take_inputs(&c, in);
        syz_no_grad_push();
        for (int two = 0; two < 2; two++) {
            c.model->two_streams = two;
            out[two] = forward(c.model, in);
        }
        check_close(out[0], reference_get(&c, "output"), 1e-5);
        reference_same(out[1], out[0]);
        syz_model_set_graphs(c.model, true);
        for (int run = 0; run < 3; run++)
            reference_same(forward(c.model, in), out[0]);
        assert_int_equal(syz_model_graph_counts(c.model).replayed, 2);
        syz_no_grad_pop();
        reference_close(&c);
    }
}

/* Blocks that are run again in the backward pass branch there too. */
static void gradients(void **state) {
    (void)state;
    reference_case c = reference_open("flux_a");
    syz_tensor *input_grads[2][3], *grads[2][MAX_PARAMS];
    assert_true(syz_model_param_count(c.model) <= MAX_PARAMS);
    syz_model_set_requires_grad(c.model, true);
    syz_model_set_checkpointing(c.model, true);
    for (int two = 0; two < 2; two++) {
        syz_tensor *in[INPUTS];
        take_inputs(&c, in);
        c.model->two_streams = two;
        assert_int_equal(syz_backward(forward(c.model, in), reference_get(&c, "grad_output")), SYZ_OK);
        for (int k = 0; k < 3; k++)
            input_grads[two][k] = syz_grad(in[k]);
        reference_take_gradients(c.model, grads[two]);
    }
    for (int k = 0; k < 3; k++)
        reference_same(input_grads[1][k], input_grads[0][k]);
    reference_same_gradients(c.model, grads[1], grads[0]);
    reference_close(&c);
}

/* Memory that is freed in between is not given away before the streams join. */
static void memory_is_kept(void **state) {
    (void)state;
    int device = check_device();
    syz_tensor *x = syz_full(SYZ_F32, SYZ_SHAPE(1000), 3), *aside, *y;
    assert_int_equal(syz_stream_fork(device), SYZ_OK);
    assert_int_equal(syz_scope_push(), SYZ_OK);
    syz_tensor *twice = syz_add(x, x);
    aside = syz_scope_return(syz_add(twice, x));
    syz_scope_pop(); /* frees what the second stream may not have read yet */
    syz_stream_back(device);
    y = syz_full(SYZ_F32, SYZ_SHAPE(1000), 5);
    assert_int_equal(syz_stream_join(device), SYZ_OK);
    assert_true(check_f32(y)[0] == 5 && check_f32(y)[999] == 5);
    assert_true(check_f32(aside)[0] == 9 && check_f32(aside)[999] == 9);
    assert_int_equal(syz_stream_join(device), SYZ_OK); /* nothing to join */
}

/* Copies with the host and clearing, while there are two streams, come in the order in which they were asked for. */
static void copies(void **state) {
    (void)state;
    int device = check_device();
    float ones[64];
    for (int k = 0; k < 64; k++)
        ones[k] = 1;
    syz_tensor *x = syz_full(SYZ_F32, SYZ_SHAPE(64), 3);
    assert_int_equal(syz_stream_fork(device), SYZ_OK);
    syz_tensor *y = syz_add(x, syz_zeros(SYZ_F32, SYZ_SHAPE(64)));
    assert_true(check_f32(y)[63] == 3);
    y = syz_add(y, syz_from(SYZ_F32, SYZ_SHAPE(64), ones));
    y = syz_add(syz_copy(y), x);
    assert_int_equal(syz_synchronize(), SYZ_OK);
    syz_stream_back(device);
    assert_int_equal(syz_stream_join(device), SYZ_OK);
    assert_true(check_f32(y)[0] == 7 && check_f32(y)[63] == 7);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(forwards),
        CHECK_TEST(gradients),
        CHECK_TEST(memory_is_kept),
        CHECK_TEST(copies),
    };
    emu_lazy_streams = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
