/* Convolutions as plans of cuDNN: activations NHWC as they are, filters [o,kh,kw,c], sums in f32. */
#ifndef SYZ_CONV_CUDNN_H
#define SYZ_CONV_CUDNN_H

#include "kernels/cudnn_graph.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The ids under which a plan expects its arrays. */
enum { SYZ_CONV_X = 1, SYZ_CONV_WEIGHT, SYZ_CONV_BIAS, SYZ_CONV_Y };

typedef enum { SYZ_CONV_FORWARD, SYZ_CONV_INPUT_GRADIENT, SYZ_CONV_WEIGHT_GRADIENT } syz_conv_direction;

/* Describes one direction in an empty graph; syz_cudnn_plan() then makes the plan. `type` is f32 or bf16; of the weight
 * gradient's result it is always f32. `bias` [o], of that type too, is for forward alone. */
void syz_conv_graph(syz_cudnn_graph *g, syz_conv_direction direction, const syz_conv *conv, cudnnDataType_t type,
                    bool bias);

#ifdef __cplusplus
}
#endif

#endif
