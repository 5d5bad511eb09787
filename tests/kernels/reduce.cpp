#include "kernels/reduce.cuh"
#include "check.hpp"

/* Sums of up to 10^5 numbers of size 1: f32 threads, added in trees, stay within 1e-6 of the sum of absolutes. */
template <typename T>
static void sums_over(const syz_nest &nest) {
    int64_t n = 1, ny = 1;
    for (int d = 0; d < nest.n; d++) {
        n *= nest.dim[d];
        if (nest.a[d]) ny *= nest.dim[d];
    }
    for (size_t shift = 0; shift < 2; shift++) {
        array<T> x = numbers<T>(n, 1, 0.25f, shift), y(ny, shift);
        array<float> expected(ny);
        syz_cpu_sum(expected, floats(x), &nest, 0.5f, ny);
        run([&] { return syz_cuda::sum<T>(y, x, &nest, 0.5f, ny, 0); }, {y});
        compare("sum", y, expected, 1e-6, 1e-6 * (double)(n / ny));
    }
}

/* All; rows short, long, cut into pieces; columns; the general pattern with the kept dimension first, last, between. */
template <typename T>
static void sum() {
    static const syz_nest nests[] = {
        {1, {1}, {0}, {0}},
        {1, {1000}, {0}, {0}},
        {1, {50001}, {0}, {0}},
        {1, {17}, {1}, {0}},
        {2, {3, 1}, {1, 0}, {0}},
        {2, {37, 64}, {1, 0}, {0}},
        {2, {5, 1031}, {1, 0}, {0}},
        {2, {3, 40000}, {1, 0}, {0}},
        {2, {1, 300}, {0, 1}, {0}},
        {2, {700, 40}, {0, 1}, {0}},
        {2, {513, 7}, {0, 1}, {0}},
        {2, {9, 1032}, {0, 1}, {0}},
        {3, {4, 6, 5}, {5, 0, 1}, {0}},
        {3, {4, 6, 5}, {0, 1, 0}, {0}},
        {4, {3, 5, 7, 11}, {7, 0, 1, 0}, {0}},
        {5, {2, 3, 2, 3, 200}, {0, 3, 0, 1, 0}, {0}},
    };
    for (const syz_nest &nest : nests)
        sums_over<T>(nest);
}

template <typename T>
static void argmax() {
    static const int64_t shapes[][3] = {{1, 1, 1}, {3, 77, 1}, {2, 5, 301}, {1, 2000, 2}};
    for (const auto &s : shapes) {
        array<T> x = numbers<T>(s[0] * s[1] * s[2]);
        if (s[1] > 10) {
            x[x.size() - 1] = store<T>(NAN);
            x[4] = x[6] = store<T>(2); /* the first of equals */
        }
        array<int64_t> y(s[0] * s[2]), expected(s[0] * s[2]);
        syz_cpu_argmax(expected, floats(x), s[0], s[1], s[2]);
        run([&] { return syz_cuda::argmax<T>(y, x, s[0], s[1], s[2], 0); }, {y});
        compare_exactly("argmax", y, expected);
    }
}

/* ---- losses ---- */

template <typename T>
static void cross_entropy() {
    static const int64_t shapes[][2] = {{1, 1}, {5, 3}, {300, 10}, {7, 1000}, {3, 1025}, {2, 5003}};
    for (const auto &s : shapes) {
        int64_t n = s[0], c = s[1];
        array<T> x = numbers<T>(n * c, 8), dx(n * c);
        array<float> fx = floats(x), lse(n), expected(n), slope(n * c);
        array<int64_t> target(n);
        for (int64_t i = 0; i < n; i++)
            target[i] = (i * 7919) % c;
        array<float> loss(1), expected_loss(1), dloss(1);
        dloss[0] = 0.7f * (float)n;
        syz_cpu_cross_entropy(expected_loss, expected, fx, target, n, c);
        run([&] { return syz_cuda::cross_entropy<T>(loss, lse, x, target, n, c, 0); }, {loss, lse});
        compare("lse", lse, expected, 1e-6, 1e-6);
        compare("loss", loss, expected_loss, 1e-6, 1e-5);
        syz_cpu_cross_entropy_backward(slope, dloss, fx, expected, target, n, c);
        run([&] { return syz_cuda::cross_entropy_backward<T>(dx, dloss, x, lse, target, n, c, 0); }, {dx});
        compare("cross_entropy_backward", dx, slope, 1e-5, 1e-6);
    }
}

template <typename T>
static void distance() {
    static const int64_t sizes[] = {1, 255, 2049, 30011};
    for (int64_t n : sizes) {
        for (int squared = 0; squared < 2; squared++) {
            array<T> a = numbers<T>(n), b = numbers<T>(n), da(n);
            array<float> fa = floats(a), fb = floats(b), slope(n);
            array<float> loss(1), expected(1), dloss(1);
            dloss[0] = 0.3f * (float)n;
            a[n / 2] = b[n / 2] = store<T>(0.5f); /* no slope here */
            fa[n / 2] = fb[n / 2] = 0.5f;
            syz_cpu_distance(expected, fa, fb, n, squared);
            run([&] { return syz_cuda::distance<T>(loss, a, b, n, squared, 0); }, {loss});
            compare("distance", loss, expected, 1e-6, 0);
            syz_cpu_distance_backward(slope, dloss, fa, fb, n, squared);
            run([&] { return syz_cuda::distance_backward<T>(da, dloss, a, b, n, squared, 0); }, {da});
            compare("distance_backward", da, slope, 1e-6, 0);
        }
    }
}

/* Two sums in a row by the same threads: thread i hands in i and then i * i. */
static __global__ void two_sums(float *y) {
    float first = syz_cuda::group_sum<syz_cuda::THREADS>((float)threadIdx.x);
    float second = syz_cuda::group_sum<syz_cuda::THREADS>((float)(threadIdx.x * threadIdx.x));
    y[2 * threadIdx.x] = first;
    y[2 * threadIdx.x + 1] = second;
}

static void group_sum() {
    array<float> y(512), expected(512);
    for (int i = 0; i < 256; i++) {
        expected[2 * i] = 255 * 256 / 2;
        expected[2 * i + 1] = 255 * 256 * 511 / 6;
    }
    run([&] { return syz_cuda::launch(two_sums, 1, syz_cuda::THREADS, 0, (float *)y); }, {y});
    compare("group_sum", y, expected, 0, 0);
}

MAIN({"group_sum", group_sum}, BOTH(sum), BOTH(argmax), BOTH(cross_entropy), BOTH(distance))
