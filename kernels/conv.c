/* Convolutions by oneDNN: NHWC activations as they are, weights in the layout that the primitive likes best. */
#include "kernels/kernels.h"
#include "kernels/onednn.h"
#include "kernels/parallel.h"
#include "syzygy.h"

#include <string.h>

typedef enum { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT } direction;

typedef struct {
    char family[8];
    syz_conv conv;
    int64_t direction, bias;
} conv_key;

typedef struct {
    char family[8];
    int64_t to_plain;
    dnnl_dims_t shape;
    dnnl_memory_desc_t packed;
} reorder_key;

/* ---- primitives ---- */

typedef struct {
    dnnl_memory_desc_t x, weight, bias, y;
} descriptors;

static int describe(descriptors *d, const conv_key *key) {
    const syz_conv *v = &key->conv;
    dnnl_data_type_t type = v->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t x = {v->n, v->c, v->h, v->w}, y = {v->n, v->o, v->out_h, v->out_w};
    dnnl_dims_t weight = {v->o, v->c, v->kh, v->kw}, bias = {v->o};
    bool ok = dnnl_memory_desc_init_by_tag(&d->x, 4, x, key->direction == INPUT_GRADIENT ? dnnl_f32 : type,
                                           dnnl_nhwc) == dnnl_success;
    ok = ok && dnnl_memory_desc_init_by_tag(&d->weight, 4, weight, key->direction == WEIGHT_GRADIENT ? dnnl_f32 : type,
                                            dnnl_format_tag_any) == dnnl_success;
    ok = ok && dnnl_memory_desc_init_by_tag(&d->bias, 1, bias, dnnl_f32, dnnl_x) == dnnl_success;
    ok = ok && dnnl_memory_desc_init_by_tag(&d->y, 4, y, key->direction == FORWARD ? dnnl_f32 : type, dnnl_nhwc) ==
                   dnnl_success;
    return ok ? 0 : -1;
}

static dnnl_status_t describe_operation(dnnl_convolution_desc_t *desc, const descriptors *d, const conv_key *key) {
    const syz_conv *v = &key->conv;
    const dnnl_memory_desc_t *bias = key->bias ? &d->bias : NULL;
    dnnl_dims_t stride = {v->stride, v->stride}, before = {v->top, v->left}, after = {v->bottom, v->right};
    switch (key->direction) {
    case FORWARD:
        return dnnl_convolution_forward_desc_init(desc, dnnl_forward_inference, dnnl_convolution_direct, &d->x,
                                                  &d->weight, bias, &d->y, stride, before, after);
    case INPUT_GRADIENT:
        return dnnl_convolution_backward_data_desc_init(desc, dnnl_convolution_direct, &d->x, &d->weight, &d->y, stride,
                                                        before, after);
    default:
        return dnnl_convolution_backward_weights_desc_init(desc, dnnl_convolution_direct, &d->x, &d->weight, bias,
                                                           &d->y, stride, before, after);
    }
}

/* Arguments in the order x, weight, y, bias. The gradients need no forward primitive as a hint. */
static int create_conv(syz_dnnl *made, const void *key_) {
    static const int ids[3][4] = {
        [FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
        [INPUT_GRADIENT] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST, 0},
        [WEIGHT_GRADIENT] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_BIAS},
    };
    const conv_key *key = key_;
    descriptors d;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    if (describe(&d, key) != 0 || describe_operation(&desc, &d, key) != dnnl_success ||
        syz_dnnl_primitive(made, &desc, NULL, &pd) != 0)
        return -1;
    dnnl_query_t weight = key->direction == WEIGHT_GRADIENT ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
    const int *id = ids[key->direction];
    int status = syz_dnnl_argument(made, id[0], &d.x);
    if (status == 0) status = syz_dnnl_argument(made, id[1], dnnl_primitive_desc_query_md(pd, weight, 0));
    if (status == 0) status = syz_dnnl_argument(made, id[2], &d.y);
    if (status == 0 && key->bias) status = syz_dnnl_argument(made, id[3], &d.bias);
    dnnl_primitive_desc_destroy(pd);
    return status;
}

static int create_reorder(syz_dnnl *made, const void *key_) {
    const reorder_key *key = key_;
    dnnl_memory_desc_t plain;
    if (dnnl_memory_desc_init_by_tag(&plain, 4, key->shape, dnnl_f32, dnnl_oihw) != dnnl_success) return -1;
    const dnnl_memory_desc_t *from = key->to_plain ? &key->packed : &plain, *to = key->to_plain ? &plain : &key->packed;
    if (syz_dnnl_reorder(made, from, to) != 0) return -1;
    return syz_dnnl_argument(made, DNNL_ARG_FROM, from) == 0 ? syz_dnnl_argument(made, DNNL_ARG_TO, to) : -1;
}

static syz_dnnl *find_conv(direction way, const syz_conv *conv, bool bias) {
    conv_key key;
    memset(&key, 0, sizeof key);
    strcpy(key.family, "conv");
    key.conv = *conv;
    key.direction = way;
    key.bias = bias;
    return syz_dnnl_find(&key, sizeof key, create_conv);
}

/* Weights between PyTorch's layout and the primitive's. */
static int reorder(void *to, const void *from, const dnnl_memory_desc_t *packed, const syz_conv *conv, bool to_plain) {
    reorder_key key;
    memset(&key, 0, sizeof key);
    strcpy(key.family, "order");
    key.to_plain = to_plain;
    memcpy(key.shape, (int64_t[]){conv->o, conv->c, conv->kh, conv->kw}, 4 * sizeof *key.shape);
    key.packed = *packed;
    syz_dnnl *op = syz_dnnl_find(&key, sizeof key, create_reorder);
    return op ? syz_dnnl_run(op, (void *[]){(void *)(uintptr_t)from, to}) : -1;
}

/* ---- kernels ---- */

enum { WEIGHT_SLOT, X_SLOT, Y_SLOT };

/* Activations in the precision of the convolution; NULL without memory. */
static void *operand(int slot, const float *x, int64_t n, const syz_conv *conv) {
    if (!conv->bf16) return (void *)(uintptr_t)x;
    void *half = syz_dnnl_buffer(slot, (size_t)n * 2);
    if (half) syz_cpu_cast(half, SYZ_BF16, x, SYZ_F32, n);
    return half;
}

static int64_t x_size(const syz_conv *v) {
    return v->n * v->h * v->w * v->c;
}

static int64_t y_size(const syz_conv *v) {
    return v->n * v->out_h * v->out_w * v->o;
}

static int weight_layout(dnnl_memory_desc_t *packed, direction way, const syz_conv *conv, bool bias) {
    syz_dnnl *op = find_conv(way, conv, bias);
    const dnnl_memory_desc_t *md = NULL;
    if (!op || dnnl_memory_get_memory_desc(op->memory[1], &md) != dnnl_success) return -1;
    *packed = *md;
    return 0;
}

static int run_with_weight(direction way, void *x, const float *weight, void *y, const float *bias,
                           const syz_conv *conv) {
    dnnl_memory_desc_t packed;
    if (!x || !y || weight_layout(&packed, way, conv, bias) != 0) return -1;
    void *packed_weight = syz_dnnl_buffer(WEIGHT_SLOT, dnnl_memory_desc_get_size(&packed));
    if (!packed_weight || reorder(packed_weight, weight, &packed, conv, false) != 0) return -1;
    syz_dnnl *op = find_conv(way, conv, bias); /* again: making the reorder may have emptied the cache */
    return op ? syz_dnnl_run(op, (void *[]){x, packed_weight, y, (void *)(uintptr_t)bias}) : -1;
}

int syz_cpu_conv2d(float *y, const float *x, const float *weight, const float *bias, const syz_conv *conv) {
    return run_with_weight(FORWARD, operand(X_SLOT, x, x_size(conv), conv), weight, y, bias, conv);
}

int syz_cpu_conv2d_input_gradient(float *dx, const float *dy, const float *weight, const syz_conv *conv) {
    return run_with_weight(INPUT_GRADIENT, dx, weight, operand(Y_SLOT, dy, y_size(conv), conv), NULL, conv);
}

int syz_cpu_conv2d_weight_gradient(float *dweight, float *dbias, const float *dy, const float *x,
                                   const syz_conv *conv) {
    dnnl_memory_desc_t packed;
    if (weight_layout(&packed, WEIGHT_GRADIENT, conv, dbias) != 0) return -1;
    void *from_x = operand(X_SLOT, x, x_size(conv), conv), *from_y = operand(Y_SLOT, dy, y_size(conv), conv);
    void *gradient = syz_dnnl_buffer(WEIGHT_SLOT, dnnl_memory_desc_get_size(&packed));
    syz_dnnl *op = find_conv(WEIGHT_GRADIENT, conv, dbias);
    if (!op || !from_x || !from_y || !gradient) return -1;
    if (syz_dnnl_run(op, (void *[]){from_x, gradient, from_y, dbias}) != 0) return -1;
    return reorder(dweight, gradient, &packed, conv, true);
}

int syz_cpu_upsample_gradient(float *dx, const float *dy, int64_t rows, int64_t w, int64_t c, int64_t factor) {
#pragma omp parallel for schedule(static) if (rows * w * c * factor * factor > SYZ_PARALLEL_MIN)
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < w; column++) {
            float *restrict to = dx + (row * w + column) * c;
            memset(to, 0, (size_t)c * sizeof *to);
            for (int64_t i = 0; i < factor * factor; i++) {
                int64_t line = row * factor + i / factor, cell = column * factor + i % factor;
                const float *restrict from = dy + (line * w * factor + cell) * c;
                for (int64_t k = 0; k < c; k++)
                    to[k] += from[k];
            }
        }
    }
    return 0;
}
