/* Convolutions by cuDNN's plans, which exist for every size that was tried, whatever the channels and paddings
 * (tests/cudnn/conv.c); upsampling's gradient.
 *
 * Filters are stored [o,c,kh,kw] and wanted [o,kh,kw,c]: each call orders them anew. The decoder of FLUX's autoencoder
 * has 50 million weights, so that is 0.2 GB of traffic, less than a hundredth of the time; a kept copy would have to
 * learn when the weight is trained, or its memory given to another tensor. */
#include "kernels/conv_cudnn.h"
#include "kernels/cudnn_plans.cuh"
#include "kernels/reduce.cuh"
#include "syzygy.h"

#include <string.h>

namespace {

using namespace syz_cuda;

/* ---- plans ---- */

struct conv_key {
    syz_conv conv;
    cudnnDataType_t type;
    syz_conv_direction direction;
    bool bias;
};

void describe(syz_cudnn_graph *g, const void *key_) {
    const conv_key *key = (const conv_key *)key_;
    syz_conv_graph(g, key->direction, &key->conv, key->type, key->bias);
}

template <typename T>
const cudnn_plan *plan_of(syz_conv_direction direction, const syz_conv &conv, bool bias) {
    conv_key key;
    memset(&key, 0, sizeof key);
    key.conv = conv;
    key.conv.bf16 = 0;
    key.type = sizeof(T) == sizeof(float) ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
    key.direction = direction;
    key.bias = bias;
    return find_plan(describe, &key, sizeof key);
}

int run_conv(const cudnn_plan *plan, const void *x, const void *weight, const void *y, const void *bias,
             cudaStream_t stream) {
    const cudnn_array arrays[] = {{SYZ_CONV_X, x}, {SYZ_CONV_WEIGHT, weight}, {SYZ_CONV_Y, y}, {SYZ_CONV_BIAS, bias}};
    return plan ? run_plan(plan, arrays, bias ? 4 : 3, stream) : -1;
}

/* ---- the order of filters ---- */

int64_t weight_size(const syz_conv &v) {
    return v.o * v.c * v.kh * v.kw;
}

/* to [o,kh,kw,c] = from [o,c,kh,kw], or, `back`, the reverse */
template <typename T>
int reorder(T *to, const T *from, const syz_conv &v, bool back, cudaStream_t stream) {
    int64_t cells = v.kh * v.kw, stored[] = {v.c * cells, 1, cells}, wanted[] = {v.c * cells, v.c, 1};
    syz_nest nest = {3, {v.o, cells, v.c}, {}, {}};
    memcpy(nest.a, back ? wanted : stored, sizeof wanted);
    memcpy(nest.b, back ? stored : wanted, sizeof wanted);
    return copy<float>(to, from, &nest, sizeof(T), stream);
}

/* Filters as cuDNN wants them; `data` is NULL when that failed. */
template <typename T>
struct ordered_filters {
    scratch<T> own;
    const T *data;

    ordered_filters(const T *weight, const syz_conv &v, cudaStream_t stream)
        : own(v.kh * v.kw == 1 ? 1 : weight_size(v), stream), data(weight) {
        if (v.kh * v.kw == 1) return;
        data = own.data && reorder(own.data, weight, v, false, stream) == 0 ? own.data : nullptr;
    }
};

/* ---- gradients of parameters ---- */

template <typename T>
int bias_gradient(float *dbias, const T *dy, const syz_conv &v, cudaStream_t stream) {
    constexpr int N = 8 / (int)sizeof(T);
    int64_t rows = v.n * v.out_h * v.out_w;
    syz_norm_shape shape = {rows, v.o, rows, 0};
    bool wide = v.o % N == 0 && aligned(dy);
    return span_sums<N>(dbias, (float *)nullptr, shape, plain_columns<T>{dy, v.o}, wide, stream);
}

template <typename T>
int filter_gradient(float *dweight, const T *dy, const T *x, const syz_conv &v, cudaStream_t stream);

/* Of bf16 images cuDNN gives a gradient in f32 only where both numbers of channels are multiples of 8. The others, a
 * network's first and last filters, are small. */
int filter_gradient_in_f32(float *dweight, const syz_bf16 *dy, const syz_bf16 *x, const syz_conv &v,
                           cudaStream_t stream) {
    int64_t x_size = v.n * v.h * v.w * v.c, y_size = v.n * v.out_h * v.out_w * v.o;
    scratch<float> wide_x(x_size, stream), wide_y(y_size, stream);
    if (!wide_x.data || !wide_y.data) return -1;
    if (cast<float>(wide_x.data, SYZ_F32, x, SYZ_BF16, x_size, stream) != 0) return -1;
    if (cast<float>(wide_y.data, SYZ_F32, dy, SYZ_BF16, y_size, stream) != 0) return -1;
    return filter_gradient<float>(dweight, wide_y.data, wide_x.data, v, stream);
}

template <typename T>
int filter_gradient(float *dweight, const T *dy, const T *x, const syz_conv &v, cudaStream_t stream) {
    const cudnn_plan *plan = plan_of<T>(SYZ_CONV_WEIGHT_GRADIENT, v, false);
    if constexpr (sizeof(T) == sizeof(syz_bf16)) {
        if (!plan) return filter_gradient_in_f32(dweight, dy, x, v, stream);
    }
    scratch<float> ordered(weight_size(v), stream);
    if (!ordered.data || run_conv(plan, x, ordered.data, dy, nullptr, stream) != 0) return -1;
    return reorder(dweight, ordered.data, v, true, stream);
}

/* ---- upsampling ---- */

/* One thread for N channels of one cell of dx [rows,w,c]. */
template <int N, typename T>
static __global__ void upsample_gradient_kernel(T *dx, const T *dy, int64_t w, int64_t c, int64_t factor, int64_t n) {
    int64_t i = thread_index() * N;
    if (i >= n) return;
    int64_t cell = i / c, channel = i - cell * c, row = cell / w, column = cell - row * w;
    float sum[N] = {0};
    for (int64_t line = row * factor; line < (row + 1) * factor; line++) {
        for (int64_t k = column * factor; k < (column + 1) * factor; k++) {
            pack<T, N> v = read<N>(dy + (line * w * factor + k) * c + channel);
            for (int j = 0; j < N; j++)
                sum[j] += load(v.value[j]);
        }
    }
    pack<T, N> out;
    for (int j = 0; j < N; j++)
        out.value[j] = store<T>(sum[j]);
    write(dx + i, out);
}

} // namespace

template <typename REAL>
int syz_cuda::conv2d(REAL *y, const REAL *x, const REAL *weight, const REAL *bias, const syz_conv *conv,
                     cudaStream_t stream) {
    ordered_filters<REAL> filters(weight, *conv, stream);
    if (!filters.data) return -1;
    return run_conv(plan_of<REAL>(SYZ_CONV_FORWARD, *conv, bias), x, filters.data, y, bias, stream);
}

template <typename REAL>
int syz_cuda::conv2d_input_gradient(REAL *dx, const REAL *dy, const REAL *weight, const syz_conv *conv,
                                    cudaStream_t stream) {
    ordered_filters<REAL> filters(weight, *conv, stream);
    if (!filters.data) return -1;
    return run_conv(plan_of<REAL>(SYZ_CONV_INPUT_GRADIENT, *conv, false), dx, filters.data, dy, nullptr, stream);
}

template <typename REAL>
int syz_cuda::conv2d_weight_gradient(float *dweight, float *dbias, const REAL *dy, const REAL *x, const syz_conv *conv,
                                     cudaStream_t stream) {
    if (dbias && bias_gradient(dbias, dy, *conv, stream) != 0) return -1;
    return filter_gradient(dweight, dy, x, *conv, stream);
}

template <typename REAL>
int syz_cuda::upsample_gradient(REAL *dx, const REAL *dy, int64_t rows, int64_t w, int64_t c, int64_t factor,
                                cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    int64_t n = rows * w * c;
    if (c % N == 0 && aligned(dx, dy))
        return launch(upsample_gradient_kernel<N, REAL>, cuts(n, THREADS * N), THREADS, stream, dx, dy, w, c, factor,
                      n);
    return launch(upsample_gradient_kernel<1, REAL>, cuts(n, THREADS), THREADS, stream, dx, dy, w, c, factor, n);
}

SYZ_BOTH(conv2d)
SYZ_BOTH(conv2d_input_gradient)
SYZ_BOTH(conv2d_weight_gradient)
SYZ_BOTH(upsample_gradient)
