#include "kernels/fp8.h"
#include "check.hpp"
#include "kernels/cublaslt.cuh"

#include <stdlib.h>

/* All 256 codes, worked out from the format's definition. */
static double value_of(int code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (exponent == 15 && mantissa == 7) return NAN;
    double x = exponent ? ldexp(1 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
    return code & 0x80 ? -x : x;
}

static void codes() {
    for (int code = 0; code < 256; code++) {
        float x = syz_from_e4m3((uint8_t)code);
        if (!(x == value_of(code) || (x != x && (code & 0x7f) == 0x7f))) failed("code %d is %g", code, x);
        if (syz_to_e4m3(x) != code) failed("%g has code %d, not %d", x, syz_to_e4m3(x), code);
    }
    for (int code = 0; code < 0x7e; code++) { /* between neighbours: the nearer one, and the even one in the middle */
        float low = (float)value_of(code), high = (float)value_of(code + 1), middle = (low + high) / 2;
        int even = code % 2 ? code + 1 : code;
        if (syz_to_e4m3(nextafterf(middle, low)) != code || syz_to_e4m3(nextafterf(middle, high)) != code + 1 ||
            syz_to_e4m3(middle) != even || syz_to_e4m3(-middle) != (even | 0x80))
            failed("between codes %d and %d", code, code + 1);
    }
    if (syz_to_e4m3(449) != 0x7e || syz_to_e4m3(-INFINITY) != 0xfe || syz_to_e4m3(1e30f) != 0x7e)
        failed("what is too large is not 448");
}

template <typename T>
static void check_quantize(const array<T> &x, size_t shift) {
    int64_t n = x.size();
    array<uint8_t> y(n, shift), expected(n);
    array<float> scale(1), expected_scale(1);
    syz_cpu_quantize_fp8(expected, expected_scale, floats(x), n);
    run([&] { return syz_cuda::quantize_fp8<T>(y, scale, x, n, 0); }, {y, scale});
    compare_exactly("codes", y, expected);
    compare_exactly("scale", scale, expected_scale);
}

template <typename T>
static void quantize() {
    for (int64_t n : {1, 7, 16, 255, 4096, 70001})
        for (size_t shift = 0; shift < 2; shift++)
            for (float size : {1.0f, 1e-30f, 3e5f}) {
                array<T> x = numbers<T>(n, size, 0, shift);
                check_quantize(x, shift);
                x[n - 1] = store<T>(-7 * size); /* the last is the largest */
                check_quantize(x, shift);
                array<uint8_t> y(n);
                float scale;
                syz_cpu_quantize_fp8(y, &scale, floats(x), n);
                if (fabsf(scale - 7 * size / 448) > 0.01f * scale || y[n - 1] != 0xfe)
                    failed("the largest is not -448");
            }
    array<T> zeros(50), nans = numbers<T>(3000);
    check_quantize(zeros, 0);
    nans[2999] = store<T>(NAN);
    array<uint8_t> y(3000);
    array<float> scale(1);
    run([&] { return syz_cuda::quantize_fp8<T>(y, scale, nans, 3000, 0); }, {y, scale});
    if (scale[0] == scale[0]) failed("a NaN is lost");
    syz_cpu_quantize_fp8(y, scale, floats(nans), 3000);
    if (scale[0] == scale[0]) failed("the CPU loses a NaN");
}

/* Aligned as the engine's memory is. */
struct codes_of {
    std::vector<uint8_t> memory;
    uint8_t *data;
    float scale;

    codes_of(int64_t n, float size) : memory((size_t)n + 255) {
        data = memory.data() + (-(uintptr_t)memory.data() & 255);
        array<float> x = numbers<float>(n, size);
        syz_cpu_quantize_fp8(data, &scale, x, n);
    }
};

template <typename T>
struct aligned_array {
    std::vector<T> memory;
    T *data;
    int64_t n;

    explicit aligned_array(const array<T> &x) : memory((size_t)x.size() + 256), n(x.size()) {
        data = memory.data() + (-(uintptr_t)memory.data() & 255) / sizeof(T);
        std::copy_n((const T *)x, x.size(), data);
    }
    array<T> copy() const {
        array<T> x(n);
        std::copy_n(data, n, x.data());
        return x;
    }
};

/* Against sums in double of the values that the codes mean. b is a stretch of columns of a wider matrix. */
template <typename T>
static void check_product(int64_t m, int64_t n, int64_t k, int64_t all, bool with_bias, bool add, bool gelu) {
    codes_of a(m * k, 3), b(n * all, 0.2f);
    aligned_array<T> y(numbers<T>(m * n)), bias(numbers<T>(n));
    array<float> expected = floats(y.copy()), cpu = expected, fbias = floats(bias.copy());
    syz_product p = {};
    p.batch = 1, p.m = m, p.n = n, p.k = k, p.add = add;
    p.a[1] = k, p.a[2] = p.b[1] = 1, p.b[2] = all;
    const uint8_t *part = b.data + (all - k);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t t = 0; t < k; t++)
                sum += value_of(a.data[i * k + t]) * value_of(part[j * all + t]);
            double value = sum * a.scale * b.scale + (add ? expected[i * n + j] : 0) + (with_bias ? fbias[j] : 0);
            if (gelu) value = 0.5 * value * (1 + tanh(sqrt(2 / M_PI) * (value + 0.044715 * value * value * value)));
            expected[i * n + j] = (float)value;
        }
    if (syz_cpu_matmul_fp8(cpu, a.data, part, &a.scale, &b.scale, with_bias ? fbias.data() : nullptr, &p, gelu) != 0)
        failed("the CPU's product failed");
    compare("the CPU's product", cpu, expected, 1e-5, 2e-5);
    array<T> before = y.copy();
    for (uint32_t refused : {0u, ~(uint32_t)CUBLASLT_EPILOGUE_DEFAULT}) {
        std::copy_n(before.data(), y.n, y.data);
        emu::lt.refused = refused;
        if (syz_cuda::matmul_fp8<T>(y.data, a.data, part, &a.scale, &b.scale, with_bias ? bias.data : nullptr, &p, gelu,
                                    0) != 0)
            failed("matmul_fp8: %s", emu::the().error);
        emu::lt.refused = 0;
        compare("matmul_fp8", y.copy(), expected, 1e-5, 3e-5 + (is_bf16<T> && refused ? 0.04 : 0));
    }
}

template <typename T>
static void products() {
    static const int64_t sizes[][4] = {{1, 16, 16, 16}, {7, 32, 48, 48}, {33, 64, 32, 80}, {50, 16, 160, 192}};
    for (const auto &s : sizes)
        for (int kind = 0; kind < 8; kind++)
            check_product<T>(s[0], s[1], s[2], s[3], kind & 1, kind & 2, kind & 4);
}

/* What cuBLASLt refuses of fp8, the stand-in refuses. */
static void refusals() {
    codes_of a(64 * 64, 1), b(64 * 64, 1);
    aligned_array<syz_bf16> y{array<syz_bf16>(64 * 64)};
    syz_cuda::lt_product right;
    memset(&right, 0, sizeof right);
    right.rows = right.cols = right.depth = right.lda = right.ldb = 32;
    right.batch = 1;
    right.a_flip = 1;
    right.type = CUDA_R_8F_E4M3;
    right.result_type = CUDA_R_16BF;
    right.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    syz_cuda::lt_operands o = {a.data, b.data, y.data, nullptr, nullptr, &a.scale, &b.scale}, bare = o;
    if (syz_cuda::lt_run(right, o, 0) != 0) failed("a right product is refused: %s", emu::the().error);
    auto refused = [&](const char *what, auto change) {
        syz_cuda::lt_product wrong = right;
        change(wrong);
        if (syz_cuda::lt_run(wrong, o, 0) == 0) failed("not refused: %s", what);
    };
    using product = syz_cuda::lt_product;
    refused("a not transposed", [](product &p) { p.a_flip = 0; });
    refused("b transposed", [](product &p) { p.b_flip = 1; });
    refused("a depth of 24", [](product &p) { p.depth = 24; });
    refused("24 rows", [](product &p) { p.rows = 24; });
    refused("a step of 40", [](product &p) { p.lda = 40; });
    refused("scales of bf16", [](product &p) { p.type = CUDA_R_16BF; });
    bare.scale_a = nullptr;
    right.ldb = 48;
    if (syz_cuda::lt_run(right, bare, 0) == 0) failed("not refused: no scale");
}

static void where_it_exists() {
    bool possible = false;
    for (const char *compute : {"80", "86", "89", "90"}) {
        setenv("EMULATED_COMPUTE", compute, 1);
        if (syz_cuda::has_fp8<float>(&possible, 0) != 0 || possible != (atoi(compute) >= 89))
            failed("has_fp8 on sm_%s", compute);
    }
    unsetenv("EMULATED_COMPUTE");
    if (syz_cpu_has_fp8(&possible) != 0 || !possible) failed("the CPU has them");
}

MAIN({"codes", codes}, BOTH(quantize), BOTH(products), {"refusals", refusals}, {"where_it_exists", where_it_exists})
