/* Convolutions by cuDNN's plans, which the emulated cuDNN interprets, against the CPU's. */
#include "check.hpp"
#include "cudnn_graph.hpp"

/* As operations describe them: what no window reaches at the end is cut off, which may make a padding negative. */
static syz_conv conv_of(const int64_t (&s)[6], int64_t kernel, int64_t stride, const int64_t (&padding)[4]) {
    syz_conv v = {};
    v.n = s[0];
    v.h = s[1];
    v.w = s[2];
    v.c = s[3];
    v.o = s[4];
    v.kh = kernel;
    v.kw = s[5];
    v.stride = stride;
    v.top = padding[0];
    v.left = padding[1];
    v.bottom = padding[2];
    v.right = padding[3];
    int64_t down = v.h + v.top + v.bottom - v.kh, across = v.w + v.left + v.right - v.kw;
    v.out_h = down / stride + 1;
    v.out_w = across / stride + 1;
    v.bottom -= down % stride;
    v.right -= across % stride;
    return v;
}

/* The autoencoder's 3 x 3, its downsampling, 1 x 1, first and last layers; a patch embedding; odd sizes, a filter that
 * is not square, rows that no window reaches. */
static const syz_conv shapes[] = {
    conv_of({2, 6, 5, 8, 16, 3}, 3, 1, {1, 1, 1, 1}), conv_of({1, 8, 8, 8, 8, 3}, 3, 2, {0, 0, 1, 1}),
    conv_of({2, 3, 4, 16, 8, 1}, 1, 1, {0, 0, 0, 0}), conv_of({1, 7, 7, 3, 16, 3}, 3, 1, {1, 1, 1, 1}),
    conv_of({1, 5, 9, 16, 3, 3}, 3, 1, {1, 1, 1, 1}), conv_of({1, 28, 28, 3, 8, 14}, 14, 14, {0, 0, 0, 0}),
    conv_of({1, 9, 7, 5, 7, 2}, 3, 2, {2, 0, 1, 3}),  conv_of({1, 8, 10, 2, 3, 3}, 3, 2, {0, 0, 0, 0}),
    conv_of({1, 1, 1, 1, 1, 1}, 1, 1, {0, 0, 0, 0}),  conv_of({3, 4, 4, 24, 8, 3}, 3, 1, {1, 1, 1, 1}),
};

template <typename T>
static void conv_of_shape(const syz_conv &v) {
    int64_t weights = v.o * v.c * v.kh * v.kw;
    array<T> x = numbers<T>(v.n * v.h * v.w * v.c), w = numbers<T>(weights), b = numbers<T>(v.o);
    array<T> dy = numbers<T>(v.n * v.out_h * v.out_w * v.o), y(dy.size()), dx(x.size());
    array<float> fx = floats(x), fw = floats(w), fb = floats(b), fy = floats(dy), expected(y.size());
    array<float> expected_dx(x.size()), dw(weights), db(v.o), expected_dw(weights), expected_db(v.o);
    const double absolute = 2e-5; /* sums of up to 600 products of numbers below 1 */
    syz_cpu_conv2d(expected, fx, fw, fb, &v);
    run([&] { return syz_cuda::conv2d<T>(y, x, w, b, &v, 0); }, {y});
    compare("y", y, expected, 1e-6, absolute);
    syz_cpu_conv2d(expected, fx, fw, nullptr, &v);
    run([&] { return syz_cuda::conv2d<T>(y, x, w, nullptr, &v, 0); }, {y});
    compare("y without bias", y, expected, 1e-6, absolute);
    syz_cpu_conv2d_input_gradient(expected_dx, fy, fw, &v);
    run([&] { return syz_cuda::conv2d_input_gradient<T>(dx, dy, w, &v, 0); }, {dx});
    compare("dx", dx, expected_dx, 1e-6, absolute);
    syz_cpu_conv2d_weight_gradient(expected_dw, expected_db, fy, fx, &v);
    run([&] { return syz_cuda::conv2d_weight_gradient<T>(dw, db, dy, x, &v, 0); }, {dw, db});
    compare("dweight", dw, expected_dw, 1e-6, absolute);
    compare("dbias", db, expected_db, 1e-6, absolute);
    array<float> alone(weights);
    run([&] { return syz_cuda::conv2d_weight_gradient<T>(alone, nullptr, dy, x, &v, 0); }, {alone});
    compare_exactly("dweight alone", alone, dw);
}

template <typename T>
static void convolutions() {
    for (const syz_conv &v : shapes)
        conv_of_shape<T>(v);
}

/* A second call with the same sizes finds the plan; other arrays and other values go through it. */
template <typename T>
static void plans_are_kept() {
    int before = emu_cudnn::plans;
    conv_of_shape<T>(shapes[0]);
    if (emu_cudnn::plans != before) failed("%d plans were made again", emu_cudnn::plans - before);
}

MAIN(BOTH(convolutions), BOTH(plans_are_kept))
