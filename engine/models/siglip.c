/* The vision tower of SigLIP (transformers' SiglipVisionModel): patches with positions and no class token, a pre-norm
 * transformer, and an attention head that pools. A SiglipModel folder, as google/siglip-so400m-patch14-384 is
 * published, loads as its vision tower alone: the text tower and the logits' scale and bias are passed over. */
#include "models/clip_layouts.h"
#include "models/encoder.h"

#include <math.h>
#include <string.h>

#define NAME "vision_model"

typedef struct {
    syz_encoder encoder;
    int64_t image, patch, channels, side; /* side: whole patches along an edge; what is left over is not seen */
} settings;

/* ---- configuration and parameters ---- */

static const syz_encoder_defaults defaults = {768, 3072, 12, 12, 1e-6, "gelu_pytorch_tanh"};

static void read_settings(settings *s, const syz_json *config) {
    s->encoder = (syz_encoder){.name = NAME};
    syz_encoder_read(&s->encoder, config, &defaults);
    s->image = syz_config_int(config, "image_size", 224, 1, 1 << 14);
    s->patch = syz_config_int(config, "patch_size", 16, 1, s->image);
    s->channels = syz_config_int(config, "num_channels", 3, 1, 64);
    if (!syz_json_bool(config, "vision_use_head", true))
        syz_config_refuse(config, "vision_use_head", "must be true: the pooled output is the head's");
    s->side = s->image / s->patch;
}

static void add_head(syz_model *m, const syz_encoder *e) {
    int64_t c = e->width;
    syz_init normal = {SYZ_INIT_NORMAL, pow((double)c, -0.5)};
    syz_add_weight(m, NAME ".head.probe", SYZ_SHAPE(1, 1, c), normal);
    /* torch's MultiheadAttention: the three projections are rows of one matrix */
    syz_add_weight(m, NAME ".head.attention.in_proj_weight", SYZ_SHAPE(3 * c, c), normal);
    syz_add_weight(m, NAME ".head.attention.in_proj_bias", SYZ_SHAPE(3 * c), SYZ_INIT_ZEROS);
    syz_add_linear_normal(m, NAME ".head.attention.out_proj", c, c, true, normal.value);
    syz_add_norm(m, NAME ".head.layernorm", c);
    syz_encoder_declare_mlp(m, e, NAME ".head.mlp");
}

static void build_vision(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    read_settings(s, config);
    if (syz_failed()) return;
    int64_t c = s->encoder.width;
    syz_add_conv(m, NAME ".embeddings.patch_embedding", s->channels, c, s->patch);
    syz_add_weight(m, NAME ".embeddings.position_embedding.weight", SYZ_SHAPE(s->side * s->side, c),
                   (syz_init){SYZ_INIT_NORMAL, pow((double)c, -0.5)});
    syz_encoder_declare(m, &s->encoder);
    syz_add_norm(m, NAME ".post_layernorm", c);
    add_head(m, &s->encoder);
}

static void build_from_both(syz_model *m, const syz_json *config) {
    syz_json vision = syz_json_child(config, "vision_config");
    if (!syz_failed()) build_vision(m, &vision);
}

/* What a whole SiglipModel has beside its vision tower. */
static bool ignore(const char *name) {
    static const char text[] = "text_model.";
    return strncmp(name, text, sizeof text - 1) == 0 || strcmp(name, "logit_scale") == 0 ||
           strcmp(name, "logit_bias") == 0 || syz_encoder_ignore(name);
}

/* ---- forward ---- */

/* pixels [N,H,W,C] normalised -> [N,side*side,width] */
static syz_tensor *embed(const syz_model *m, const settings *s, syz_tensor *pixels) {
    syz_tensor *x = syz_apply_conv(m, NAME ".embeddings.patch_embedding", pixels, s->patch, 0);
    x = syz_reshape(x, SYZ_SHAPE(pixels->shape.dim[0], s->side * s->side, s->encoder.width));
    return syz_add(x, syz_weight(m, NAME ".embeddings.position_embedding.weight"));
}

static syz_tensor *run_layer(void *m, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const settings *s = ((const syz_model *)m)->settings;
    return syz_encoder_layer(m, &s->encoder, index, in[0]);
}

/* One projection of x [B,T,C]: rows k*C..(k+1)*C-1 of the joint matrix -> [B,T,heads,C/heads] */
static syz_tensor *project(const syz_model *m, const syz_encoder *e, syz_tensor *x, int64_t k) {
    int64_t c = e->width;
    if (!x) return NULL;
    syz_tensor *weight = syz_narrow(syz_weight(m, NAME ".head.attention.in_proj_weight"), 0, k * c, c);
    syz_tensor *bias = syz_narrow(syz_weight(m, NAME ".head.attention.in_proj_bias"), 0, k * c, c);
    return syz_reshape(syz_linear(x, weight, bias),
                       SYZ_SHAPE(x->shape.dim[0], x->shape.dim[1], e->heads, c / e->heads));
}

/* One learned query, the probe, attends to every patch: x [N,T,C] -> [N,C] */
static syz_tensor *pool(const syz_model *m, const syz_encoder *e, syz_tensor *x) {
    if (!x) return NULL;
    syz_shape one = SYZ_SHAPE(x->shape.dim[0], 1, e->width);
    syz_tensor *probe = syz_broadcast_to(syz_as_type_of(x, syz_weight(m, NAME ".head.probe")), one);
    syz_tensor *y = syz_attention(project(m, e, probe, 0), project(m, e, x, 1), project(m, e, x, 2), NULL, 0, false);
    y = syz_apply_linear(m, NAME ".head.attention.out_proj", syz_reshape(y, one));
    syz_tensor *z = syz_apply_layer_norm(m, NAME ".head.layernorm", y, e->eps);
    y = syz_add(y, syz_encoder_mlp(m, e, NAME ".head.mlp", z));
    return syz_reshape(y, SYZ_SHAPE(one.dim[0], e->width));
}

/* out[0] [N,T,C] after the last norm; out[1] [N,C] pooled */
static void forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    const settings *s = m->settings;
    if (!syz_check_pixels(m, in[0], s->image, s->channels)) return;
    syz_tensor *x = embed(m, s, in[0]);
    for (int64_t i = 0; i < s->encoder.layers; i++)
        x = syz_run_block(m, run_layer, i, &x, 1);
    out[0] = syz_apply_layer_norm(m, NAME ".post_layernorm", x, s->encoder.eps);
    out[1] = pool(m, &s->encoder, out[0]);
}

static const syz_method methods[] = {
    {"forward", "pixel_values", "last_hidden_state pooler_output", forward},
    {0},
};

#define SIGLIP_CLASS(symbol, class_name, build_, layouts_)                                                             \
    const syz_model_class_info symbol = {                                                                              \
        .name = class_name,                                                                                            \
        .weights = "model",                                                                                            \
        .settings_size = sizeof(settings),                                                                             \
        .build = build_,                                                                                               \
        .ignore = ignore,                                                                                              \
        .layouts = layouts_,                                                                                           \
        .methods = methods,                                                                                            \
    }

SIGLIP_CLASS(syz_siglip_vision, "SiglipVisionModel", build_vision, syz_siglip_layouts);
SIGLIP_CLASS(syz_siglip, "SiglipModel", build_from_both, NULL);
