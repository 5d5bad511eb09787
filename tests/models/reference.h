/* For model tests: a committed case (config, weights, reference tensors) and the comparison with it. */
#ifndef SYZ_TESTS_MODELS_REFERENCE_H
#define SYZ_TESTS_MODELS_REFERENCE_H

#include "check.h"

typedef struct {
    const char *name;
    syz_model *model;
    syz_weights *values;
} reference_case;

static inline const char *reference_folder(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "tests/models/data/%s", name);
    return path;
}

static inline reference_case reference_open(const char *name) {
    reference_case c = {.name = name};
    char path[512];
    syz_model_load(&c.model, reference_folder(name));
    check_ok(c.model);
    syz_model_to_device(c.model, check_device());
    snprintf(path, sizeof path, "%s/reference.safetensors", reference_folder(name));
    c.values = syz_weights_open(path);
    check_ok(c.values);
    return c;
}

static inline void reference_close(reference_case *c) {
    syz_model_release(c->model);
    syz_weights_close(c->values);
}

static inline bool reference_has(const reference_case *c, const char *name) {
    return syz_weights_find(c->values, name) >= 0;
}

static inline syz_tensor *reference_get(const reference_case *c, const char *name) {
    syz_tensor *t = syz_weights_get(c->values, name);
    if (t && t->dtype != SYZ_I64) t = check_placed(t); /* ids stay, and are checked, on the CPU */
    check_ok(t);
    return t;
}

/* The reference keeps images as [N,C,H,W]. */
static inline syz_tensor *reference_image(const reference_case *c, const char *name) {
    syz_tensor *t = syz_permute(reference_get(c, name), SYZ_SHAPE(0, 2, 3, 1));
    check_ok(t);
    return t;
}

/* A copy that collects a gradient. */
static inline syz_tensor *reference_leaf(syz_tensor *t) {
    t = check_placed(syz_copy(t));
    check_ok(t);
    syz_set_requires_grad(t, true);
    return t;
}

static inline double reference_peak(const syz_tensor *t) {
    double peak = 0;
    const float *values = check_f32(t);
    for (int64_t i = 0; i < syz_numel(t); i++)
        peak = fmax(peak, fabs(values[i]));
    return peak;
}

/* Every parameter whose name starts with `prefix`: its gradient against grad.<name>. Some gradients are zero by
 * symmetry (the bias of an attention key, or before a group norm of one channel), so that a tensor is measured against
 * at least 1e-2 of the largest one. */
static inline void reference_gradients(const reference_case *c, const char *prefix, double tolerance) {
    double peak = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < syz_model_param_count(c->model); i++) {
            const char *name = syz_model_param_name(c->model, i);
            if (strncmp(name, prefix, strlen(prefix)) != 0) continue;
            char key[300];
            snprintf(key, sizeof key, "grad.%s", name);
            syz_tensor *expected = reference_get(c, key), *grad = syz_grad(syz_model_param(c->model, i));
            if (!pass) {
                peak = fmax(peak, reference_peak(expected));
                continue;
            }
            if (!grad) fail_msg("%s: %s has no gradient", c->name, name);
            double scale = reference_peak(expected);
            double error = check_error(grad, expected) * scale / fmax(scale, 1e-2 * peak);
            if (scale == 0) error = reference_peak(grad) / (1e-2 * peak);
            if (!(error <= tolerance)) fail_msg("%s: gradient of %s: relative error %.3g", c->name, name, error);
        }
    }
}

/* Expects a failure whose message contains `text`, and clears it. */
#define check_fails_with(call, status, text)                                                                           \
    do {                                                                                                               \
        (void)(call);                                                                                                  \
        assert_int_equal(syz_error_status(), (status));                                                                \
        if (!strstr(syz_error_message(), (text))) fail_msg("\"%s\" lacks \"%s\"", syz_error_message(), (text));        \
        syz_error_clear();                                                                                             \
    } while (0)

/* Equal bits. */
static inline void reference_same(const syz_tensor *a, const syz_tensor *b) {
    check_ok(a);
    check_ok(b);
    assert_true(syz_shape_equal(a->shape, b->shape));
    assert_memory_equal(check_f32(a), check_f32(b), syz_nbytes(a));
}

/* Every parameter's gradient in two lists of reference_take_gradients(), bit for bit. */
static inline void reference_same_gradients(const syz_model *m, syz_tensor *const a[], syz_tensor *const b[]) {
    for (int64_t i = 0; i < syz_model_param_count(m); i++)
        reference_same(a[i], b[i]);
}

/* Every parameter's values in two models of one class, bit for bit. */
static inline void reference_same_parameters(const syz_model *a, const syz_model *b) {
    assert_int_equal(syz_model_param_count(a), syz_model_param_count(b));
    for (int64_t i = 0; i < syz_model_param_count(b); i++)
        reference_same(syz_model_param(a, i), syz_model_param(b, i));
}

/* Keep every parameter's gradient, then clear it. grads has as many places as the model has parameters. */
static inline void reference_take_gradients(syz_model *m, syz_tensor **grads) {
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        syz_tensor *t = syz_model_param(m, i);
        grads[i] = syz_grad(t) ? syz_copy(syz_grad(t)) : NULL;
        syz_set_grad(t, NULL);
    }
}

/* Save a model into a folder with its weights under names without `prefix`, as transformers 5 writes lone towers. */
static inline void reference_save_bare(const syz_model *m, const char *folder, const char *weights,
                                       const char *prefix) {
    enum { MOST = 256 };
    const char *names[MOST];
    syz_tensor *tensors[MOST];
    int64_t n = syz_model_param_count(m);
    assert_true(n <= MOST);
    for (int64_t i = 0; i < n; i++) {
        names[i] = syz_model_param_name(m, i);
        assert_int_equal(strncmp(names[i], prefix, strlen(prefix)), 0);
        names[i] += strlen(prefix);
        tensors[i] = syz_model_param(m, i);
    }
    assert_int_equal(syz_model_save(m, folder, SYZ_F32), SYZ_OK);
    assert_int_equal(syz_weights_save(weights, names, tensors, n, NULL, 0), SYZ_OK);
}

#endif
