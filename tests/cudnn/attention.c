/* Attention of every model as plans of cuDNN for an H200, made without a device. */
#include "h200.h"
#include "kernels/attention_cudnn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    int64_t b, h, t, d;
    bool packed, causal, bias, backward;
} attention_case;

/* FLUX: 512 tokens of text and one for each 16 x 16 pixels. T5 is frozen, and its bias has no gradient here. */
static const attention_case cases[] = {
    {"FLUX 512x512", 1, 24, 512 + 1024, 128, true, false, false, true},
    {"FLUX 720x720", 1, 24, 512 + 2025, 128, true, false, false, true},
    {"FLUX 720x720, two branches", 2, 24, 512 + 2025, 128, true, false, false, true},
    {"FLUX 1024x1024", 1, 24, 512 + 4096, 128, true, false, false, true},
    {"ViT-H/14", 1, 16, 257, 80, true, false, false, true},
    {"ViT-L/14", 1, 16, 257, 64, true, false, false, true},
    {"CLIP-L text", 1, 12, 77, 64, false, true, false, true},
    {"CLIP-H text", 2, 16, 77, 64, false, true, false, true},
    {"T5-XXL", 1, 64, 512, 64, false, false, true, true},
    {"VAE 1024x1024", 1, 1, 128 * 128, 512, false, false, false, false},
};

/* [b,t,h,d] alone, or the three of [b,t,3,h,d]. */
static syz_attention_cudnn shape_of(const attention_case *c) {
    int64_t row = c->h * c->d, wide = c->packed ? 3 * row : row;
    syz_attention_cudnn a = {.b = c->b, .h = c->h, .tq = c->t, .tk = c->t, .d = c->d};
    int64_t *inputs[] = {a.q, a.k, a.v};
    for (int n = 0; n < 3; n++)
        memcpy(inputs[n], (int64_t[]){c->t * wide, c->d, wide}, sizeof a.q);
    memcpy(a.y, (int64_t[]){c->t * row, c->d, row}, sizeof a.y);
    a.causal = c->causal;
    a.bias = c->bias;
    return a;
}

/* 1 when there is no plan. */
static int failed(const attention_case *c, bool backward) {
    syz_cudnn_graph *g = calloc(1, sizeof *g);
    if (!g) return 1;
    syz_attention_cudnn a = shape_of(c);
    int64_t workspace = -1;
    if (backward)
        syz_attention_backward_graph(g, &a);
    else
        syz_attention_forward_graph(g, &a);
    syz_descriptor plan = syz_cudnn_plan(g, &workspace, NULL, h200);
    bool good = plan && workspace >= 0;
    printf("%-28s %-8s %2d nodes  %s", c->name, backward ? "backward" : "forward", g->nodes, good ? "plan" : g->error);
    printf(good ? ", workspace %lld bytes\n" : "\n", (long long)workspace);
    syz_cudnn_free(g);
    free(g);
    return !good;
}

/* Heads of 12 values are no rows of 16 bytes. If such a graph were accepted, the plans above would prove nothing. */
static int impossible_is_refused(void) {
    attention_case c = cases[0];
    syz_cudnn_graph *g = calloc(1, sizeof *g);
    if (!g) return 1;
    syz_attention_cudnn a = shape_of(&c);
    int64_t workspace;
    a.d = 12;
    syz_attention_forward_graph(g, &a);
    bool refused = !syz_cudnn_plan(g, &workspace, NULL, h200) && g->error[0];
    printf("heads of 12 values: %s\n", refused ? g->error : "accepted");
    syz_cudnn_free(g);
    free(g);
    return !refused;
}

int main(void) {
    int bad = impossible_is_refused();
    printf("cuDNN %zu\n", cudnnGetVersion());
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        bad += failed(&cases[n], false);
        if (cases[n].backward) bad += failed(&cases[n], true);
    }
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
