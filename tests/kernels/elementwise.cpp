#include "check.hpp"

static const int64_t sizes[] = {1, 7, 8, 255, 256, 2049, 4099};

/* Tolerances: one operation each, the CPU may fuse a product with its sum. */
template <typename T>
static void simple() {
    for (int64_t n : sizes) {
        for (size_t shift = 0; shift < 2; shift++) {
            array<T> x = numbers<T>(n, 2, 0, shift), g = numbers<T>(n, 1, 0, shift), y(n, shift), sum = g;
            array<float> fx = floats(x), fg = floats(g), expected(n), added = fg;
            if (n > 4) x[3] = store<T>(NAN), fx[3] = NAN;
            syz_cpu_affine(expected, fx, 3, -1, n);
            run([&] { return syz_cuda::affine<T>(y, x, 3, -1, n, 0); }, {y});
            compare("affine", y, expected, 1e-6, 1e-6);
            syz_cpu_axpy(added, fx, 0.3f, n);
            run([&] { return syz_cuda::axpy<T>(sum, x, 0.3f, n, 0); }, {sum});
            compare("axpy", sum, added, 1e-6, 1e-6);
            syz_cpu_clamp(expected, fx, -0.5f, 0.75f, n);
            run([&] { return syz_cuda::clamp<T>(y, x, -0.5f, 0.75f, n, 0); }, {y});
            compare("clamp", y, expected, 0, 0);
            syz_cpu_clamp_backward(expected, fg, fx, -0.5f, 0.75f, n);
            run([&] { return syz_cuda::clamp_backward<T>(y, g, x, -0.5f, 0.75f, n, 0); }, {y});
            compare("clamp_backward", y, expected, 0, 0);
            syz_cpu_pow(expected, fx, 3, n);
            run([&] { return syz_cuda::pow<T>(y, x, 3, n, 0); }, {y});
            compare("pow", y, expected, 1e-6, 0);
        }
    }
}

template <typename T>
static void in_place() {
    array<T> x = numbers<T>(1000);
    array<float> expected = floats(x);
    syz_cpu_affine(expected, expected, 2, 1, 1000);
    run([&] { return syz_cuda::affine<T>(x, x, 2, 1, 1000, 0); }, {x});
    compare("affine in place", x, expected, 1e-6, 0);
}

/* Contiguous; a row, a column, a scalar repeated; three dimensions with a hole; a transposed operand; odd widths. */
template <typename T>
static void binary() {
    static const syz_nest nests[] = {
        {1, {4099}, {1}, {1}},
        {1, {37}, {0}, {1}},
        {1, {64}, {1}, {0}},
        {2, {5, 16}, {16, 1}, {0, 1}},
        {2, {5, 16}, {16, 1}, {1, 0}},
        {2, {7, 13}, {13, 1}, {1, 0}},
        {2, {33, 17}, {1, 33}, {17, 1}},
        {2, {3, 8}, {9, 1}, {8, 1}},
        {3, {3, 5, 24}, {120, 24, 1}, {24, 0, 1}},
        {4, {2, 3, 5, 7}, {105, 35, 7, 1}, {0, 7, 0, 1}},
        {6, {2, 1, 3, 2, 2, 8}, {96, 0, 32, 16, 8, 1}, {0, 0, 8, 0, 0, 1}},
    };
    for (const syz_nest &nest : nests) {
        int64_t size = 1, size_a = 1, size_b = 1;
        for (int d = 0; d < nest.n; d++) {
            size *= nest.dim[d];
            size_a += (nest.dim[d] - 1) * nest.a[d];
            size_b += (nest.dim[d] - 1) * nest.b[d];
        }
        array<T> a = numbers<T>(size_a, 2, 3), b = numbers<T>(size_b, 2, -3), y(size);
        array<float> fa = floats(a), fb = floats(b), expected(size);
        for (int op = SYZ_BINARY_ADD; op <= SYZ_BINARY_MIN; op++) {
            syz_cpu_binary(expected, fa, fb, &nest, (syz_binary)op);
            run([&] { return syz_cuda::binary<T>(y, a, b, &nest, (syz_binary)op, 0); }, {y});
            compare("binary", y, expected, 0, 0);
        }
    }
}

/* The CPU may contract products and sums otherwise than this compiler: 1e-5 covers the slopes that subtract. */
template <typename T>
static void unary() {
    static const struct {
        syz_unary op;
        bool positive;
    } functions[] = {
#define UNARY(name, value, slope) {SYZ_UNARY_##name, false},
#include "kernels/unary.def"
#undef UNARY
        {SYZ_UNARY_log, true},
        {SYZ_UNARY_sqrt, true},
        {SYZ_UNARY_rsqrt, true},
    };
    for (const auto &f : functions) {
        int64_t n = 1003;
        array<T> x = numbers<T>(n, 6, f.positive ? 6.1f : 0), g = numbers<T>(n), y(n);
        for (int64_t i = 0; i < n; i++)
            if (f.positive && load(x[i]) <= 0) x[i] = store<T>(0.5f);
        array<float> fx = floats(x), fg = floats(g), expected(n);
        syz_cpu_unary(expected, fx, n, f.op);
        run([&] { return syz_cuda::unary<T>(y, x, n, f.op, 0); }, {y});
        compare("unary", y, expected, 1e-5, 1e-6);
        syz_cpu_unary_backward(expected, fg, fx, n, f.op);
        run([&] { return syz_cuda::unary_backward<T>(y, g, x, n, f.op, 0); }, {y});
        compare("unary_backward", y, expected, 1e-5, 2e-6);
    }
}

MAIN(BOTH(simple), BOTH(in_place), BOTH(binary), BOTH(unary))
