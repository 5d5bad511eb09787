/* Scaled dot-product attention in bf16 as plans of cuDNN.
 *
 * Forward without mask is one node; a causal mask or a bias makes it the composite graph that cuDNN knows as flash
 * attention. Backward is always composite: the single node is refused (cuDNN 9.16 to 9.24). */
#ifndef SYZ_ATTENTION_CUDNN_H
#define SYZ_ATTENTION_CUDNN_H

#include "kernels/cudnn_graph.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ids under which a plan expects its arrays. LSE and SUM, backward's scratch, are f32 [b,h,tq]. SCALE,
 * ONE (1.0) and LOWEST (-inf) are f32 numbers on the host. */
enum {
    SYZ_ATTENTION_Q = 1,
    SYZ_ATTENTION_K,
    SYZ_ATTENTION_V,
    SYZ_ATTENTION_Y,
    SYZ_ATTENTION_LSE,
    SYZ_ATTENTION_BIAS,
    SYZ_ATTENTION_DY,
    SYZ_ATTENTION_DQ,
    SYZ_ATTENTION_DK,
    SYZ_ATTENTION_DV,
    SYZ_ATTENTION_SUM,
    SYZ_ATTENTION_SCALE,
    SYZ_ATTENTION_ONE,
    SYZ_ATTENTION_LOWEST
};

/* Sizes, and the steps in elements of (batch, head, token): heads and packed q, k, v need no transposes. dq, dk and dv
 * lie as q, k and v do, dy as y. The bias is bf16 [1,h,tq,tk]. */
typedef struct {
    int64_t b, h, tq, tk, d;
    int64_t q[3], k[3], v[3], y[3];
    bool causal, bias;
} syz_attention_cudnn;

/* Describe one direction in an empty graph; syz_cudnn_plan() then makes the plan. The bias gets no gradient. */
void syz_attention_forward_graph(syz_cudnn_graph *g, const syz_attention_cudnn *a);
void syz_attention_backward_graph(syz_cudnn_graph *g, const syz_attention_cudnn *a);

#ifdef __cplusplus
}
#endif

#endif
