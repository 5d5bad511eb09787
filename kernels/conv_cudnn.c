#include "kernels/conv_cudnn.h"

/* cuDNN names dimensions as [n,channels,rows,columns] whatever the order in memory. */
static syz_cudnn_layout channels_last(int64_t n, int64_t c, int64_t h, int64_t w) {
    return (syz_cudnn_layout){{n, c, h, w}, {h * w * c, 1, w * c, c}};
}

/* What no window reaches at the end is cut off for oneDNN; cuDNN leaves it out by itself. */
static int64_t not_below_0(int64_t padding) {
    return padding < 0 ? 0 : padding;
}

static syz_descriptor arithmetic(syz_cudnn_graph *g, const syz_conv *v) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2, stride[] = {v->stride, v->stride}, dilation[] = {1, 1};
    int64_t before[] = {v->top, v->left}, after[] = {not_below_0(v->bottom), not_below_0(v->right)};
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    syz_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    return syz_cudnn_finalize(g, d);
}

/* What a direction's node and its attributes are called. */
typedef struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t how, x, weight, y, alpha, beta;
} node_names;

static const node_names names[] = {
    [SYZ_CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [SYZ_CONV_INPUT_GRADIENT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [SYZ_CONV_WEIGHT_GRADIENT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

/* Sums have one order and are f32, and in f32 no operand is rounded to TF32. */
static void refuse(syz_cudnn_graph *g, cudnnDataType_t type) {
    g->refused = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC | 1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    if (type == CUDNN_DATA_FLOAT)
        g->refused |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE | 1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
}

void syz_conv_graph(syz_cudnn_graph *g, syz_conv_direction direction, const syz_conv *v, cudnnDataType_t type,
                    bool bias) {
    const node_names *name = &names[direction];
    cudnnDataType_t weight_type = direction == SYZ_CONV_WEIGHT_GRADIENT ? CUDNN_DATA_FLOAT : type;
    syz_cudnn_layout x = channels_last(v->n, v->c, v->h, v->w), y = channels_last(v->n, v->o, v->out_h, v->out_w);
    syz_descriptor result = syz_cudnn_tensor(g, SYZ_CONV_Y, type, y);
    syz_descriptor product = bias ? syz_cudnn_inner(g, CUDNN_DATA_FLOAT, y) : result;
    syz_descriptor d = syz_cudnn_create(g, name->type);
    float alpha = 1, beta = 0;
    refuse(g, type);
    syz_cudnn_link(g, d, name->how, arithmetic(g, v));
    syz_cudnn_link(g, d, name->x, syz_cudnn_tensor(g, SYZ_CONV_X, type, x));
    syz_cudnn_link(g, d, name->weight,
                   syz_cudnn_tensor(g, SYZ_CONV_WEIGHT, weight_type, channels_last(v->o, v->c, v->kh, v->kw)));
    syz_cudnn_link(g, d, name->y, product);
    syz_cudnn_set(g, d, name->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    syz_cudnn_set(g, d, name->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    syz_cudnn_add_node(g, d);
    if (bias)
        syz_cudnn_pointwise(g, CUDNN_POINTWISE_ADD, product,
                            syz_cudnn_tensor(g, SYZ_CONV_BIAS, type, channels_last(1, v->o, 1, 1)), NULL, result);
}
