/* Softmax, and what works on images: group norm, resampling, upsampling. */
#include "check.hpp"

/* ---- group norm ---- */

/* n, area, channels, groups: tiny; odd widths; one channel to a group; two blocks of positions and a rest;
 * more blocks than a warp has lanes. */
static const syz_group_norm_shape shapes[] = {
    {1, 1, 2, 1, false},   {2, 7, 6, 3, true},     {1, 49, 32, 32, true},
    {3, 20, 64, 8, false}, {1, 1100, 16, 4, true}, {1, 17000, 2, 1, true},
};

/* Sums over up to 4400 numbers of size 1, around 2: 1e-5 of their number for what is summed, 2e-5 for the rest. */
template <typename T>
static void group_norm_of(const syz_group_norm_shape &s) {
    int64_t n = s.n * s.area * s.channels, groups = s.n * s.groups;
    array<T> x = numbers<T>(n, 1, 2), dy = numbers<T>(n), w = numbers<T>(s.channels), b = numbers<T>(s.channels);
    array<T> y(n), dx(n);
    array<float> fx = floats(x), fy = floats(dy), fw = floats(w), fb = floats(b);
    array<float> mean(groups), rstd(groups), cpu_mean(groups), cpu_rstd(groups), cpu_y(n), cpu_dx(n);
    array<float> dw(s.channels), db(s.channels), cpu_dw(s.channels), cpu_db(s.channels);
    syz_cpu_group_norm(cpu_y, cpu_mean, cpu_rstd, fx, fw, fb, &s, 1e-5f);
    run([&] { return syz_cuda::group_norm<T>(y, mean, rstd, x, w, b, &s, 1e-5f, 0); }, {y, mean, rstd});
    compare("y", y, cpu_y, 1e-5, 2e-5);
    compare("mean", mean, cpu_mean, 1e-6, 0);
    compare("rstd", rstd, cpu_rstd, 1e-5, 0);
    syz_cpu_group_norm_backward(cpu_dx, cpu_dw, cpu_db, fy, fx, cpu_mean, cpu_rstd, fw, fb, &s);
    auto backward = [&](T *to_x, float *to_w, float *to_b) {
        return syz_cuda::group_norm_backward<T>(to_x, to_w, to_b, dy, x, cpu_mean, cpu_rstd, w, b, &s, 0);
    };
    double sums = 1e-6 * (double)(s.n * s.area) + 1e-5;
    run([&] { return backward(dx, dw, db); }, {dx, dw, db});
    compare("dx", dx, cpu_dx, 2e-5, 5e-5);
    compare("dweight", dw, cpu_dw, 1e-5, sums);
    compare("dbias", db, cpu_db, 1e-5, sums);
    array<T> alone(n);
    run([&] { return backward(alone, nullptr, nullptr); }, {alone});
    compare_exactly("dx alone", alone, dx);
    run([&] { return backward(nullptr, dw, nullptr); }, {dw});
    compare("dweight alone", dw, cpu_dw, 1e-5, sums);
}

template <typename T>
static void group_norm() {
    for (const syz_group_norm_shape &s : shapes)
        group_norm_of<T>(s);
}

/* ---- softmax ---- */

template <typename T>
static void softmax() {
    static const int64_t sizes[][3] = {{1, 1, 1},    {5, 7, 1},    {9, 64, 1}, {3, 1000, 1},
                                       {2, 1031, 1}, {2, 1536, 1}, {2, 9, 5},  {3, 4, 300}};
    for (const auto &s : sizes) {
        for (int logarithm = 0; logarithm < 2; logarithm++) {
            int64_t n = s[0] * s[1] * s[2];
            array<T> x = numbers<T>(n, 10), dy = numbers<T>(n), y(n), dx(n);
            array<float> expected(n);
            syz_cpu_softmax(expected, floats(x), s[0], s[1], s[2], logarithm);
            run([&] { return syz_cuda::softmax<T>(y, x, s[0], s[1], s[2], logarithm, 0); }, {y});
            compare("softmax", y, expected, 1e-5, 1e-6);
            syz_cpu_softmax_backward(expected, floats(dy), floats(y), s[0], s[1], s[2], logarithm);
            run([&] { return syz_cuda::softmax_backward<T>(dx, dy, y, s[0], s[1], s[2], logarithm, 0); }, {dx});
            compare("softmax_backward", dx, expected, 1e-5, 1e-5);
        }
    }
}

/* ---- sizes of images ---- */

template <typename T>
static void upsample() {
    static const int64_t sizes[][4] = {{1, 1, 1, 2}, {6, 5, 3, 2}, {4, 3, 16, 2}, {2, 2, 8, 3}, {3, 7, 20, 1}};
    for (const auto &s : sizes) {
        int64_t n = s[0] * s[1] * s[2];
        array<T> dy = numbers<T>(n * s[3] * s[3]), dx(n);
        array<float> expected(n);
        syz_cpu_upsample_gradient(expected, floats(dy), s[0], s[1], s[2], s[3]);
        run([&] { return syz_cuda::upsample_gradient<T>(dx, dy, s[0], s[1], s[2], s[3], 0); }, {dx});
        compare("upsample_gradient", dx, expected, 1e-6, 1e-6);
    }
}

/* A made-up matrix with rows of one to four weights. */
template <typename T>
static void resample() {
    static const int64_t sizes[][4] = {{1, 5, 3, 1}, {2, 9, 14, 3}, {3, 16, 7, 24}, {2, 30, 11, 8}};
    for (const auto &s : sizes) {
        array<int64_t> start(s[2]), count(s[2]);
        array<float> weight = numbers<float>(s[2] * 4);
        for (int64_t i = 0; i < s[2]; i++) {
            count[i] = 1 + i % 4;
            start[i] = (i * 7) % (s[1] - count[i] + 1);
        }
        syz_taps taps = {s[1], s[2], 4, start, count, weight};
        array<T> x = numbers<T>(s[0] * s[1] * s[3]), y(s[0] * s[2] * s[3]);
        array<float> expected(y.size());
        syz_cpu_resample(expected, floats(x), &taps, s[0], s[3]);
        run([&] { return syz_cuda::resample<T>(y, x, &taps, s[0], s[3], 0); }, {y});
        compare("resample", y, expected, 1e-6, 1e-6);
    }
}

MAIN(BOTH(group_norm), BOTH(softmax), BOTH(upsample), BOTH(resample))
