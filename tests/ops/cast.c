/* Casts from half precision, all 65536 values. */
#include "check.h"

#include <math.h>

enum { VALUES = 1 << 16 };

/* By the format's definition: sign, 5 bits of exponent, 10 of fraction. */
static double value_of(uint16_t h) {
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double sign = h >> 15 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static uint16_t halves[VALUES];

static syz_tensor *every_half(void) {
    for (int i = 0; i < VALUES; i++)
        halves[i] = (uint16_t)i;
    return check_placed(syz_wrap(SYZ_F16, SYZ_SHAPE(VALUES), halves, NULL, NULL));
}

static void f16_to_f32(void **state) {
    (void)state;
    syz_tensor *y = syz_cast(every_half(), SYZ_F32);
    check_ok(y);
    const float *values = check_f32(y);
    for (int i = 0; i < VALUES; i++) {
        double expected = value_of((uint16_t)i);
        float found = values[i];
        if (isnan(expected) ? !isnan(found) : (double)found != expected || !signbit(found) != !signbit(expected))
            fail_msg("%#06x became %g, not %g", (unsigned)i, (double)found, expected);
    }
}

/* The nearest bf16, as from f32. */
static void f16_to_bf16(void **state) {
    (void)state;
    syz_tensor *x = every_half(), *direct = syz_cast(x, SYZ_BF16);
    syz_tensor *through = syz_cast(syz_cast(x, SYZ_F32), SYZ_BF16);
    check_ok(direct);
    check_ok(through);
    assert_memory_equal(check_f32(direct), check_f32(through), syz_nbytes(through));
    const float *back = check_f32(syz_cast(direct, SYZ_F32));
    for (int i = 0; i < VALUES; i++) {
        double expected = value_of((uint16_t)i);
        if (isfinite(expected)) assert_true(fabs((double)back[i] - expected) <= fabs(expected) / 256);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(f16_to_f32), CHECK_TEST(f16_to_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
