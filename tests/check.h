/* What the C tests share: cmocka, tensors from literals, comparisons, and gradients by finite differences. */
#ifndef SYZ_TESTS_CHECK_H
#define SYZ_TESTS_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "autograd/node.h"
#include "core/error.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

/* Where the test makes its tensors: on the device that SYZ_TEST_DEVICE names ("cuda"), or on the CPU. A test of what
 * only the CPU does begins with syz_set_device(0). */
static inline int check_device(void) {
    return syz_device_current();
}

static inline void check_choose_device(void) {
    int device = 0;
    const char *name = getenv("SYZ_TEST_DEVICE");
    if (name && syz_device_parse(&device, name) != SYZ_OK) {
        fprintf(stderr, "SYZ_TEST_DEVICE: %s\n", syz_error_message());
        exit(1);
    }
    static bool said; /* tests/gpu/check.sh asks for the line: a program without it has tested the CPU */
    if (name && !said) printf("device %s\n", name);
    fflush(stdout); /* before a test forks */
    said = true;
    syz_set_device(device);
}

/* cmocka fixtures: every test runs inside a scope of its own and must leave no pending error. */
static inline int check_setup(void **state) {
    (void)state;
    syz_error_clear();
    check_choose_device();
    return syz_scope_push() == SYZ_OK ? 0 : -1;
}

static inline int check_teardown(void **state) {
    (void)state;
    syz_set_device(0);
    syz_scope_pop();
    if (!syz_failed()) return 0;
    fprintf(stderr, "pending error: %s (%s)\n", syz_error_message(), syz_error_where());
    return -1;
}

#define CHECK_TEST(name) cmocka_unit_test_setup_teardown(name, check_setup, check_teardown)

/* Fails with the library's message when an operation returned NULL. */
#define check_ok(pointer)                                                                                              \
    do {                                                                                                               \
        if (!(pointer)) fail_msg("%s (%s)", syz_error_message(), syz_error_where());                                   \
    } while (0)

/* Expects a failure with `status`, and clears it. */
#define check_fails(call, status)                                                                                      \
    do {                                                                                                               \
        (void)(call);                                                                                                  \
        assert_int_equal(syz_error_status(), (status));                                                                \
        syz_error_clear();                                                                                             \
    } while (0)

#define check_tensor(shape, ...) syz_from(SYZ_F32, shape, (float[]){__VA_ARGS__})

/* Normal values, the same for the same seed. */
static inline syz_tensor *check_randn(syz_shape shape, uint64_t seed) {
    syz_rng rng = {.seed = seed};
    return syz_randn(&rng, shape);
}

/* Values as the CPU sees them, for reading; they live as long as the scope. */
static inline const syz_tensor *check_host(const syz_tensor *t) {
    t = syz_copy_to((syz_tensor *)(uintptr_t)t, 0);
    if (!t) fail_msg("%s", syz_error_message());
    return t;
}
static inline const float *check_f32(const syz_tensor *t) {
    return syz_f32(check_host(t));
}

/* A tensor on the device with values that the CPU wrote. */
static inline syz_tensor *check_placed(syz_tensor *t) {
    return syz_copy_to(t, check_device());
}

/* Indices, on the CPU, where operations check them; operations on a GPU take them from there. */
#define check_ids(shape, ...) syz_copy(syz_wrap(SYZ_I64, shape, (int64_t[]){__VA_ARGS__}, NULL, NULL))

/* Largest |a - b| relative to the largest |b|. NaN counts as infinite. */
static inline double check_error(const syz_tensor *a, const syz_tensor *b) {
    assert_true(syz_shape_equal(a->shape, b->shape));
    assert_true(a->dtype == SYZ_F32 && b->dtype == SYZ_F32);
    double worst = 0, scale = 1e-30;
    const float *x = check_f32(a), *y = check_f32(b);
    for (int64_t i = 0; i < syz_numel(a); i++) {
        double d = fabs((double)x[i] - y[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
        if (fabs(y[i]) > scale) scale = fabs(y[i]);
    }
    return worst / scale;
}

#define check_close(a, b, tolerance)                                                                                   \
    do {                                                                                                               \
        check_ok(a);                                                                                                   \
        check_ok(b);                                                                                                   \
        double error_ = check_error(a, b);                                                                             \
        if (!(error_ <= (tolerance))) fail_msg("relative error %.3g is above %.3g", error_, (double)(tolerance));      \
    } while (0)

/* ---- gradients --------------------------------------------------------------------------------------------------- */

typedef syz_tensor *(*check_function)(syz_tensor *const in[]);

/* <f(in), weights> in double. */
static inline double check_dot(check_function f, syz_tensor *const in[], const float *weights) {
    syz_scope_push();
    syz_no_grad_push();
    syz_tensor *y = f(in);
    check_ok(y);
    double sum = 0;
    const float *values = check_f32(y);
    for (int64_t i = 0; i < syz_numel(y); i++)
        sum += (double)values[i] * weights[i];
    syz_no_grad_pop();
    syz_scope_pop();
    return sum;
}

/* Compares backward with central differences of the f32 forward, along every coordinate of every input that requires a
 * gradient, weighting the outputs with random numbers. Runs backward twice and demands equal bits. */
static inline void check_gradients(check_function f, syz_tensor *const in[], int nin, double step, double tolerance) {
    syz_tensor *y = f(in);
    check_ok(y);
    syz_tensor *weights = check_randn(y->shape, 77);
    syz_tensor *first[SYZ_MAX_INPUTS] = {0};
    for (int run = 0; run < 2; run++) {
        if (run) y = f(in);
        assert_int_equal(syz_backward(y, weights), SYZ_OK);
        for (int k = 0; k < nin; k++) {
            if (!in[k]->requires_grad) continue;
            assert_non_null(in[k]->grad);
            if (run) assert_memory_equal(check_f32(first[k]), check_f32(in[k]->grad), syz_nbytes(in[k]));
            first[k] = syz_copy(in[k]->grad);
            syz_set_grad(in[k], NULL);
        }
    }
    for (int k = 0; k < nin; k++) {
        if (!in[k]->requires_grad) continue;
        syz_tensor *numeric = syz_host_zeros(SYZ_F32, in[k]->shape), *moved = syz_host_zeros(SYZ_F32, in[k]->shape);
        const float *w = check_f32(weights);
        syz_assign(moved, in[k]);
        for (int64_t i = 0; i < syz_numel(in[k]); i++) {
            float *x = syz_f32(moved) + i, old = *x;
            *x = old + (float)step;
            syz_assign(in[k], moved);
            double up = check_dot(f, in, w), high = *x;
            *x = old - (float)step;
            syz_assign(in[k], moved);
            double down = check_dot(f, in, w), low = *x;
            *x = old;
            syz_f32(numeric)[i] = (float)((up - down) / (high - low));
        }
        syz_assign(in[k], moved);
        double error = check_error(first[k], numeric);
        if (!(error <= tolerance))
            fail_msg("gradient of input %d: relative error %.3g is above %.3g", k, error, tolerance);
    }
}

/* A random input that requires a gradient. */
static inline syz_tensor *check_leaf(syz_shape shape, uint64_t seed) {
    syz_tensor *t = check_randn(shape, seed);
    syz_set_requires_grad(t, true);
    return t;
}

#endif
