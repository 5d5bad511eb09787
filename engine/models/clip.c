/* The CLIP classes of transformers: a text tower, a vision tower, and both.
 *
 * Text attends causally. Projections carry no bias. */
#include "models/clip_layouts.h"
#include "models/encoder.h"

#include <math.h>
#include <string.h>

typedef struct {
    syz_encoder encoder; /* its name: "text_model" or "vision_model" */
    int64_t positions;
    int64_t vocabulary, eos;        /* text */
    int64_t image, patch, channels; /* vision */
} tower;

typedef struct {
    tower text, vision; /* a width of 0: absent */
    int64_t projection; /* 0: none */
} settings;

/* ---- configuration ---- */

static void read_text(tower *t, const syz_json *config) {
    t->encoder = (syz_encoder){.name = "text_model", .causal = true};
    syz_encoder_read(&t->encoder, config, &(syz_encoder_defaults){512, 2048, 12, 8, 1e-5, "quick_gelu"});
    t->vocabulary = syz_config_int(config, "vocab_size", 49408, 1, 1 << 24);
    t->positions = syz_config_int(config, "max_position_embeddings", 77, 1, 1 << 16);
    t->eos = syz_config_int(config, "eos_token_id", 49407, 0, 1 << 24);
}

static void read_vision(tower *t, const syz_json *config) {
    t->encoder = (syz_encoder){.name = "vision_model"};
    syz_encoder_read(&t->encoder, config, &(syz_encoder_defaults){768, 3072, 12, 12, 1e-5, "quick_gelu"});
    t->image = syz_config_int(config, "image_size", 224, 1, 1 << 14);
    t->patch = syz_config_int(config, "patch_size", 32, 1, t->image);
    t->channels = syz_config_int(config, "num_channels", 3, 1, 64);
    t->positions = (t->image / t->patch) * (t->image / t->patch) + 1;
}

static int64_t read_projection(const syz_json *config) {
    return syz_config_int(config, "projection_dim", 512, 1, 1 << 16);
}

/* ---- parameters: the starting deviations are those of transformers ---- */

static void add_normal(syz_model *m, syz_path path, syz_shape shape, double deviation) {
    syz_add_weight(m, path.text, shape, (syz_init){SYZ_INIT_NORMAL, deviation});
}

static void add_text(syz_model *m, const tower *t) {
    add_normal(m, syz_join(t->encoder.name, "embeddings.token_embedding.weight"),
               SYZ_SHAPE(t->vocabulary, t->encoder.width), 0.02);
    add_normal(m, syz_join(t->encoder.name, "embeddings.position_embedding.weight"),
               SYZ_SHAPE(t->positions, t->encoder.width), 0.02);
    syz_encoder_declare(m, &t->encoder);
    syz_add_norm(m, syz_join(t->encoder.name, "final_layer_norm").text, t->encoder.width);
}

static void add_vision(syz_model *m, const tower *t) {
    add_normal(m, syz_join(t->encoder.name, "embeddings.class_embedding"), SYZ_SHAPE(t->encoder.width),
               pow((double)t->encoder.width, -0.5));
    add_normal(m, syz_join(t->encoder.name, "embeddings.patch_embedding.weight"),
               SYZ_SHAPE(t->encoder.width, t->channels, t->patch, t->patch), 0.02);
    add_normal(m, syz_join(t->encoder.name, "embeddings.position_embedding.weight"),
               SYZ_SHAPE(t->positions, t->encoder.width), 0.02);
    syz_add_norm(m, syz_join(t->encoder.name, "pre_layrnorm").text, t->encoder.width); /* the published spelling */
    syz_encoder_declare(m, &t->encoder);
    syz_add_norm(m, syz_join(t->encoder.name, "post_layernorm").text, t->encoder.width);
}

static void add_projection(syz_model *m, const char *name, const tower *t, int64_t projection) {
    syz_add_linear_normal(m, name, t->encoder.width, projection, false, pow((double)t->encoder.width, -0.5));
}

static void build_text(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    read_text(&s->text, config);
    if (!syz_failed()) add_text(m, &s->text);
}

static void build_text_projection(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    s->projection = read_projection(config);
    build_text(m, config);
    if (!syz_failed()) add_projection(m, "text_projection", &s->text, s->projection);
}

static void build_vision_projection(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    s->projection = read_projection(config);
    read_vision(&s->vision, config);
    if (syz_failed()) return;
    add_vision(m, &s->vision);
    add_projection(m, "visual_projection", &s->vision, s->projection);
}

static void build_both(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    syz_json text = syz_json_child(config, "text_config"), vision = syz_json_child(config, "vision_config");
    s->projection = read_projection(config);
    read_text(&s->text, &text);
    read_vision(&s->vision, &vision);
    double scale = syz_json_number(config, "logit_scale_init_value", 2.6592);
    if (syz_failed()) return;
    syz_add_weight(m, "logit_scale", (syz_shape){0}, (syz_init){SYZ_INIT_CONSTANT, scale});
    add_text(m, &s->text);
    add_vision(m, &s->vision);
    add_projection(m, "text_projection", &s->text, s->projection);
    add_projection(m, "visual_projection", &s->vision, s->projection);
}

/* ---- layers ---- */

static syz_tensor *text_layer(void *m, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const settings *s = ((const syz_model *)m)->settings;
    return syz_encoder_layer(m, &s->text.encoder, index, in[0]);
}

static syz_tensor *vision_layer(void *m, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const settings *s = ((const syz_model *)m)->settings;
    return syz_encoder_layer(m, &s->vision.encoder, index, in[0]);
}

/* ---- text ---- */

/* Position of the token that stands for the whole text, i64 [B]: the first end token; configurations that carry the
 * historical eos_token_id 2 mean the first token of the largest id. */
static syz_tensor *end_positions(const tower *t, const syz_tensor *ids) {
    int64_t length = ids->shape.dim[1];
    syz_tensor *positions = syz_host_zeros(SYZ_I64, SYZ_SHAPE(ids->shape.dim[0]));
    for (int64_t b = 0; positions && b < ids->shape.dim[0]; b++) {
        const int64_t *row = syz_i64(ids) + b * length;
        int64_t best = 0;
        for (int64_t k = 1; k < length; k++) {
            bool better = t->eos == 2 ? row[k] > row[best] : row[k] == t->eos && row[best] != t->eos;
            if (better) best = k;
        }
        syz_i64(positions)[b] = best;
    }
    return positions;
}

/* Whether ids are i64 [B,T] of a length that the tower has positions for; an error is pending when not. */
static bool check_ids(const syz_model *m, const tower *t, const syz_tensor *ids) {
    if (ids->dtype == SYZ_I64 && ids->shape.n == 2 && ids->shape.dim[1] >= 1 && ids->shape.dim[1] <= t->positions)
        return true;
    syz_fail(SYZ_ESHAPE, "%s: input_ids must be i64 [B,T] with T up to %d, not %s %s", m->class->name,
             (int)t->positions, syz_dtype_name(ids->dtype), syz_dims(ids));
    return false;
}

/* x [B,T,C]: the tokens' embeddings, without positions; ids say where each text ends -> *last [B,T,C], *pooled [B,C] */
static void run_embedded(syz_model *m, syz_tensor *x, syz_tensor *ids, syz_tensor **last, syz_tensor **pooled) {
    const tower *t = &((const settings *)m->settings)->text;
    syz_tensor *positions = syz_weight(m, syz_join(t->encoder.name, "embeddings.position_embedding.weight").text);
    x = syz_add(x, syz_narrow(positions, 0, 0, ids->shape.dim[1]));
    for (int64_t i = 0; i < t->encoder.layers; i++)
        x = syz_run_block(m, text_layer, i, &x, 1);
    *last = syz_apply_layer_norm(m, syz_join(t->encoder.name, "final_layer_norm").text, x, t->encoder.eps);
    *pooled = syz_gather_rows(*last, end_positions(t, ids));
}

/* ids i64 [B,T] -> *last [B,T,C], *pooled [B,C] */
static void run_text(syz_model *m, syz_tensor *ids, syz_tensor **last, syz_tensor **pooled) {
    const tower *t = &((const settings *)m->settings)->text;
    if (!check_ids(m, t, ids)) return;
    syz_tensor *tokens =
        syz_apply_embedding(m, syz_join(t->encoder.name, "embeddings.token_embedding.weight").text, ids);
    run_embedded(m, tokens, ids, last, pooled);
}

static void text_forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    run_text(m, in[0], &out[0], &out[1]);
}

static void text_embeds_forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    run_text(m, in[0], &out[1], &out[2]);
    out[0] = syz_apply_linear(m, "text_projection", out[2]);
}

static void text_features(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    syz_tensor *last = NULL, *pooled = NULL;
    run_text(m, in[0], &last, &pooled);
    out[0] = syz_apply_linear(m, "text_projection", pooled);
}

/* text_features of tokens given by their embeddings [B,T,C], so that some of them can be learned. Of input_ids only the
 * end of each text is used; tokens without an id stand there under any that does not end a text. */
static void text_features_from_embeddings(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    const tower *t = &((const settings *)m->settings)->text;
    syz_tensor *x = in[0], *ids = in[1], *last = NULL, *pooled = NULL;
    if (!check_ids(m, t, ids)) return;
    if (x->shape.n != 3 || x->shape.dim[0] != ids->shape.dim[0] || x->shape.dim[1] != ids->shape.dim[1] ||
        x->shape.dim[2] != t->encoder.width) {
        syz_fail(SYZ_ESHAPE, "%s: inputs_embeds must be [%d,%d,%d] beside these input_ids, not %s", m->class->name,
                 (int)ids->shape.dim[0], (int)ids->shape.dim[1], (int)t->encoder.width, syz_dims(x));
        return;
    }
    run_embedded(m, x, ids, &last, &pooled);
    out[0] = syz_apply_linear(m, "text_projection", pooled);
}

/* ---- vision ---- */

/* pixels [N,H,W,3], normalised -> patches [N,P,C] with the class embedding before them, and positions added */
static syz_tensor *embed_image(const syz_model *m, const tower *t, syz_tensor *pixels) {
    int64_t batch = pixels->shape.dim[0];
    syz_path patch = syz_join(t->encoder.name, "embeddings.patch_embedding");
    syz_tensor *patches = syz_apply_conv(m, patch.text, pixels, t->patch, 0);
    syz_tensor *class = syz_weight(m, syz_join(t->encoder.name, "embeddings.class_embedding").text);
    class = syz_as_type_of(patches, class);
    syz_tensor *parts[] = {syz_broadcast_to(class, SYZ_SHAPE(batch, 1, t->encoder.width)),
                           syz_reshape(patches, SYZ_SHAPE(batch, t->positions - 1, t->encoder.width))};
    syz_tensor *positions = syz_weight(m, syz_join(t->encoder.name, "embeddings.position_embedding.weight").text);
    return syz_add(syz_concat(parts, 2, 1), positions);
}

/* *last [N,1+P,C] before the last norm, *pooled [N,C] after it */
static void run_vision(syz_model *m, syz_tensor *pixels, syz_tensor **last, syz_tensor **pooled) {
    const tower *t = &((const settings *)m->settings)->vision;
    if (!syz_check_pixels(m, pixels, t->image, t->channels)) return;
    syz_tensor *x = embed_image(m, t, pixels);
    x = syz_apply_layer_norm(m, syz_join(t->encoder.name, "pre_layrnorm").text, x, t->encoder.eps);
    for (int64_t i = 0; i < t->encoder.layers; i++)
        x = syz_run_block(m, vision_layer, i, &x, 1);
    *last = x;
    x = syz_reshape(syz_narrow(x, 1, 0, 1), SYZ_SHAPE(pixels->shape.dim[0], t->encoder.width));
    *pooled = syz_apply_layer_norm(m, syz_join(t->encoder.name, "post_layernorm").text, x, t->encoder.eps);
}

static void vision_forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    run_vision(m, in[0], &out[1], &out[2]);
    out[0] = syz_apply_linear(m, "visual_projection", out[2]);
}

static void image_features(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    syz_tensor *last = NULL, *pooled = NULL;
    run_vision(m, in[0], &last, &pooled);
    out[0] = syz_apply_linear(m, "visual_projection", pooled);
}

/* ---- both ---- */

/* logits [N,B] = exp(logit_scale) * cosine of image n and text b; and the unit-length features */
static void both_forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    text_features(m, in, &out[1]);
    image_features(m, in + 1, &out[2]);
    out[1] = syz_normalize(out[1], 1e-12);
    out[2] = syz_normalize(out[2], 1e-12);
    /* linear multiplies by the transpose of its second argument */
    out[0] = syz_mul(syz_linear(out[2], out[1], NULL), syz_exp(syz_as_f32(syz_weight(m, "logit_scale"))));
}

/* ---- classes ---- */

static const syz_method text_methods[] = {
    {"forward", "input_ids", "last_hidden_state pooler_output", text_forward},
    {0},
};

static const syz_method text_projection_methods[] = {
    {"forward", "input_ids", "text_embeds last_hidden_state pooler_output", text_embeds_forward},
    {"text_features", "input_ids", "text_embeds", text_features},
    {"text_features_from_embeddings", "inputs_embeds input_ids", "text_embeds", text_features_from_embeddings},
    {0},
};

static const syz_method vision_methods[] = {
    {"forward", "pixel_values", "image_embeds last_hidden_state pooler_output", vision_forward},
    {"image_features", "pixel_values", "image_embeds", image_features},
    {0},
};

static const syz_method both_methods[] = {
    {"forward", "input_ids pixel_values", "logits_per_image text_embeds image_embeds", both_forward},
    {"text_features", "input_ids", "text_embeds", text_features},
    {"text_features_from_embeddings", "inputs_embeds input_ids", "text_embeds", text_features_from_embeddings},
    {"image_features", "pixel_values", "image_embeds", image_features},
    {0},
};

#define CLIP_CLASS(symbol, class_name, build_, layouts_, methods_)                                                     \
    const syz_model_class_info symbol = {                                                                              \
        .name = class_name,                                                                                            \
        .weights = "model",                                                                                            \
        .settings_size = sizeof(settings),                                                                             \
        .build = build_,                                                                                               \
        .ignore = syz_encoder_ignore,                                                                                  \
        .layouts = layouts_,                                                                                           \
        .methods = methods_,                                                                                           \
    }

CLIP_CLASS(syz_clip_text, "CLIPTextModel", build_text, syz_clip_text_layouts, text_methods);
CLIP_CLASS(syz_clip_text_projection, "CLIPTextModelWithProjection", build_text_projection, NULL,
           text_projection_methods);
CLIP_CLASS(syz_clip_vision_projection, "CLIPVisionModelWithProjection", build_vision_projection, NULL, vision_methods);
CLIP_CLASS(syz_clip, "CLIPModel", build_both, syz_clip_layouts, both_methods);
