/* Every convolution of FLUX's autoencoder, and patch embeddings, as plans of cuDNN for an H200, made without a device.
 * The plans are those that kernels/conv.cu asks for: sums in one order, f32 without TF32. */
#include "h200.h"
#include "kernels/conv_cudnn.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Of an image of n pixels a side, a convolution of c to o channels sees n / part. Downsampling pads below and right. */
typedef struct {
    int64_t c, o, kernel, stride, part;
} layer;

static const layer layers[] = {
    {3, 128, 3, 1, 1},   {128, 128, 3, 1, 1}, {128, 128, 3, 2, 1}, {128, 256, 3, 1, 2}, {128, 256, 1, 1, 2},
    {256, 256, 3, 1, 2}, {256, 256, 3, 2, 2}, {256, 512, 3, 1, 4}, {256, 512, 1, 1, 4}, {512, 512, 3, 1, 4},
    {512, 512, 3, 2, 4}, {512, 512, 3, 1, 8}, {512, 32, 3, 1, 8},  {16, 512, 3, 1, 8},  {512, 512, 3, 1, 2},
    {512, 256, 3, 1, 2}, {512, 256, 1, 1, 2}, {256, 256, 3, 1, 1}, {256, 128, 3, 1, 1}, {256, 128, 1, 1, 1},
    {128, 3, 3, 1, 1},
};

/* ViT-H and -L, the reward towers' 384 pixels, of which 14 leaves six over. */
static const struct {
    int64_t size, patch, o;
} patches[] = {{224, 14, 1280}, {224, 14, 1024}, {384, 14, 1152}, {384, 16, 1024}};

static syz_conv square(int64_t size, const layer *l) {
    int64_t before = l->kernel == 3 && l->stride == 1, after = l->kernel == 3;
    syz_conv v = {.n = 1, .h = size, .w = size, .c = l->c, .o = l->o, .kh = l->kernel, .kw = l->kernel};
    int64_t down = size + before + after - l->kernel;
    v.stride = l->stride;
    v.top = v.left = before;
    v.bottom = v.right = after - down % l->stride;
    v.out_h = v.out_w = down / l->stride + 1;
    return v;
}

static bool has_plan(const syz_conv *v, syz_conv_direction direction, cudnnDataType_t type, bool bias,
                     char error[512]) {
    syz_cudnn_graph *g = calloc(1, sizeof *g);
    if (!g) return false;
    int64_t workspace = -1;
    syz_conv_graph(g, direction, v, type, bias);
    bool good = syz_cudnn_plan(g, &workspace, NULL, h200) && workspace >= 0;
    snprintf(error, 512, "%s", good ? "" : g->error);
    syz_cudnn_free(g);
    free(g);
    return good;
}

/* 1 when there is none. */
static int failed(const syz_conv *v, syz_conv_direction direction, cudnnDataType_t type) {
    static const char *const names[] = {"forward", "input gradient", "weight gradient"};
    char error[512];
    if (has_plan(v, direction, type, direction == SYZ_CONV_FORWARD, error)) return 0;
    printf("%lld pixels, %lld to %lld channels, %lld x %lld, stride %lld, %s in %s: %s\n", (long long)v->h,
           (long long)v->c, (long long)v->o, (long long)v->kh, (long long)v->kw, (long long)v->stride, names[direction],
           type == CUDNN_DATA_FLOAT ? "f32" : "bf16", error);
    return 1;
}

/* Forward and input gradient in bf16; at one size also in f32, and the weight gradient in the type that conv.cu takes.
 */
static int failures(const syz_conv *v, bool everything) {
    bool eights = v->c % 8 == 0 && v->o % 8 == 0;
    int bad =
        failed(v, SYZ_CONV_FORWARD, CUDNN_DATA_BFLOAT16) + failed(v, SYZ_CONV_INPUT_GRADIENT, CUDNN_DATA_BFLOAT16);
    if (!everything) return bad;
    bad += failed(v, SYZ_CONV_FORWARD, CUDNN_DATA_FLOAT) + failed(v, SYZ_CONV_INPUT_GRADIENT, CUDNN_DATA_FLOAT);
    bad += failed(v, SYZ_CONV_WEIGHT_GRADIENT, CUDNN_DATA_FLOAT);
    return bad + (eights ? failed(v, SYZ_CONV_WEIGHT_GRADIENT, CUDNN_DATA_BFLOAT16) : 0);
}

/* An image of another size than the windows make. If that were accepted, the plans above would prove nothing. */
static int impossible_is_refused(void) {
    syz_conv v = square(64, &layers[1]);
    char error[512];
    v.out_h++;
    bool refused = !has_plan(&v, SYZ_CONV_FORWARD, CUDNN_DATA_BFLOAT16, true, error) && error[0];
    if (!refused) printf("a result of one row too many is accepted\n");
    return !refused;
}

int main(void) {
    static const int64_t sizes[] = {512, 720, 1024};
    int bad = impossible_is_refused(), shapes = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t n = 0; n < sizeof layers / sizeof *layers; n++, shapes++) {
            syz_conv v = square(sizes[s] / layers[n].part, &layers[n]);
            bad += failures(&v, sizes[s] == 512);
        }
    }
    for (size_t n = 0; n < sizeof patches / sizeof *patches; n++, shapes++) {
        layer l = {3, patches[n].o, patches[n].patch, patches[n].patch, 1};
        syz_conv v = square(patches[n].size, &l);
        bad += failures(&v, true);
    }
    printf("cuDNN %zu: %d sizes of convolution, %d plans that could not be made\n", cudnnGetVersion(), shapes, bad);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
