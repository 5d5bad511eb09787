/* Group normalisation of [n,area,channels] with an optional SiLU behind it: channel sums over blocks of positions, one
 * block of threads for each group to combine them in double, one pass over the elements. */
#include "kernels/reduce.cuh"
#include "kernels/simd_math.h"

namespace {

using namespace syz_cuda;

/* Scratch: two rows of channels for each sample and block, then six for each sample. */
struct rows_of {
    float *a, *b;         /* [n,blocks,channels] block sums */
    float *scale, *shift; /* [n,channels] y = x * scale + shift */
    float *slope, *level; /* [n,channels] dx = dz * scale + x * slope + level */
    float *sum, *dot;     /* [n,channels] sums of dz and dz * xhat */
    int64_t blocks;
};

static int64_t scratch_size(const syz_group_norm_shape &s) {
    return s.n * s.channels * (2 * cuts(s.area, SYZ_GROUP_NORM_BLOCK) + 6);
}

static rows_of scratch_rows(float *scratch, const syz_group_norm_shape &s) {
    rows_of r;
    r.blocks = cuts(s.area, SYZ_GROUP_NORM_BLOCK);
    int64_t large = s.n * r.blocks * s.channels, small = s.n * s.channels;
    float **part[] = {&r.scale, &r.shift, &r.slope, &r.level, &r.sum, &r.dot};
    r.a = scratch;
    r.b = r.a + large;
    scratch += 2 * large;
    for (float **p : part) {
        *p = scratch;
        scratch += small;
    }
    return r;
}

/* ---- forward ---- */

/* x - first and its square, `first` being the sample's first position: without that shift the variance of channels far
 * from 0 would cancel. */
template <int N, typename T>
struct moment_columns {
    const T *x;
    int64_t channels;
    float first[N];
    __device__ void add(int64_t row, float (&a)[N], float (&b)[N]) const {
        pack<T, N> v = read<N>(x + row * channels);
        for (int k = 0; k < N; k++) {
            float d = load(v.value[k]) - first[k];
            a[k] += d;
            b[k] += d * d;
        }
    }
};

template <typename T>
struct moments {
    const T *x;
    int64_t area, channels;
    template <int N>
    __device__ moment_columns<N, T> at(int64_t row, int64_t column) const {
        moment_columns<N, T> columns = {x + column, channels, {}};
        pack<T, N> first = read<N>(x + row / area * area * channels + column);
        for (int k = 0; k < N; k++)
            columns.first[k] = load(first.value[k]);
        return columns;
    }
};

/* The sum of one channel over the blocks of sample n, the same in all threads of the block. */
static __device__ inline double channel_total(const float *sums, int64_t n, int64_t blocks, int64_t channels,
                                              int64_t channel) {
    double sum = 0;
    for (int64_t b = threadIdx.x; b < blocks; b += THREADS)
        sum += sums[(n * blocks + b) * channels + channel];
    return group_sum<THREADS>(sum);
}

/* One block for each (sample, group). Variance within channels, plus that of their means. */
template <typename T>
static __global__ void group_statistics(rows_of r, float *mean, float *rstd, const T *x, const T *weight, const T *bias,
                                        syz_group_norm_shape s, float eps) {
    int64_t n = blockIdx.x / s.groups, group = blockIdx.x % s.groups, width = s.channels / s.groups;
    double center = 0, within = 0, between = 0, area = (double)s.area;
    for (int64_t k = 0; k < width; k++) {
        int64_t c = group * width + k;
        double sum = channel_total(r.a, n, r.blocks, s.channels, c);
        double square = channel_total(r.b, n, r.blocks, s.channels, c);
        double channel = load(x[n * s.area * s.channels + c]) + sum / area, step = channel - center;
        within += square - sum * sum / area;
        center += step / (double)(k + 1);
        between += step * (channel - center);
    }
    double variance = (within + between * area) / ((double)width * area);
    float m = (float)center, deviation = (float)(1.0 / sqrt(variance + eps));
    for (int64_t k = threadIdx.x; k < width; k += THREADS) {
        int64_t c = group * width + k;
        float scale = deviation * load(weight[c]);
        r.scale[n * s.channels + c] = scale;
        r.shift[n * s.channels + c] = load(bias[c]) - m * scale;
    }
    if (threadIdx.x > 0) return;
    mean[blockIdx.x] = m;
    rstd[blockIdx.x] = deviation;
}

template <int N, typename T>
static __global__ void group_norm_apply(T *y, const T *x, rows_of r, syz_group_norm_shape s) {
    int64_t i = thread_index() * N, sample = s.area * s.channels;
    if (i >= s.n * sample) return;
    int64_t at = i / sample * s.channels + i % s.channels;
    pack<T, N> v = read<N>(x + i), out;
    float scale[N], shift[N];
    read_floats(scale, r.scale + at);
    read_floats(shift, r.shift + at);
    for (int k = 0; k < N; k++) {
        float z = load(v.value[k]) * scale[k] + shift[k];
        out.value[k] = store<T>(s.silu ? z * syz_sigmoidf(z) : z);
    }
    write(y + i, out);
}

template <int N, typename T>
static int forward(T *y, float *mean, float *rstd, rows_of r, const T *x, const T *weight, const T *bias,
                   const syz_group_norm_shape &s, float eps, cudaStream_t stream) {
    moments<T> f = {x, s.area, s.channels};
    row_cuts blocks = {s.area, r.blocks};
    if (column_sums<N>(r.a, r.b, s.n * r.blocks, s.channels, blocks, f, stream) != 0) return -1;
    if (launch(group_statistics<T>, s.n * s.groups, THREADS, stream, r, mean, rstd, x, weight, bias, s, eps) != 0)
        return -1;
    int64_t n = s.n * s.area * s.channels;
    return launch(group_norm_apply<N, T>, cuts(n, THREADS * N), THREADS, stream, y, x, r, s);
}

/* ---- backward ---- */

template <typename T>
static __global__ void channel_factors(rows_of r, const float *mean, const float *rstd, const T *weight, const T *bias,
                                       syz_group_norm_shape s) {
    int64_t i = thread_index();
    if (i >= s.n * s.channels) return;
    int64_t n = i / s.channels, c = i % s.channels, group = n * s.groups + c / (s.channels / s.groups);
    float scale = rstd[group] * load(weight[c]);
    r.scale[i] = scale;
    r.shift[i] = load(bias[c]) - mean[group] * scale;
}

/* dz, the gradient before the SiLU */
static __device__ inline float inner_gradient(float dy, float x, float scale, float shift, bool silu) {
    return silu ? dy * syz_silu_slope(x * scale + shift) : dy;
}

/* a: dz, b: dz * xhat */
template <int N, typename T>
struct gradient_columns {
    const T *dy, *x;
    int64_t channels;
    bool silu;
    float scale[N], shift[N], mean[N], rstd[N];
    __device__ void add(int64_t row, float (&a)[N], float (&b)[N]) const {
        pack<T, N> g = read<N>(dy + row * channels), v = read<N>(x + row * channels);
        for (int k = 0; k < N; k++) {
            float value = load(v.value[k]);
            float dz = inner_gradient(load(g.value[k]), value, scale[k], shift[k], silu);
            a[k] += dz;
            b[k] += dz * (value - mean[k]) * rstd[k];
        }
    }
};

template <typename T>
struct gradients {
    const T *dy, *x;
    const float *mean, *rstd;
    rows_of r;
    syz_group_norm_shape s;
    template <int N>
    __device__ gradient_columns<N, T> at(int64_t row, int64_t column) const {
        gradient_columns<N, T> columns = {dy + column, x + column, s.channels, s.silu, {}, {}, {}, {}};
        int64_t n = row / s.area, width = s.channels / s.groups;
        read_floats(columns.scale, r.scale + n * s.channels + column);
        read_floats(columns.shift, r.shift + n * s.channels + column);
        for (int k = 0; k < N; k++) {
            int64_t group = n * s.groups + (column + k) / width;
            columns.mean[k] = mean[group];
            columns.rstd[k] = rstd[group];
        }
        return columns;
    }
};

/* One block for each (sample, group). */
template <typename T>
static __global__ void gradient_factors(rows_of r, const float *mean, const float *rstd, const T *weight,
                                        syz_group_norm_shape s) {
    int64_t n = blockIdx.x / s.groups, first = blockIdx.x % s.groups * (s.channels / s.groups);
    int64_t width = s.channels / s.groups;
    double m = mean[blockIdx.x], deviation = rstd[blockIdx.x], c1 = 0, c2 = 0;
    for (int64_t c = first; c < first + width; c++) {
        double sum = channel_total(r.a, n, r.blocks, s.channels, c);
        double dot = channel_total(r.b, n, r.blocks, s.channels, c);
        c1 += load(weight[c]) * sum;
        c2 += load(weight[c]) * dot;
        if (threadIdx.x > 0) continue;
        r.sum[n * s.channels + c] = (float)sum;
        r.dot[n * s.channels + c] = (float)dot;
    }
    double count = (double)width * (double)s.area;
    for (int64_t k = threadIdx.x; k < width; k += THREADS) {
        int64_t at = n * s.channels + first + k;
        r.slope[at] = (float)(-deviation * deviation * c2 / count);
        r.level[at] = (float)(-deviation * c1 / count + deviation * deviation * m * c2 / count);
    }
}

template <int N, typename T>
static __global__ void group_norm_gradient(T *dx, const T *dy, const T *x, rows_of r, syz_group_norm_shape s) {
    int64_t i = thread_index() * N, sample = s.area * s.channels;
    if (i >= s.n * sample) return;
    int64_t at = i / sample * s.channels + i % s.channels;
    pack<T, N> g = read<N>(dy + i), v = read<N>(x + i), out;
    float scale[N], shift[N], slope[N], level[N];
    read_floats(scale, r.scale + at);
    read_floats(shift, r.shift + at);
    read_floats(slope, r.slope + at);
    read_floats(level, r.level + at);
    for (int k = 0; k < N; k++) {
        float value = load(v.value[k]), dz = inner_gradient(load(g.value[k]), value, scale[k], shift[k], s.silu);
        out.value[k] = store<T>(dz * scale[k] + value * slope[k] + level[k]);
    }
    write(dx + i, out);
}

/* One thread for each channel: its sums over the samples. */
static __global__ void sum_samples(float *dweight, float *dbias, rows_of r, int64_t n, int64_t channels) {
    int64_t c = thread_index();
    if (c >= channels) return;
    double dot = 0, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        dot += r.dot[k * channels + c];
        sum += r.sum[k * channels + c];
    }
    if (dweight) dweight[c] = (float)dot;
    if (dbias) dbias[c] = (float)sum;
}

template <int N, typename T>
static int backward(T *dx, rows_of r, const T *dy, const T *x, const float *mean, const float *rstd, const T *weight,
                    const T *bias, const syz_group_norm_shape &s, cudaStream_t stream) {
    gradients<T> f = {dy, x, mean, rstd, r, s};
    row_cuts blocks = {s.area, r.blocks};
    int64_t rows = s.n * s.channels, n = rows * s.area;
    if (launch(channel_factors<T>, cuts(rows, THREADS), THREADS, stream, r, mean, rstd, weight, bias, s) != 0)
        return -1;
    if (column_sums<N>(r.a, r.b, s.n * r.blocks, s.channels, blocks, f, stream) != 0) return -1;
    if (launch(gradient_factors<T>, s.n * s.groups, THREADS, stream, r, mean, rstd, weight, s) != 0) return -1;
    if (!dx) return 0;
    return launch(group_norm_gradient<N, T>, cuts(n, THREADS * N), THREADS, stream, dx, dy, x, r, s);
}

} // namespace

template <typename REAL>
int syz_cuda::group_norm(REAL *y, float *mean, float *rstd, const REAL *x, const REAL *weight, const REAL *bias,
                         const syz_group_norm_shape *shape, float eps, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    scratch<float> memory(scratch_size(*shape), stream);
    if (!memory.data) return -1;
    rows_of r = scratch_rows(memory.data, *shape);
    if (shape->channels % N == 0 && aligned(y, x))
        return forward<N>(y, mean, rstd, r, x, weight, bias, *shape, eps, stream);
    return forward<1>(y, mean, rstd, r, x, weight, bias, *shape, eps, stream);
}

template <typename REAL>
int syz_cuda::group_norm_backward(REAL *dx, float *dweight, float *dbias, const REAL *dy, const REAL *x,
                                  const float *mean, const float *rstd, const REAL *weight, const REAL *bias,
                                  const syz_group_norm_shape *shape, cudaStream_t stream) {
    constexpr int N = lanes_of<REAL>;
    scratch<float> memory(scratch_size(*shape), stream);
    if (!memory.data) return -1;
    rows_of r = scratch_rows(memory.data, *shape);
    bool wide = shape->channels % N == 0 && aligned(dx, dy, x);
    if ((wide ? backward<N>(dx, r, dy, x, mean, rstd, weight, bias, *shape, stream)
              : backward<1>(dx, r, dy, x, mean, rstd, weight, bias, *shape, stream)) != 0)
        return -1;
    if (!dweight && !dbias) return 0;
    return launch(sum_samples, cuts(shape->channels, THREADS), THREADS, stream, dweight, dbias, r, shape->n,
                  shape->channels);
}

SYZ_BOTH(group_norm)
SYZ_BOTH(group_norm_backward)
