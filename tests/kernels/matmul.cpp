#include "check.hpp"
#include "kernels/autotune.h"
#include "kernels/cublaslt.cuh"

#include <fstream>
#include <unistd.h>

/* How an operand lies: its rows or its columns behind each other, and this many elements between them. */
struct layout {
    bool flip;
    int64_t gap;
};

/* Steps of a [rows,cols] matrix, and how many elements hold `batch` of them. */
static int64_t steps(int64_t (&step)[3], const layout &l, int64_t batch, int64_t rows, int64_t cols, bool shared) {
    step[1] = l.flip ? 1 : cols + l.gap;
    step[2] = l.flip ? rows + l.gap : 1;
    int64_t last = (rows - 1) * step[1] + (cols - 1) * step[2] + 1;
    step[0] = shared || batch == 1 ? 0 : l.flip ? cols * step[2] : rows * step[1];
    return (batch - 1) * step[0] + last;
}

/* One product of random numbers: the CPU's operands beside those of the kernel. */
template <typename T>
struct example {
    syz_product p;
    array<T> a, b, bias;
    array<float> fa, fb, fbias;
    int64_t n;

    example(int64_t batch, int64_t m, int64_t n_, int64_t k, layout la, layout lb, bool share_a = false,
            bool share_b = false, size_t shift = 0)
        : p(), a(0), b(0), bias(0), fa(0), fb(0), fbias(0), n(batch * m * n_) {
        p.batch = batch;
        p.m = m;
        p.n = n_;
        p.k = k;
        a = numbers<T>(steps(p.a, la, batch, m, k, share_a), 1, 0, shift);
        b = numbers<T>(steps(p.b, lb, batch, k, n_, share_b), 1, 0, shift);
        bias = numbers<T>(n_, 1, 0, shift);
        fa = floats(a);
        fb = floats(b);
        fbias = floats(bias);
    }
};

static const layout rows = {false, 0}, columns = {true, 0};

/* Sums of up to 80 products of numbers below 1, in another order. */
template <typename T, typename R>
static void check_matmul(example<T> &e, bool with_bias, size_t shift = 0) {
    array<R> y(e.n, shift);
    array<float> expected(e.n);
    e.p.wide = !is_bf16<R>;
    if (syz_cpu_matmul(expected, e.fa, e.fb.data(), with_bias ? e.fbias.data() : nullptr, &e.p) != 0)
        failed("the CPU's product failed");
    const T *bias = with_bias ? e.bias.data() : nullptr;
    run([&] { return syz_cuda::matmul<T>(y.data(), e.a, e.b.data(), bias, &e.p, 0); }, {y});
    compare("matmul", y, expected, 1e-5, 2e-5);
}

/* A product, with or without bias, on top of what is there. */
template <typename T, typename R>
static void check_add(example<T> &e, bool with_bias, size_t shift, double rounding = 0) {
    array<R> y = numbers<R>(e.n, 1, 0, shift);
    array<float> before = floats(y), expected(e.n), added = before;
    const float *fbias = with_bias ? e.fbias.data() : nullptr;
    const T *bias = with_bias ? e.bias.data() : nullptr;
    e.p.wide = !is_bf16<R>;
    e.p.add = 0;
    syz_cpu_matmul(expected, e.fa, e.fb.data(), fbias, &e.p);
    e.p.add = 1;
    if (syz_cpu_matmul(added, e.fa, e.fb.data(), fbias, &e.p) != 0) failed("the CPU's sum failed");
    for (int64_t i = 0; i < e.n; i++)
        expected[i] += before[i];
    compare_exactly("the CPU's sum", added, expected);
    run([&] { return syz_cuda::matmul<T>(y.data(), e.a, e.b.data(), bias, &e.p, 0); }, {y});
    compare("matmul that adds", y, expected, 1e-5, 2e-5 + rounding);
}

static const int64_t shapes[][3] = {{1, 1, 1},    {1, 7, 5},    {7, 1, 5},   {5, 7, 1},  {1, 8, 1},
                                    {13, 31, 17}, {64, 64, 64}, {5, 72, 33}, {8, 16, 80}};

template <typename T>
static void layouts() {
    static const layout kinds[] = {rows, columns, {false, 3}, {true, 3}};
    for (const auto &s : shapes)
        for (const layout &a : kinds)
            for (const layout &b : kinds)
                for (int batch = 0; batch < 4; batch++) { /* one; of both; of a alone; of b alone */
                    example<T> e(batch ? 3 : 1, s[0], s[1], s[2], a, b, batch == 3, batch == 2);
                    for (int with_bias = 0; with_bias < 2; with_bias++) {
                        check_matmul<T, T>(e, with_bias);
                        if (is_bf16<T>) check_matmul<T, float>(e, with_bias);
                    }
                }
}

template <typename T>
static void adds() {
    for (const auto &s : shapes)
        for (int64_t batch = 1; batch < 4; batch += 2)
            for (int kind = 0; kind < 8; kind++) {
                example<T> e(batch, s[0], s[1], s[2], kind & 1 ? rows : columns, kind & 2 ? rows : columns);
                check_add<T, T>(e, kind & 4, 0);
                if (is_bf16<T>) check_add<T, float>(e, kind & 4, 0);
                emu::lt.refused = (uint32_t)CUBLASLT_EPILOGUE_BIAS;
                check_add<T, T>(e, kind & 4, 1, 0.07); /* aligned as no other: new plans; bf16 is rounded twice */
                emu::lt.refused = 0;
            }
}

/* Pointers that are aligned to an element and no more. */
template <typename T>
static void unaligned() {
    for (const auto &s : shapes) {
        example<T> e(1, s[0], s[1], s[2], rows, columns, false, false, 1);
        check_matmul<T, T>(e, true, 1);
        check_matmul<T, float>(e, true, 1);
    }
}

/* The step of a dimension of one means nothing. */
static void single_rows() {
    static const int64_t vectors[][2] = {{1, 1}, {0, 1}, {99, 1}, {1, 2}, {7, 2}};
    array<float> x = numbers<float>(9), w = numbers<float>(9);
    for (const auto &a : vectors)
        for (const auto &b : vectors) {
            syz_product p = {1, 1, 1, 5, {0, a[0], a[1]}, {0, b[1], b[0]}, 0, 0, 0, 0};
            array<float> y(1), expected(1);
            for (int64_t k = 0; k < 5; k++)
                expected[0] += x[k * a[1]] * w[k * b[1]];
            run([&] { return syz_cuda::matmul<float>(y.data(), x, w.data(), nullptr, &p, 0); }, {y});
            compare("a product of vectors", y, expected, 1e-6, 1e-6);
        }
}

/* Steps that are neither of rows nor of columns, and products that cannot be. */
static void refusals() {
    example<float> e(1, 4, 4, 4, rows, rows);
    array<float> y(16);
    e.p.a[1] = 2;
    e.p.a[2] = 2;
    if (syz_cuda::matmul<float>(y.data(), e.a, e.b.data(), nullptr, &e.p, 0) != -1) failed("steps (2,2) are taken");
    syz_cuda::lt_product right = {4, 4, 4, 1, 4, 4, 0, 0, 0, 0, CUDA_R_32F, CUDA_R_32F, CUBLASLT_EPILOGUE_DEFAULT, 0};
    syz_cuda::lt_operands o = {e.b.data(), e.a.data(), y.data(), nullptr, nullptr};
    if (syz_cuda::lt_run(right, o, 0) != 0) failed("a right product is refused: %s", emu::the().error);
    auto refused = [&](const char *what, auto change) {
        syz_cuda::lt_product wrong = right;
        change(wrong);
        if (syz_cuda::lt_run(wrong, o, 0) == 0) failed("not refused: %s", what);
    };
    using product = syz_cuda::lt_product;
    refused("a short leading dimension", [](product &p) { p.lda = 3; });
    refused("the other short leading dimension", [](product &p) { p.ldb = 3; });
    refused("a bias without a pointer", [](product &p) { p.epilogue = CUBLASLT_EPILOGUE_BIAS; });
    refused("an auxiliary output without a pointer", [](product &p) { p.epilogue = CUBLASLT_EPILOGUE_GELU_AUX; });
    refused("a bf16 result of f32", [](product &p) { p.result_type = CUDA_R_16BF; });
    refused("an epilogue that does not exist", [](product &p) { p.epilogue = 12; });
}

/* ---- epilogues ---- */

/* In steps instead of epilogues, bf16 is rounded before GELU too (`rounding`), or even before the bias (`twice`). */
template <typename T>
static void check_gelu(example<T> &e, bool with_pre, bool with_bias, size_t shift, double rounding, double twice = 0) {
    array<T> y(e.n, shift), pre(with_pre ? e.n : 0, shift);
    array<float> expected(e.n), expected_pre(e.n);
    const float *fbias = with_bias ? e.fbias.data() : nullptr;
    const T *bias = with_bias ? e.bias.data() : nullptr;
    syz_cpu_matmul_gelu(expected, expected_pre, e.fa, e.fb.data(), fbias, &e.p);
    run([&] { return syz_cuda::matmul_gelu<T>(y, with_pre ? pre.data() : nullptr, e.a, e.b.data(), bias, &e.p, 0); },
        {y, pre});
    compare("matmul_gelu", y, expected, 2e-5, 3e-5 + rounding);
    compare("matmul_gelu's pre", pre, expected_pre, 1e-5, 2e-5 + twice);
}

template <typename T>
static void gelu() {
    for (const auto &s : shapes)
        for (int batch = 1; batch < 4; batch += 2)
            for (int kind = 0; kind < 8; kind++) {
                example<T> e(batch, s[0], s[1], s[2], rows, kind & 4 ? rows : columns, false, true);
                bool fused = s[1] % 8 == 0;
                check_gelu(e, kind & 1, kind & 2, 0, fused || !is_bf16<T> ? 0 : 0.02);
                check_gelu(e, kind & 1, kind & 2, 1, is_bf16<T> ? 0.02 : 0);
                emu::lt.refused = ~0u & ~(uint32_t)CUBLASLT_EPILOGUE_DEFAULT;
                check_gelu(e, kind & 1, kind & 2, 2, is_bf16<T> ? 0.04 : 0,
                           is_bf16<T> ? 0.04 : 0); /* aligned as no other: new plans */
                emu::lt.refused = 0;
            }
}

/* The CPU leaves GELU's argument where it is asked for, and gives the same without. */
static void gelu_of_the_cpu() {
    example<float> e(2, 5, 24, 7, rows, columns, false, true);
    array<float> y(e.n), pre(e.n), alone(e.n), product(e.n), expected(e.n);
    syz_cpu_matmul(product, e.a, e.b.data(), e.bias, &e.p);
    syz_cpu_unary(expected, product, e.n, SYZ_UNARY_gelu_tanh);
    syz_cpu_matmul_gelu(y, pre, e.a, e.b.data(), e.bias, &e.p);
    syz_cpu_matmul_gelu(alone, nullptr, e.a, e.b.data(), e.bias, &e.p);
    compare_exactly("y", y, expected);
    compare_exactly("pre", pre, product);
    compare_exactly("y without pre", alone, expected);
}

template <typename T>
static void bias_gradient() {
    for (const auto &s : shapes)
        for (size_t shift = 0; shift < 2; shift++)
            for (int refused = 0; refused < 2; refused++) {
                example<T> e(1, s[0], s[1], s[2], columns, rows, false, false, shift + 2 * (size_t)refused);
                array<float> y(e.n), dbias(s[0], (size_t)refused), expected(e.n), expected_dbias(s[0]);
                e.p.wide = 1;
                for (int64_t i = 0; i < s[0]; i++) /* independent of the CPU's kernel */
                    for (int64_t k = 0; k < s[2]; k++)
                        expected_dbias[i] += e.fa[k * s[0] + i];
                syz_cpu_matmul(expected, e.fa, e.fb.data(), nullptr, &e.p);
                emu::lt.refused = refused ? (uint32_t)CUBLASLT_EPILOGUE_BGRADB : 0;
                run([&] { return syz_cuda::matmul_bias_gradient<T>(y, dbias, e.a, e.b, &e.p, 0); }, {y, dbias});
                emu::lt.refused = 0;
                compare("y", y, expected, 1e-5, 2e-5);
                compare("dbias", dbias, expected_dbias, 1e-5, 1e-5);
                syz_cpu_matmul_bias_gradient(expected, expected_dbias, e.fa, e.fb, &e.p);
                compare("y beside the CPU's", y, expected, 1e-5, 2e-5);
                compare("dbias beside the CPU's", dbias, expected_dbias, 1e-5, 1e-5);
            }
}

/* ---- plans ---- */

/* How often the heuristics were asked during one product that must be right: product, or 1 + product. */
static int asked(example<float> &e, cudaStream_t stream = 0, size_t shift = 0) {
    alignas(256) static float memory[1024]; /* always as aligned as this, or the plan would be another */
    array<float> y(e.n), expected(e.n);
    int before = emu::lt.asked;
    std::fill_n(memory + shift, e.n, 1.0f);
    std::fill_n(expected.data(), e.n, 1.0f);
    syz_cpu_matmul(expected, e.fa, e.fb.data(), nullptr, &e.p);
    if (syz_cuda::matmul<float>(memory + shift, e.a, e.b.data(), nullptr, &e.p, stream) != 0)
        failed("matmul fails: %s", emu::the().error);
    std::copy_n(memory + shift, e.n, y.data());
    compare("matmul", y, expected, 1e-5, 2e-5);
    return emu::lt.asked - before;
}

static void expect(const char *what, int times, int wanted) {
    if (times != wanted) failed("%s: %d, not %d", what, times, wanted);
}

static void plans() {
    example<float> e(1, 11, 24, 40, rows, columns), flipped(1, 11, 24, 40, columns, columns);
    expect("heuristics of a new shape", asked(e), 1);
    expect("of the same shape", asked(e), 0);
    expect("of another layout", asked(flipped), 1);
    expect("of another alignment", asked(e, 0, 1), 1);
    CUstream_st stream{0};
    emu::capturing = true; /* a stream without a workspace cannot get one now */
    expect("in a captured stream", asked(e, &stream), 1);
    emu::capturing = false;
    expect("when it is no longer captured", asked(e, &stream), 0);
    emu::capturing = true;
    expect("captured with its workspace", asked(e, &stream), 0);
    emu::capturing = false;
}

/* ---- autotune ---- */

static std::string contents(const std::string &path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

static void append(const std::string &path, const std::string &text) {
    std::ofstream(path, std::ios::app) << text;
}

/* A line as autotune.cu writes it. */
static std::string line(const std::string &text) {
    uint64_t hash = 14695981039346656037u;
    for (unsigned char c : text)
        hash = (hash ^ c) * 1099511628211u;
    char sum[17];
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)hash);
    return sum + (" " + text + "\n");
}

static double cost(example<float> &e) {
    double before = emu::milliseconds;
    asked(e);
    return emu::milliseconds - before;
}

static void forget_plans() {
    for (int64_t k = 1; k <= 2048; k++) {
        example<float> e(1, 1, 1, k, rows, rows);
        float y;
        syz_cuda::matmul<float>(&y, e.a, e.b.data(), nullptr, &e.p, 0);
    }
}

static std::string new_folder() {
    char folder[] = "/tmp/syz-autotune-XXXXXX";
    return mkdtemp(folder) ? folder : "";
}

/* Set before the first product, which is when it is read. */
static const std::string from_environment = [] {
    std::string folder = new_folder();
    setenv("SYZ_AUTOTUNE", (folder + "/tuned").c_str(), 1);
    return folder;
}();

static void environment() {
    std::string path = from_environment + "/tuned";
    example<float> e(1, 2, 3, 4, rows, columns);
    asked(e);
    std::string text = contents(path);
    if (std::count(text.begin(), text.end(), '\n') != 1) failed("SYZ_AUTOTUNE: one line in %s", path.c_str());
    syz_cuda_autotune(nullptr);
    unlink(path.c_str());
    rmdir(from_environment.c_str());
}

/* Milliseconds so large that what the test itself takes is nothing to them. */
static const double FAST = 1e6, SLOW = 8e6;

static void autotune() {
    std::string folder = new_folder(), path = folder + "/tuned";
    for (int k = 0; k < emu::LT_ALGORITHMS; k++)
        emu::lt.milliseconds[k] = k == 5 ? FAST : k == 9 ? FAST / 2 : SLOW; /* the ninth is not among the eight */
    example<float> e(1, 9, 40, 24, rows, columns), other(1, 9, 48, 24, rows, columns);
    if (cost(e) != SLOW) failed("the first proposal is not what runs untimed");
    if (syz_cuda_autotune(path.c_str()) != 0) failed("autotune cannot write %s", path.c_str());
    emu::capturing = true;
    if (cost(e) != SLOW) failed("a captured product was timed");
    emu::capturing = false;
    asked(e); /* seen before, now timed */
    if (cost(e) != FAST) failed("the fastest was not kept");
    asked(other);
    if (cost(other) != FAST) failed("another shape is not timed");
    std::string whole = contents(path);
    if (std::count(whole.begin(), whole.end(), '\n') != 2) failed("the file should have two lines:\n%s", whole.c_str());

    /* Another process: from the file, without timing, whatever else stands there. */
    size_t second = whole.find('\n') + 1, space = whole.find(' ', whole.find(' ') + 1);
    std::string key = whole.substr(space + 1, second - space - 2);
    std::string foreign = line(std::string(128, 'a') + " another_device/1/2/3");
    std::string changed = line(std::string(128, 'b') + " another_device/1/2/3");
    changed[20] = 'c';
    append(path, changed + "no line\n\n" + whole.substr(0, 100) + "\n" + foreign + whole.substr(second, 60));
    syz_cuda_autotune(nullptr);
    forget_plans();
    if (cost(e) != SLOW) failed("autotune is still on");
    forget_plans();
    if (syz_cuda_autotune(path.c_str()) != 0) failed("the file is not taken: %s", contents(path).c_str());
    if (cost(e) != FAST || cost(other) != FAST) failed("the file was not used, or was timed again");
    if (contents(path) != foreign + whole && contents(path) != whole + foreign)
        failed("not the good lines alone remain:\n%s", contents(path).c_str());

    /* An algorithm that cuBLASLt refuses is timed anew. */
    std::ofstream(path) << line(std::string(128, 'f') + " " + key);
    syz_cuda_autotune(nullptr);
    forget_plans();
    syz_cuda_autotune(path.c_str());
    asked(e);
    asked(other);
    if (cost(e) != FAST || cost(other) != FAST) failed("a bad algorithm in the file does harm");
    example<float> sum(1, 9, 40, 24, rows, columns); /* timing must not add to the result */
    sum.p.add = 1;
    asked(sum);
    if (cost(sum) != FAST) failed("a product that adds is not timed");
    if (syz_cuda_autotune((folder + "/no/where").c_str()) == 0) failed("a path without a folder is taken");
    syz_cuda_autotune(nullptr);
    memset(emu::lt.milliseconds, 0, sizeof emu::lt.milliseconds);
    unlink(path.c_str());
    if (rmdir(folder.c_str()) != 0) failed("%s: something is left there", folder.c_str());
}

static void has_bf16() {
    bool faster = false;
    if (syz_cuda::has_bf16<float>(&faster, 0) != 0 || !faster) failed("bf16 products are faster");
}

MAIN({"environment", environment}, BOTH(layouts), BOTH(adds), BOTH(unaligned), {"single_rows", single_rows},
     {"refusals", refusals}, BOTH(gelu), {"gelu_of_the_cpu", gelu_of_the_cpu}, BOTH(bias_gradient), {"plans", plans},
     {"autotune", autotune}, {"has_bf16", has_bf16})
