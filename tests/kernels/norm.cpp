#include "check.hpp"

/* rows, width, rows per span: one of all; odd; a warp's row and a block's row, aligned and not; several spans. */
static const syz_norm_shape shapes[] = {
    {1, 1, 1, 0},    {9, 7, 9, 0},    {33, 64, 11, 1},  {17, 128, 17, 0},
    {3, 1031, 1, 1}, {4, 1032, 2, 0}, {150, 40, 75, 1}, {5, 1536, 5, 1},
};

/* Means and variances of up to 1536 numbers of size 1 around 0.5 agree to 1e-5, and so do values and gradients of that
 * size; sums over up to 150 rows to 1e-5 of each term. */
template <typename T>
static void norm_as(const syz_norm_shape &s, bool centred, bool weighted, bool biased) {
    int64_t n = s.rows * s.width, spans = s.rows / s.span * s.width;
    array<T> x = numbers<T>(n, 1, 0.5f), w = numbers<T>(spans), b = numbers<T>(spans), dy = numbers<T>(n), y(n), dx(n);
    array<float> fx = floats(x), fw = floats(w), fb = floats(b), fy = floats(dy);
    array<float> mean(s.rows), rstd(s.rows), cpu_mean(s.rows), cpu_rstd(s.rows), cpu_y(n), cpu_dx(n);
    array<float> dw(spans), db(spans), cpu_dw(spans), cpu_db(spans);
    const T *weight = weighted ? (const T *)w : nullptr, *bias = biased ? (const T *)b : nullptr;
    const float *cpu_weight = weighted ? (const float *)fw : nullptr;
    const float *cpu_bias = biased ? (const float *)fb : nullptr;
    float *m = centred ? (float *)mean : nullptr, *cpu_m = centred ? (float *)cpu_mean : nullptr;
    syz_cpu_norm(cpu_y, cpu_m, cpu_rstd, fx, cpu_weight, cpu_bias, &s, 1e-6f);
    run([&] { return syz_cuda::norm<T>(y, m, rstd, x, weight, bias, &s, 1e-6f, 0); }, {y, mean, rstd});
    compare("y", y, cpu_y, 1e-5, 1e-5);
    compare("mean", mean, cpu_mean, 1e-5, 1e-6);
    compare("rstd", rstd, cpu_rstd, 1e-5, 0);
    syz_cpu_norm_backward(cpu_dx, cpu_dw, cpu_db, fy, fx, cpu_m, cpu_rstd, cpu_weight, &s);
    auto backward = [&](T *to_x, float *to_w, float *to_b) {
        return syz_cuda::norm_backward<T>(to_x, to_w, to_b, dy, x, cpu_m, cpu_rstd, weight, &s, 0);
    };
    run([&] { return backward(dx, dw, db); }, {dx, dw, db});
    compare("dx", dx, cpu_dx, 1e-5, 2e-5);
    compare("dweight", dw, cpu_dw, 1e-5, 2e-5);
    compare("dbias", db, cpu_db, 1e-5, 2e-5);
    array<T> dx_alone(n);
    array<float> db_alone(spans);
    run([&] { return backward(dx_alone, nullptr, nullptr); }, {dx_alone});
    compare_exactly("dx alone", dx_alone, dx);
    run([&] { return backward(nullptr, nullptr, db_alone); }, {db_alone});
    compare_exactly("dbias alone", db_alone, db);
}

template <typename T>
static void norm() {
    for (const syz_norm_shape &s : shapes) {
        if (s.width > 1) norm_as<T>(s, true, true, true);
        norm_as<T>(s, false, true, false);
    }
    norm_as<T>(shapes[2], true, false, false);
    norm_as<T>(shapes[3], true, false, true);
    norm_as<T>(shapes[5], true, true, false);
}

/* Rows far from zero keep their variance: 1000 +- 1. */
static void far_from_zero() {
    syz_norm_shape s = {3, 1536, 3, 0};
    array<float> x = numbers<float>(s.rows * s.width, 1, 1000), y(x.size()), expected(x.size());
    array<float> mean(3), rstd(3);
    syz_cpu_norm(expected, mean, rstd, x, nullptr, nullptr, &s, 1e-6f);
    run([&] { return syz_cuda::norm<float>(y, mean, rstd, x, nullptr, nullptr, &s, 1e-6f, 0); }, {y, mean, rstd});
    compare("y", y, expected, 1e-3, 3e-4);
}

template <typename T>
static void normalize() {
    for (const syz_norm_shape &s : shapes) {
        int64_t n = s.rows * s.width;
        array<T> x = numbers<T>(n), dy = numbers<T>(n), y(n), dx(n);
        for (int64_t i = 0; i < s.width; i++)
            x[i] = store<T>(0); /* a length below eps */
        array<float> fx = floats(x), inverse(s.rows), expected_inverse(s.rows), expected(n);
        syz_cpu_normalize(expected, expected_inverse, fx, s.rows, s.width, 1e-4f);
        run([&] { return syz_cuda::normalize<T>(y, inverse, x, s.rows, s.width, 1e-4f, 0); }, {y, inverse});
        compare("normalize", y, expected, 1e-5, 1e-6);
        compare("inverse", inverse, expected_inverse, 1e-5, 0);
        syz_cpu_normalize_backward(expected, floats(dy), floats(y), inverse, s.rows, s.width, 1e-4f);
        run([&] { return syz_cuda::normalize_backward<T>(dx, dy, y, inverse, s.rows, s.width, 1e-4f, 0); }, {dx});
        compare("normalize_backward", dx, expected, 1e-5, 1e-6);
    }
}

/* ---- adaptive layer norm's neighbours ---- */

template <typename T>
static void fused() {
    for (const syz_norm_shape &s : shapes) {
        int64_t n = s.rows * s.width, spans = s.rows / s.span * s.width;
        array<T> x = numbers<T>(n), h = numbers<T>(n), shift = numbers<T>(spans), scale = numbers<T>(spans), y(n);
        array<float> fx = floats(x), fh = floats(h), fshift = floats(shift), fscale = floats(scale), expected(n);
        array<float> ds(spans), dt(spans), cpu_ds(spans), cpu_dt(spans);
        syz_cpu_modulate(expected, fx, fshift, fscale, &s);
        run([&] { return syz_cuda::modulate<T>(y, x, shift, scale, &s, 0); }, {y});
        compare("modulate", y, expected, 1e-6, 1e-6);
        syz_cpu_gate(expected, fx, fscale, fh, &s);
        run([&] { return syz_cuda::gate<T>(y, x, scale, h, &s, 0); }, {y});
        compare("gate", y, expected, 1e-6, 1e-6);
        syz_cpu_modulate_backward(expected, cpu_ds, cpu_dt, fh, fx, fscale, &s);
        run([&] { return syz_cuda::modulate_backward<T>(y, ds, dt, h, x, scale, &s, 0); }, {y, ds, dt});
        compare("modulate_backward dx", y, expected, 1e-6, 1e-6);
        compare("modulate_backward dscale", ds, cpu_ds, 1e-5, 1e-5);
        compare("modulate_backward dshift", dt, cpu_dt, 1e-5, 1e-5);
    }
}

template <typename T>
static void rope() {
    static const int64_t sizes[][4] = {{1, 1, 1, 2}, {2, 5, 3, 6}, {1, 7, 2, 16}, {2, 3, 4, 64}};
    for (const auto &s : sizes) {
        int64_t n = s[0] * s[1] * s[2] * s[3], angles = s[1] * s[3] / 2;
        for (size_t apart = 0; apart < 2; apart++) {
            array<T> x = numbers<T>(n, 1, 0, apart), y(n, apart);
            array<float> cosine = numbers<float>(angles), sine = numbers<float>(angles), expected(n);
            for (float direction : {1.0f, -1.0f}) {
                syz_cpu_rope(expected, floats(x), cosine, sine, s, direction);
                run([&] { return syz_cuda::rope<T>(y, x, cosine, sine, s, direction, 0); }, {y});
                compare("rope", y, expected, 1e-6, 1e-6);
            }
        }
    }
}

/* y = x and dx = dy where the steps are equal: the same bits as apart. */
template <typename T>
static void head_norm_in_place(syz_head_rows s, size_t shift) {
    int64_t rows = s.batch * s.tokens * s.heads, room = s.batch * s.x_step[0];
    array<T> x = numbers<T>(room, 1, 0, shift), w = numbers<T>(s.dim), y = x, dy = numbers<T>(room), dx = dy;
    array<float> cosine = numbers<float>(s.tokens * s.dim / 2), sine = numbers<float>(s.tokens * s.dim / 2);
    array<float> rstd(rows);
    for (int k = 0; k < 2; k++)
        s.y_step[k] = s.x_step[k];
    run([&] { return syz_cuda::head_norm<T>(y, rstd, x, w, cosine, sine, &s, 1e-6f, 0); }, {y, rstd});
    array<T> in_place = x;
    run([&] { return syz_cuda::head_norm<T>(in_place, rstd, in_place, w, cosine, sine, &s, 1e-6f, 0); },
        {in_place, rstd});
    compare_exactly("y in place", in_place, y);
    auto backward = [&](T *to, const T *from) {
        return syz_cuda::head_norm_backward<T>(to, nullptr, from, x, rstd, w, cosine, sine, &s, 0);
    };
    run([&] { return backward(dx, dy); }, {dx});
    run([&] { return backward(dy, dy); }, {dy});
    compare_exactly("dx in place", dy, dx);
}

/* Heads in rows with room between them against the CPU's; what lies between the heads must stay. In the gradient a
 * value meets a sum over its head: 1e-5 of values of size 1, 2e-5 of sums. */
template <typename T>
static void head_norm_of(syz_head_rows s, size_t shift) {
    int64_t rows = s.batch * s.tokens * s.heads, room = s.batch * s.x_step[0], other = s.batch * s.y_step[0];
    array<T> x = numbers<T>(room, 1, 0, shift), w = numbers<T>(s.dim), y = numbers<T>(other), dy = numbers<T>(other);
    array<T> dx = numbers<T>(room, 1, 0, shift);
    array<float> cosine = numbers<float>(s.tokens * s.dim / 2), sine = numbers<float>(s.tokens * s.dim / 2);
    array<float> expected = floats(y), rstd(rows), cpu_rstd(rows), dw(s.dim), cpu_dw(s.dim);
    syz_cpu_head_norm(expected, cpu_rstd, floats(x), floats(w), cosine, sine, &s, 1e-6f);
    run([&] { return syz_cuda::head_norm<T>(y, rstd, x, w, cosine, sine, &s, 1e-6f, 0); }, {y, rstd});
    compare("y", y, expected, 1e-5, 1e-5);
    compare("rstd", rstd, cpu_rstd, 1e-5, 0);
    run([&] { return syz_cuda::head_norm<T>(y, nullptr, x, w, cosine, sine, &s, 1e-6f, 0); }, {y});
    compare("y without rstd", y, expected, 1e-5, 1e-5);
    auto backward = [&](T *to, const T *from, float *weight, const syz_head_rows *steps) {
        return syz_cuda::head_norm_backward<T>(to, weight, from, x, cpu_rstd, w, cosine, sine, steps, 0);
    };
    expected = floats(dx);
    syz_cpu_head_norm_backward(expected, cpu_dw, floats(dy), floats(x), cpu_rstd, floats(w), cosine, sine, &s);
    run([&] { return backward(dx, dy, dw, &s); }, {dx, dw});
    compare("dx", dx, expected, 2e-5, 2e-5);
    compare("dweight", dw, cpu_dw, 1e-5, 1e-6 * (double)rows + 1e-5);
    head_norm_in_place<T>(s, shift);
}

template <typename T>
static void head_norm() {
    static const int64_t sizes[][5] = {{1, 1, 1, 2, 2}, {2, 3, 2, 6, 37}, {1, 5, 3, 64, 600}, {2, 7, 2, 128, 768}};
    for (const auto &k : sizes) {
        int64_t row = k[2] * k[3];
        syz_head_rows s = {k[0], k[1], k[2], k[3], {k[1] * k[4], k[4]}, {k[1] * row + 8, row}};
        head_norm_of<T>(s, 0);
        head_norm_of<T>(s, 1);
    }
}

MAIN(BOTH(norm), {"far from zero", far_from_zero}, BOTH(normalize), BOTH(fused), BOTH(rope), BOTH(head_norm))
