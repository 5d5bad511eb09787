#include "ops/reference.h"

static int64_t size[2], mode, antialias;

static syz_tensor *f_resize(syz_tensor *const in[]) {
    return syz_resize(in[0], size[0], size[1], mode, antialias);
}

static void torch(void **state) {
    (void)state;
    const int64_t sizes[2][2] = {{17, 25}, {5, 4}};
    for (int k = 0; k < 8; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s_%s%s", k & 4 ? "bicubic" : "bilinear", k & 2 ? "down" : "up",
                 k & 1 ? "_antialias" : "");
        syz_tensor *x = reference_leaf(name, "input"), *in = to_nhwc(x);
        memcpy(size, sizes[k >> 1 & 1], sizeof size);
        mode = k >> 2;
        antialias = k & 1;
        check_reference(name, to_nchw(f_resize(&in)), &x, (const char *[]){"input"}, 1, 2e-6);
    }
}

static void gradients(void **state) {
    (void)state;
    const int64_t sizes[4][2] = {{3, 9}, {1, 1}, {20, 2}, {5, 6}};
    for (int s = 0; s < 4; s++) {
        for (int k = 0; k < 4; k++) {
            memcpy(size, sizes[s], sizeof size);
            mode = k >> 1;
            antialias = k & 1;
            check_gradients(f_resize, (syz_tensor *[]){check_leaf(SYZ_SHAPE(2, 5, 6, 3), 1)}, 1, 1e-1, 1e-4);
        }
    }
}

/* Constant images stay constant, the same size changes nothing, and a single pixel fills everything. */
static void invariants(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        mode = k >> 1;
        antialias = k & 1;
        check_close(syz_resize(syz_full(SYZ_F32, SYZ_SHAPE(1, 7, 5, 2), 0.7), 11, 3, mode, antialias),
                    syz_full(SYZ_F32, SYZ_SHAPE(1, 11, 3, 2), 0.7), 1e-6);
        syz_tensor *x = check_randn(SYZ_SHAPE(2, 6, 9, 3), 1);
        check_close(syz_resize(x, 6, 9, mode, antialias), x, 1e-6);
        check_close(syz_resize(syz_full(SYZ_F32, SYZ_SHAPE(1, 1, 1, 1), 3), 4, 2, mode, antialias),
                    syz_full(SYZ_F32, SYZ_SHAPE(1, 4, 2, 1), 3), 1e-6);
    }
}

static void wrong_arguments(void **state) {
    (void)state;
    syz_tensor *x = check_randn(SYZ_SHAPE(1, 4, 4, 3), 1);
    check_fails(syz_resize(x, 0, 4, 0, 0), SYZ_EINVAL);
    check_fails(syz_resize(x, 4, 4, 2, 0), SYZ_EINVAL);
    check_fails(syz_resize(syz_slice(x, 0, 0, 0), 4, 4, 0, 0), SYZ_ESHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(torch),
        CHECK_TEST(gradients),
        CHECK_TEST(invariants),
        CHECK_TEST(wrong_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
