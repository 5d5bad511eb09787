/* What the tests of CUDA kernels share. A test fills arrays of exactly the size needed, asks the CPU's kernel for the
 * answer, runs the CUDA kernel under emulation in every schedule, and compares: with the CPU within a stated tolerance,
 * between schedules bit by bit. For a bf16 kernel the CPU gets the rounded inputs, and the tolerance grows by the
 * rounding of the result.
 *
 * `test` runs the checks. `test --barriers` switches off one __syncthreads() of the source after the other and fails
 * when the checks do not notice. */
#ifndef SYZ_TESTS_KERNELS_CHECK_HPP
#define SYZ_TESTS_KERNELS_CHECK_HPP

#include "kernels/cuda.cuh"

#include <cstdarg>
#include <string>

using syz_cuda::load;
using syz_cuda::store;

/* n values behind each other, `shift` elements from a 16-byte boundary. */
template <typename T>
struct array {
    std::vector<T> memory;
    size_t shift;

    explicit array(int64_t n, size_t shift_ = 0) : memory((size_t)n + shift_), shift(shift_) {}
    int64_t size() const { return (int64_t)(memory.size() - shift); }
    T *data() { return memory.data() + shift; }
    operator T *() { return data(); }
    operator const T *() const { return memory.data() + shift; }
    T &operator[](int64_t i) { return memory[(size_t)i + shift]; }
    const T &operator[](int64_t i) const { return memory[(size_t)i + shift]; }
};

struct output {
    void *data;
    size_t bytes;

    template <typename T>
    output(array<T> &a) : data(a.data()), bytes((size_t)a.size() * sizeof(T)) {}
};

inline struct {
    int failures;
    bool quiet;
    std::string name;
} test;

__attribute__((format(printf, 1, 2))) inline void failed(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (test.failures++ < 10 && !test.quiet) printf("%s: %s\n", test.name.c_str(), text);
}

/* ---- numbers ---- */

inline float random_number() {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) / (1 << 23) - 1.0f;
}

template <typename T>
constexpr bool is_bf16 = sizeof(T) == 2;

/* In -1..1 times `size`, plus `around`, as T can hold it. */
template <typename T>
array<T> numbers(int64_t n, float size = 1, float around = 0, size_t shift = 0) {
    array<T> x(n, shift);
    for (int64_t i = 0; i < n; i++)
        x[i] = store<T>(around + size * random_number());
    return x;
}

/* The same values for the CPU. */
template <typename T>
array<float> floats(const array<T> &x) {
    array<float> y(x.size());
    for (int64_t i = 0; i < x.size(); i++)
        y[i] = load(x[i]);
    return y;
}

/* ---- checks ---- */

/* Runs `kernel` in every schedule on the same initial outputs; all must give the same bits. */
template <typename F>
void run(F kernel, std::vector<output> outputs) {
    std::vector<std::vector<char>> before, first;
    for (const output &o : outputs)
        before.emplace_back((char *)o.data, (char *)o.data + o.bytes);
    for (int order = 0; order < emu::ORDERS; order++) {
        emu::the().schedule = (emu::order)order;
        for (size_t k = 0; k < outputs.size(); k++)
            if (outputs[k].bytes) memcpy(outputs[k].data, before[k].data(), outputs[k].bytes);
        emu::the().error[0] = 0;
        if (kernel() != 0) failed("launch failed in schedule %d: %s", order, emu::the().error);
        for (size_t k = 0; k < outputs.size(); k++) {
            const char *data = (const char *)outputs[k].data;
            if (order == 0)
                first.emplace_back(data, data + outputs[k].bytes);
            else if (outputs[k].bytes && memcmp(data, first[k].data(), outputs[k].bytes) != 0)
                failed("output %zu differs in schedule %d", k, order);
        }
    }
}

/* |y - expected| <= relative * |expected| + absolute; bf16 results may be off by another 2^-8 of their size. */
template <typename T, typename R>
void compare(const char *what, const array<T> &y, const R &expected, double relative, double absolute) {
    for (int64_t i = 0; i < y.size(); i++) {
        double a = load(y[i]), b = expected[i],
               allowed = (relative + (is_bf16<T> ? 0.00390625 : 0)) * fabs(b) + absolute;
        bool same = a == b || (a != a && b != b) || fabs(a - b) <= allowed;
        if (same) continue;
        failed("%s[%lld of %lld] is %.9g, the CPU has %.9g", what, (long long)i, (long long)y.size(), a, b);
        return;
    }
}

/* Equal bits. */
template <typename T>
void compare_exactly(const char *what, const array<T> &y, const array<T> &expected) {
    for (int64_t i = 0; i < y.size(); i++) {
        if (memcmp(&y[i], &expected[i], sizeof(T)) == 0) continue;
        failed("%s[%lld of %lld] differs", what, (long long)i, (long long)y.size());
        return;
    }
}

/* ---- the program ---- */

struct test_case {
    const char *name;
    void (*run)();
};

#define BOTH(name)                                                                                                     \
    {#name " f32", name<float>}, {                                                                                     \
#name " bf16", name < syz_bf16>                                                                                \
    }

inline int run_all(const std::vector<test_case> &cases) {
    test.failures = 0;
    for (const test_case &c : cases) {
        test.name = c.name;
        c.run();
        if (test.quiet && test.failures) break;
    }
    return test.failures;
}

inline int run_without_barriers(const std::vector<test_case> &cases) {
    emu::machine &m = emu::the();
    int unnoticed = 0;
    if (run_all(cases)) return 1;
    size_t sites = m.site.size();
    test.quiet = true;
    for (size_t site = 0; site < sites; site++) {
        m.skipped = (int)site;
        if (run_all(cases)) continue;
        printf("%s:%d: this barrier can be removed and no check fails\n", m.site[site].first, m.site[site].second);
        unnoticed++;
    }
    printf("%zu barriers, %d unnoticed when removed\n", sites, unnoticed);
    return sites == 0 || unnoticed;
}

#define MAIN(...)                                                                                                      \
    int main(int count, char **arguments) {                                                                            \
        const std::vector<test_case> cases = {__VA_ARGS__};                                                            \
        bool barriers = count > 1 && std::string(arguments[1]) == "--barriers";                                        \
        return (barriers ? run_without_barriers(cases) : run_all(cases)) ? EXIT_FAILURE : EXIT_SUCCESS;                \
    }

#endif
