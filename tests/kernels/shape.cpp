#include "check.hpp"
#include "syzygy.h"

#include <sys/mman.h>

/* Bytes to be moved: all different, as far as they can be. */
static array<uint8_t> bytes(int64_t n) {
    array<uint8_t> x(n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (uint8_t)(i * 167 + i / 256);
    return x;
}

/* Contiguous, odd and even; transposed; repeated; reversed order of three dimensions; rows within wider rows. */
static void copy() {
    static const syz_nest nests[] = {
        {1, {4099}, {1}, {1}},
        {1, {64}, {0}, {1}},
        {2, {33, 17}, {1, 33}, {17, 1}},
        {2, {5, 16}, {32, 1}, {16, 1}},
        {2, {5, 13}, {16, 1}, {13, 1}},
        {3, {3, 4, 5}, {1, 3, 12}, {20, 5, 1}},
        {3, {2, 3, 24}, {48, 0, 1}, {72, 24, 1}},
        {6, {2, 1, 3, 2, 2, 8}, {8, 0, 16, 48, 96, 1}, {96, 96, 32, 16, 8, 1}},
    };
    for (const syz_nest &nest : nests) {
        for (size_t size = 1; size <= 8; size *= 2) {
            int64_t from = 1, to = 1;
            for (int d = 0; d < nest.n; d++) {
                from += (nest.dim[d] - 1) * nest.a[d];
                to += (nest.dim[d] - 1) * nest.b[d];
            }
            array<uint8_t> x = bytes(from * (int64_t)size), y(to * (int64_t)size), expected(to * (int64_t)size);
            syz_cpu_copy(expected, x, &nest, size);
            run([&] { return syz_cuda::copy<float>(y, x, &nest, size, 0); }, {y});
            compare_exactly("copy", y, expected);
        }
    }
}

static void fill() {
    for (size_t size = 1; size <= 8; size *= 2) {
        for (int64_t n : {1, 33, 4099}) {
            array<uint8_t> y(n * (int64_t)size), expected(n * (int64_t)size);
            uint64_t element = 0x0807060504030201;
            for (int64_t i = 0; i < n * (int64_t)size; i++)
                expected[i] = (uint8_t)(1 + i % (int64_t)size);
            syz_cpu_fill(y, element, size, n);
            compare_exactly("fill on the CPU", y, expected);
            run([&] { return syz_cuda::fill<float>(y, element, size, n, 0); }, {y});
            compare_exactly("fill", y, expected);
        }
    }
}

static array<int64_t> some_ids(int64_t count, int64_t n) {
    array<int64_t> ids(count);
    for (int64_t k = 0; k < count; k++)
        ids[k] = (k * k * 31 + 5) % n; /* repeats */
    return ids;
}

static void gather() {
    static const int64_t shapes[][3] = {{1, 1, 1}, {1, 50, 7}, {3, 11, 24}, {2, 5, 300}};
    for (const auto &s : shapes) {
        for (size_t width : {1, 2, 6, 12, 16, 24, 80}) {
            array<uint8_t> x = bytes(s[0] * s[1] * (int64_t)width), y(s[0] * s[2] * (int64_t)width), expected = y;
            array<int64_t> ids = some_ids(s[2], s[1]);
            syz_cpu_gather(expected, x, ids, s[0], s[1], s[2], width);
            run([&] { return syz_cuda::gather<float>(y, x, ids, s[0], s[1], s[2], width, 0); }, {y});
            compare_exactly("gather", y, expected);
        }
    }
}

/* Both add in the order of ids, so that f32 results are equal. */
template <typename T>
static void scatter_add() {
    static const int64_t shapes[][4] = {{1, 1, 1, 1}, {1, 5, 40, 3}, {3, 4, 9, 129}};
    for (const auto &s : shapes) {
        array<T> dy = numbers<T>(s[0] * s[2] * s[3]);
        array<float> dx = numbers<float>(s[0] * s[1] * s[3]), expected = dx;
        array<int64_t> ids = some_ids(s[2], s[1]);
        syz_cpu_scatter_add(expected, floats(dy), ids, s[0], s[1], s[2], s[3]);
        run([&] { return syz_cuda::scatter_add<T>(dx, dy, ids, s[0], s[1], s[2], s[3], 0); }, {dx});
        compare_exactly("scatter_add", dx, expected);
    }
}

template <typename T>
static void rows() {
    static const int64_t shapes[][4] = {
        {1, 1, 1, 0}, {9, 6, 24, 0}, {5, 6, 13, 6}, {70, 3, 8, 0}}; /* n, table, c, step */
    for (const auto &s : shapes) {
        int64_t n = s[0], c = s[2], tables = s[3] ? n : 1;
        array<T> x = numbers<T>(tables * s[1] * c), y(n * c), dy = numbers<T>(n * c);
        array<int64_t> ids = some_ids(n, s[1]);
        array<float> taken(n * c), dx = numbers<float>(x.size()), expected = dx;
        syz_cpu_gather_rows(taken, floats(x), ids, s[3], n, c);
        run([&] { return syz_cuda::gather_rows<T>(y, x, ids, s[3], n, c, 0); }, {y});
        compare("gather_rows", y, taken, 0, 0);
        syz_cpu_scatter_rows(expected, floats(dy), ids, s[3], n, c);
        run([&] { return syz_cuda::scatter_rows<T>(dx, dy, ids, s[3], n, c, 0); }, {dx});
        compare_exactly("scatter_rows", dx, expected);
    }
}

/* ---- cast ---- */

/* Every pair of dtypes, on numbers that are exact, that must be rounded (ties too), that saturate, that are no number.
 */
static void cast() {
    static const double values[] = {0,          -0.0,     1,        -1.5, 2.5,        255.9,  256,     -300,
                                    65504,      65519.99, 65520,    1e30, -1e30,      1e-7,   5.97e-8, 2.98e-8,
                                    6.1e-5,     -3e-6,    INFINITY, NAN,  2147483647, 3e9,    -3e9,    1.00390625,
                                    1.01171875, 0.1,      3.14159,  2049, 2051,       -1e-40, 40000,   77};
    constexpr int64_t n = sizeof values / sizeof *values;
    for (int from = 0; from < SYZ_DTYPE_COUNT; from++) {
        array<uint8_t> x(n * (int64_t)syz_dtype_size((syz_dtype)from));
        syz_cpu_cast(x, from, values, SYZ_F64, n);
        for (int to = 0; to < SYZ_DTYPE_COUNT; to++) {
            array<uint8_t> y(n * (int64_t)syz_dtype_size((syz_dtype)to)), expected = y;
            array<double> a(n), b(n); /* NaN has many bits: compare values */
            syz_cpu_cast(expected, to, x, from, n);
            run([&] { return syz_cuda::cast<float>(y, to, x, from, n, 0); }, {y});
            syz_cpu_cast(a, SYZ_F64, y, to, n);
            syz_cpu_cast(b, SYZ_F64, expected, to, n);
            test.name = std::string("cast ") + syz_dtype_name((syz_dtype)from) + " to " + syz_dtype_name((syz_dtype)to);
            for (int64_t i = 0; i < n; i++)
                if (!(a[i] == b[i] && std::signbit(a[i]) == std::signbit(b[i])) && !(a[i] != a[i] && b[i] != b[i]))
                    failed("%.9g becomes %.9g, on the CPU %.9g", values[i], a[i], b[i]);
        }
    }
}

/* All the numbers of f16, there and back. */
static void all_halves() {
    array<uint16_t> x(65536), back(65536);
    array<float> y(65536), expected(65536);
    for (int64_t i = 0; i < 65536; i++)
        x[i] = (uint16_t)i;
    syz_cpu_cast(expected, SYZ_F32, x, SYZ_F16, 65536);
    run([&] { return syz_cuda::cast<float>(y, SYZ_F32, x, SYZ_F16, 65536, 0); }, {y});
    compare("f16 to f32", y, expected, 0, 0);
    run([&] { return syz_cuda::cast<float>(back, SYZ_F16, y, SYZ_F32, 65536, 0); }, {back});
    for (int64_t i = 0; i < 65536; i++)
        if (back[i] != x[i] && (x[i] & 0x7fff) <= 0x7c00) failed("f16 %04x comes back as %04x", x[i], back[i]);
}

/* ---- offsets beyond 32 bits ---- */

/* Two runs of four numbers, 3 * 10^9 elements apart, in memory of which only their pages exist. */
static void far_apart() {
    const int64_t apart = 3000000000, bytes = (apart + 4) * 4;
    void *memory =
        mmap(nullptr, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        printf("no 12 GB of address space: not run\n");
        return;
    }
    float *x = (float *)memory;
    array<float> y(8), expected(8), zeros(8);
    array<int64_t> ids(2);
    syz_nest nest = {2, {2, 4}, {apart, 1}, {4, 1}};
    for (int64_t i = 0; i < 8; i++)
        expected[i] = x[i / 4 * apart + i % 4] = (float)(i + 1);
    ids[0] = 0, ids[1] = apart / 4;
    run([&] { return syz_cuda::copy<float>(y, x, &nest, 4, 0); }, {y});
    compare_exactly("copy", y, expected);
    run([&] { return syz_cuda::binary<float>(y, x, zeros, &nest, SYZ_BINARY_ADD, 0); }, {y});
    compare_exactly("binary", y, expected);
    run([&] { return syz_cuda::gather<float>(y, x, ids, 1, apart / 4 + 1, 2, 16, 0); }, {y});
    compare_exactly("gather", y, expected);
    run([&] { return syz_cuda::gather_rows<float>(y, x, ids, 0, 2, 4, 0); }, {y});
    compare_exactly("gather_rows", y, expected);
    for (int64_t i = 0; i < 8; i++)
        x[i / 4 * apart + i % 4] = 0;
    run([&] { return syz_cuda::scatter_rows<float>(x, y, ids, 0, 2, 4, 0); }, {});
    if (x[apart + 3] != 3 * expected[7]) failed("scatter_rows wrote %g", x[apart + 3]); /* once in each schedule */
    munmap(memory, (size_t)bytes);
}

MAIN({"copy", copy}, {"fill", fill}, {"gather", gather}, BOTH(scatter_add), BOTH(rows), {"cast", cast},
     {"all halves", all_halves}, {"far apart", far_apart})
