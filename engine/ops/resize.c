/* Separable image resizing: one sparse matrix for each axis, its transpose for the gradient. */
#include "kernels/kernels.h"
#include "ops/ops.h"

#include <math.h>

/* ---- filters ---- */

static double triangle(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Keys' cubic convolution */
static double cubic(double x, double a) {
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

typedef struct {
    bool bicubic, antialias;
} filter;

/* torch's constants: -0.75 in the plain kernel, Pillow's -0.5 in the antialiased one */
static double filter_at(filter f, double x) {
    return f.bicubic ? cubic(x, f.antialias ? -0.5 : -0.75) : triangle(x);
}

/* ---- tables ---- */

/* Room for `out` rows of `most` taps, zeroed, in tensors of the current scope. */
static syz_status new_taps(syz_taps *t, int64_t in, int64_t out, int64_t most) {
    syz_tensor *position = syz_zeros(SYZ_I64, SYZ_SHAPE(2, out)), *weight = syz_zeros(SYZ_F32, SYZ_SHAPE(out, most));
    if (!position || !weight) return syz_error_status();
    *t = (syz_taps){in, out, most, syz_i64(position), syz_i64(position) + out, syz_f32(weight)};
    return SYZ_OK;
}

static int64_t clamp(int64_t i, int64_t low, int64_t high) {
    return i < low ? low : i > high ? high : i;
}

/* The window is cut at the border and its weights add up to 1. */
static void antialiased_row(syz_taps *t, int64_t row, filter f, double step) {
    double grow = step > 1 ? step : 1, support = (f.bicubic ? 2 : 1) * grow, center = step * ((double)row + 0.5);
    int64_t start = clamp((int64_t)(center - support + 0.5), 0, t->in - 1);
    int64_t count = clamp((int64_t)(center + support + 0.5), start + 1, t->in) - start;
    double sum = 0;
    for (int64_t k = 0; k < count; k++)
        sum += filter_at(f, ((double)(start + k) - center + 0.5) / grow);
    for (int64_t k = 0; k < count; k++)
        t->weight[row * t->most + k] = (float)(filter_at(f, ((double)(start + k) - center + 0.5) / grow) / sum);
    t->start[row] = start;
    t->count[row] = count;
}

/* The window keeps its size; what lies outside repeats the border. */
static void plain_row(syz_taps *t, int64_t row, filter f, double step) {
    double center = step * ((double)row + 0.5) - 0.5;
    int64_t reach = f.bicubic ? 2 : 1, first = (int64_t)floor(center) - reach + 1, last = first + 2 * reach - 1;
    int64_t start = clamp(first, 0, t->in - 1);
    for (int64_t i = first; i <= last; i++)
        t->weight[row * t->most + clamp(i, 0, t->in - 1) - start] += (float)filter_at(f, (double)i - center);
    t->start[row] = start;
    t->count[row] = clamp(last, 0, t->in - 1) - start + 1;
}

static syz_status make_taps(syz_taps *t, int64_t in, int64_t out, filter f) {
    double step = (double)in / (double)out, grow = f.antialias && step > 1 ? step : 1;
    SYZ_TRY(new_taps(t, in, out, 2 * (int64_t)ceil((f.bicubic ? 2 : 1) * grow) + 1));
    for (int64_t row = 0; row < out; row++) {
        if (f.antialias)
            antialiased_row(t, row, f, step);
        else
            plain_row(t, row, f, step);
    }
    return SYZ_OK;
}

/* Windows move steadily to the right, so the rows that use one input are neighbours too. */
static syz_status transpose_taps(syz_taps *t, const syz_taps *of) {
    int64_t most = 1;
    SYZ_TRY(new_taps(t, of->out, of->in, 1));
    for (int64_t row = 0; row < of->out; row++) {
        for (int64_t i = of->start[row]; i < of->start[row] + of->count[row]; i++) {
            if (t->count[i] == 0) t->start[i] = row;
            t->count[i] = row - t->start[i] + 1;
            if (t->count[i] > most) most = t->count[i];
        }
    }
    syz_tensor *weight = syz_zeros(SYZ_F32, SYZ_SHAPE(of->in, most));
    if (!weight) return syz_error_status();
    t->most = most;
    t->weight = syz_f32(weight);
    for (int64_t row = 0; row < of->out; row++)
        for (int64_t k = 0; k < of->count[row]; k++) {
            int64_t i = of->start[row] + k;
            t->weight[i * most + row - t->start[i]] = of->weight[row * of->most + k];
        }
    return SYZ_OK;
}

/* ---- the operation ---- */

/* The table where the kernels of the call read it. */
static syz_status place(const syz_call *c, syz_taps *t, const syz_taps *made) {
    *t = *made;
    if (c->device == 0) return SYZ_OK;
    syz_tensor *start = syz_from(SYZ_I64, SYZ_SHAPE(made->out), made->start);
    syz_tensor *count = syz_from(SYZ_I64, SYZ_SHAPE(made->out), made->count);
    syz_tensor *weight = syz_from(SYZ_F32, SYZ_SHAPE(made->out, made->most), made->weight);
    if (!start || !count || !weight) return syz_error_status();
    t->start = syz_i64(start);
    t->count = syz_i64(count);
    t->weight = syz_f32(weight);
    return SYZ_OK;
}

/* Both axes of [N,H,W,C]; the first pass is along rows, which vectorises over whole lines. */
static syz_tensor *resample(const syz_call *c, syz_tensor *x, const syz_taps *down, const syz_taps *across) {
    const int64_t *s = x->shape.dim;
    syz_taps rows, columns;
    syz_tensor *half = syz_empty(c->real, SYZ_SHAPE(s[0], down->out, s[2], s[3]));
    syz_tensor *y = syz_empty(c->real, SYZ_SHAPE(s[0], down->out, across->out, s[3]));
    if (!half || !y || place(c, &rows, down) != SYZ_OK || place(c, &columns, across) != SYZ_OK) return NULL;
    if (c->kernels->resample(syz_reals(half), syz_reals(x), &rows, s[0], s[2] * s[3]) != 0 ||
        c->kernels->resample(syz_reals(y), syz_reals(half), &columns, s[0] * rows.out, s[3]) != 0) {
        (void)syz_kernel_failed(c->device, "resize of %s", syz_dims(x));
        return NULL;
    }
    return y;
}

/* The tables of both axes, or those of the gradient, on the CPU. */
static syz_status axis_taps(const syz_call *c, syz_taps *down, syz_taps *across, bool transposed) {
    filter f = {.bicubic = c->i[2] == 1, .antialias = c->i[3]};
    syz_taps forward[2];
    int device = syz_device_swap(0);
    syz_status status = make_taps(&forward[0], c->in[0]->shape.dim[1], c->i[0], f);
    if (status == SYZ_OK) status = make_taps(&forward[1], c->in[0]->shape.dim[2], c->i[1], f);
    *down = forward[0];
    *across = forward[1];
    if (status == SYZ_OK && transposed) status = transpose_taps(down, &forward[0]);
    if (status == SYZ_OK && transposed) status = transpose_taps(across, &forward[1]);
    syz_device_swap(device);
    return status;
}

syz_status syz_forward_resize(syz_call *c) {
    syz_taps down, across;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_rank(c, 0, 4));
    if (syz_numel(c->in[0]) == 0) return syz_fail(SYZ_ESHAPE, "resize: images %s are empty", syz_dims(c->in[0]));
    for (int k = 0; k < 2; k++)
        if (c->i[k] < 1 || c->i[k] > 1 << 16)
            return syz_fail(SYZ_EINVAL, "resize: %s %lld is not in 1..65536", k ? "width" : "height",
                            (long long)c->i[k]);
    if (c->i[2] != 0 && c->i[2] != 1)
        return syz_fail(SYZ_EINVAL, "resize: mode is 0 (bilinear) or 1 (bicubic), not %lld", (long long)c->i[2]);
    SYZ_TRY(axis_taps(c, &down, &across, false));
    c->out = resample(c, c->in[0], &down, &across);
    return c->out ? SYZ_OK : syz_error_status();
}

syz_status syz_backward_resize(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    syz_taps up, back;
    SYZ_TRY(axis_taps(c, &up, &back, true));
    gin[0] = resample(c, gout, &up, &back);
    return SYZ_OK;
}
