/* What cuDNN refuses. The program is built twice, with cuDNN and with the cuDNN of tests/emu/: kernels that run in the
 * emulation were described as strictly as the library wants it. */
#include "h200.h"
#include "kernels/attention_cudnn.h"
#include "kernels/conv_cudnn.h"

#include <stdio.h>
#include <stdlib.h>

static const syz_cudnn_layout square = {{1, 8, 8, 8}, {512, 64, 8, 1}};

static syz_conv convolution(void) {
    return (syz_conv){.n = 1,
                      .h = 8,
                      .w = 8,
                      .c = 16,
                      .o = 8,
                      .kh = 3,
                      .kw = 3,
                      .out_h = 8,
                      .out_w = 8,
                      .stride = 1,
                      .top = 1,
                      .left = 1,
                      .bottom = 1,
                      .right = 1};
}

static void good_convolution(syz_cudnn_graph *g) {
    syz_conv v = convolution();
    syz_conv_graph(g, SYZ_CONV_FORWARD, &v, CUDNN_DATA_BFLOAT16, true);
}

static void result_of_another_size(syz_cudnn_graph *g) {
    syz_conv v = convolution();
    v.out_h = 9;
    syz_conv_graph(g, SYZ_CONV_FORWARD, &v, CUDNN_DATA_BFLOAT16, false);
}

static void negative_padding(syz_cudnn_graph *g) {
    syz_conv v = convolution();
    v.h = 9;
    v.top = -1;
    v.bottom = 2;
    syz_conv_graph(g, SYZ_CONV_FORWARD, &v, CUDNN_DATA_BFLOAT16, false);
}

static void filter_gradient_of_three_channels(syz_cudnn_graph *g) {
    syz_conv v = convolution();
    v.c = 3;
    syz_conv_graph(g, SYZ_CONV_WEIGHT_GRADIENT, &v, CUDNN_DATA_BFLOAT16, false);
}

static void attention(syz_cudnn_graph *g, int64_t dim, bool causal, bool backward) {
    int64_t row = 2 * dim;
    syz_attention_cudnn a = {.b = 1, .h = 2, .tq = 16, .tk = 16, .d = dim, .causal = causal};
    int64_t *const arrays[] = {a.q, a.k, a.v, a.y};
    for (int n = 0; n < 4; n++) {
        arrays[n][0] = 16 * row;
        arrays[n][1] = dim;
        arrays[n][2] = row;
    }
    if (backward)
        syz_attention_backward_graph(g, &a);
    else
        syz_attention_forward_graph(g, &a);
}

static void good_attention(syz_cudnn_graph *g) {
    attention(g, 16, true, true);
}

static void heads_of_12(syz_cudnn_graph *g) {
    attention(g, 12, false, false);
}

static void heads_of_12_causal(syz_cudnn_graph *g) {
    attention(g, 12, true, false);
}

static void wide_heads_backward(syz_cudnn_graph *g) {
    attention(g, 512, false, true);
}

static void product_of_other_sizes(syz_cudnn_graph *g) {
    syz_cudnn_layout narrow = {{1, 8, 7, 8}, {448, 56, 8, 1}};
    syz_cudnn_product(g, syz_cudnn_tensor(g, 1, CUDNN_DATA_BFLOAT16, square),
                      syz_cudnn_tensor(g, 2, CUDNN_DATA_BFLOAT16, narrow),
                      syz_cudnn_tensor(g, 3, CUDNN_DATA_BFLOAT16, square));
}

static void sum_of_one(syz_cudnn_graph *g) {
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_ADD, syz_cudnn_tensor(g, 1, CUDNN_DATA_FLOAT, square), NULL, NULL,
                        syz_cudnn_tensor(g, 2, CUDNN_DATA_FLOAT, square));
}

static void inner_tensor_from_nowhere(syz_cudnn_graph *g) {
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, syz_cudnn_inner(g, CUDNN_DATA_FLOAT, square), NULL, NULL,
                        syz_cudnn_tensor(g, 2, CUDNN_DATA_FLOAT, square));
}

static void tensor_without_steps(syz_cudnn_graph *g) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    int64_t id = 1, alignment = 16;
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, square.dim);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    syz_cudnn_finalize(g, d);
}

static void change_after_the_end(syz_cudnn_graph *g) {
    syz_descriptor d = syz_cudnn_tensor(g, 1, CUDNN_DATA_FLOAT, square);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, square.dim);
}

static void unfinished_link(syz_cudnn_graph *g) {
    syz_descriptor node = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    syz_cudnn_link(g, node, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, syz_cudnn_create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
}

static void attribute_of_another(syz_cudnn_graph *g) {
    int64_t axis = 1;
    syz_cudnn_set(g, syz_cudnn_create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR), CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64,
                  1, &axis);
}

static const struct {
    const char *name;
    void (*describe)(syz_cudnn_graph *g);
    bool good;
} cases[] = {
    {"a convolution", good_convolution, true},
    {"causal attention, backward", good_attention, true},
    {"a result of another size", result_of_another_size, false},
    {"a negative padding", negative_padding, false},
    {"a filter gradient of three channels", filter_gradient_of_three_channels, false},
    {"heads of 12 values", heads_of_12, false},
    {"heads of 12 values, causal", heads_of_12_causal, false},
    {"heads of 512 values, backward", wide_heads_backward, false},
    {"a product of sizes that differ", product_of_other_sizes, false},
    {"a sum of one tensor", sum_of_one, false},
    {"an inner tensor that no node makes", inner_tensor_from_nowhere, false},
    {"a tensor without steps", tensor_without_steps, false},
    {"a change to what is finalized", change_after_the_end, false},
    {"a link to what is not finalized", unfinished_link, false},
    {"an attribute of another descriptor", attribute_of_another, false},
};

int main(void) {
    cudnnHandle_t handle = NULL; /* the emulated device has one; without a device the properties do */
    if (cudnnCreate(&handle) != CUDNN_STATUS_SUCCESS) handle = NULL;
    int bad = 0;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        syz_cudnn_graph *g = calloc(1, sizeof *g);
        if (!g) return EXIT_FAILURE;
        int64_t workspace;
        cases[n].describe(g);
        bool good = g->status == CUDNN_STATUS_SUCCESS && syz_cudnn_plan(g, &workspace, handle, handle ? NULL : h200);
        bool told = good || g->error[0];
        if (good != cases[n].good || !told)
            printf("%s: %s %s\n", cases[n].name, good ? "accepted" : "refused:", g->error);
        bad += good != cases[n].good || !told;
        syz_cudnn_free(g);
        free(g);
    }
    if (handle) cudnnDestroy(handle);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
