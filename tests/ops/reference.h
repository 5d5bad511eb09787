/* Reference tensors that tests/oracle/ops.py computed with torch in f64: `case.argument`, `case.output`, ... */
#ifndef SYZ_TESTS_REFERENCE_H
#define SYZ_TESTS_REFERENCE_H

#include "check.h"

/* "name.suffix" from tests/ops/data/ops.safetensors; fails the test when it is absent. Belongs to the scope. */
static inline syz_tensor *reference(const char *name, const char *suffix) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    syz_weights *file = syz_weights_open("tests/ops/data/ops.safetensors");
    check_ok(file);
    syz_tensor *t = check_placed(syz_copy(syz_weights_get(file, full)));
    check_ok(t);
    syz_weights_close(file);
    return t;
}

static inline syz_tensor *reference_leaf(const char *name, const char *suffix) {
    syz_tensor *t = reference(name, suffix);
    syz_set_requires_grad(t, true);
    return t;
}

/* torch's images are [N,C,H,W]. */
static inline syz_tensor *to_nhwc(syz_tensor *t) {
    return syz_permute(t, SYZ_SHAPE(0, 2, 3, 1));
}
static inline syz_tensor *to_nchw(syz_tensor *t) {
    return syz_permute(t, SYZ_SHAPE(0, 3, 1, 2));
}

/* Compares y with `name.output`, and after a backward pass each leaf's gradient with `name.grad.<argument>`. */
static inline void check_reference(const char *name, syz_tensor *y, syz_tensor *const leaves[],
                                   const char *const arguments[], int count, double tolerance) {
    check_close(y, reference(name, "output"), tolerance);
    assert_int_equal(syz_backward(y, reference(name, "grad_output")), SYZ_OK);
    for (int k = 0; k < count; k++) {
        char suffix[64];
        snprintf(suffix, sizeof suffix, "grad.%s", arguments[k]);
        check_ok(leaves[k]->grad);
        check_close(leaves[k]->grad, reference(name, suffix), tolerance);
    }
}

#endif
