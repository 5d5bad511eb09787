/* ImageReward: BLIP's image encoder (a ViT), BERT whose every layer also attends to the image, and a head on the state
 * of the first token.
 *
 * Names are those of the published ImageReward.pt. The configuration is its med_config.json, which describes BERT, with
 * "vision_config" and "mlp_sizes" beside BERT's keys; both have the published sizes unless given. "encoder_width" is
 * not read: the published file says 768 and its classes put the image encoder's width, 1024, in its place. */
#include "models/model.h"

#include <string.h>

enum { HIDDEN = 4 }; /* hidden layers of the head */

typedef struct {
    int64_t width, inner, layers, heads;
    double eps;
} encoder;

typedef struct {
    encoder text, vision;
    int64_t vocabulary, positions;  /* text */
    int64_t image, patch, channels; /* vision */
    int64_t head[HIDDEN];
} settings;

#define VISION "blip.visual_encoder"
#define TEXT   "blip.text_encoder"

/* The head is a sequence of linear layers, with dropout behind the first three: its places in the sequence. There is no
 * nonlinearity in it. */
static const int head_place[HIDDEN + 1] = {0, 2, 4, 6, 7};

/* ---- configuration ---- */

static void read_encoder(encoder *e, const syz_json *config, int64_t width, int64_t layers, double eps) {
    e->width = syz_config_int(config, "hidden_size", width, 1, 1 << 16);
    e->inner = syz_config_int(config, "intermediate_size", 4 * e->width, 1, 1 << 18);
    e->layers = syz_config_int(config, "num_hidden_layers", layers, 0, 1024);
    e->heads = syz_config_int(config, "num_attention_heads", e->width > 64 ? e->width / 64 : 1, 1, 1024);
    e->eps = syz_json_number(config, "layer_norm_eps", eps);
    if (strcmp(syz_json_string(config, "hidden_act", "gelu"), "gelu") != 0)
        syz_config_refuse(config, "hidden_act", "must be \"gelu\"");
    if (e->width % e->heads) syz_config_refuse(config, "num_attention_heads", "must divide hidden_size");
}

static void read_text(settings *s, const syz_json *config) {
    read_encoder(&s->text, config, 768, 12, 1e-12);
    s->vocabulary = syz_config_int(config, "vocab_size", 30524, 1, 1 << 24);
    s->positions = syz_config_int(config, "max_position_embeddings", 512, 1, 1 << 16);
    if (!syz_json_bool(config, "add_cross_attention", true))
        syz_config_refuse(config, "add_cross_attention", "must be true");
    if (strcmp(syz_json_string(config, "position_embedding_type", "absolute"), "absolute") != 0)
        syz_config_refuse(config, "position_embedding_type", "must be \"absolute\"");
}

static void read_vision(settings *s, const syz_json *config) {
    read_encoder(&s->vision, config, 1024, 24, 1e-6);
    s->image = syz_config_int(config, "image_size", 224, 1, 1 << 14);
    s->patch = syz_config_int(config, "patch_size", 16, 1, s->image);
    s->channels = syz_config_int(config, "num_channels", 3, 1, 64);
}

static void read_head(settings *s, const syz_json *config) {
    static const int64_t published[HIDDEN] = {1024, 128, 64, 16};
    int count = syz_json_ints(config, "mlp_sizes", s->head, HIDDEN);
    if (count == 0) memcpy(s->head, published, sizeof published);
    bool good = count == 0 || count == HIDDEN;
    for (int k = 0; k < HIDDEN; k++)
        good = good && s->head[k] >= 1 && s->head[k] <= 1 << 16;
    if (!good) syz_config_refuse(config, "mlp_sizes", "must hold 4 sizes from 1 to 65536");
}

/* Patches and the class token before them. */
static int64_t image_tokens(const settings *s) {
    return (s->image / s->patch) * (s->image / s->patch) + 1;
}

/* ---- parameters: the starting deviations are those of the published classes ---- */

static const double deviation = 0.02; /* but for the head's */

static void add_normal(syz_model *m, const char *name, syz_shape shape) {
    syz_add_weight(m, name, shape, (syz_init){SYZ_INIT_NORMAL, deviation});
}

static void add_linear(syz_model *m, const char *prefix, const char *name, int64_t in, int64_t out) {
    syz_add_linear_normal(m, syz_join(prefix, name).text, in, out, true, deviation);
}

static void add_vision(syz_model *m, const settings *s) {
    const encoder *e = &s->vision;
    add_normal(m, VISION ".cls_token", SYZ_SHAPE(1, 1, e->width));
    add_normal(m, VISION ".pos_embed", SYZ_SHAPE(1, image_tokens(s), e->width));
    syz_add_conv(m, VISION ".patch_embed.proj", s->channels, e->width, s->patch);
    for (int64_t i = 0; i < e->layers; i++) {
        syz_path block = syz_pathf(VISION ".blocks.%d", (int)i);
        syz_add_norm(m, syz_join(block.text, "norm1").text, e->width);
        add_linear(m, block.text, "attn.qkv", e->width, 3 * e->width);
        add_linear(m, block.text, "attn.proj", e->width, e->width);
        syz_add_norm(m, syz_join(block.text, "norm2").text, e->width);
        add_linear(m, block.text, "mlp.fc1", e->width, e->inner);
        add_linear(m, block.text, "mlp.fc2", e->inner, e->width);
    }
    syz_add_norm(m, VISION ".norm", e->width);
}

/* Attention of the text to itself or to the image, whose states are `source` wide. */
static void add_attention(syz_model *m, const char *name, int64_t width, int64_t source) {
    add_linear(m, name, "self.query", width, width);
    add_linear(m, name, "self.key", source, width);
    add_linear(m, name, "self.value", source, width);
    add_linear(m, name, "output.dense", width, width);
    syz_add_norm(m, syz_join(name, "output.LayerNorm").text, width);
}

static void add_text(syz_model *m, const settings *s) {
    const encoder *e = &s->text;
    add_normal(m, TEXT ".embeddings.word_embeddings.weight", SYZ_SHAPE(s->vocabulary, e->width));
    add_normal(m, TEXT ".embeddings.position_embeddings.weight", SYZ_SHAPE(s->positions, e->width));
    syz_add_norm(m, TEXT ".embeddings.LayerNorm", e->width);
    for (int64_t i = 0; i < e->layers; i++) {
        syz_path layer = syz_pathf(TEXT ".encoder.layer.%d", (int)i);
        add_attention(m, syz_join(layer.text, "attention").text, e->width, e->width);
        add_attention(m, syz_join(layer.text, "crossattention").text, e->width, s->vision.width);
        add_linear(m, layer.text, "intermediate.dense", e->width, e->inner);
        add_linear(m, layer.text, "output.dense", e->inner, e->width);
        syz_add_norm(m, syz_join(layer.text, "output.LayerNorm").text, e->width);
    }
}

static void add_head(syz_model *m, const settings *s) {
    int64_t in = s->text.width;
    double small = 1.0 / (double)(in + 1);
    for (int k = 0; k <= HIDDEN; k++) {
        int64_t out = k < HIDDEN ? s->head[k] : 1;
        syz_add_linear_normal(m, syz_pathf("mlp.layers.%d", head_place[k]).text, in, out, true, small);
        in = out;
    }
}

static void build(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    syz_json vision = syz_json_child(config, "vision_config");
    read_text(s, config);
    read_vision(s, &vision);
    read_head(s, config);
    if (syz_failed()) return;
    add_vision(m, s);
    add_text(m, s);
    add_head(m, s);
}

/* What the published file carries besides: the projections of BLIP's contrastive loss, which no reward reads, and the
 * positions 0, 1, 2, ... as a buffer. */
static bool ignore(const char *name) {
    static const char *const names[] = {
        "blip.vision_proj.weight", "blip.vision_proj.bias",         "blip.text_proj.weight",
        "blip.text_proj.bias",     TEXT ".embeddings.position_ids",
    };
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strcmp(name, names[k]) == 0) return true;
    return false;
}

/* x [N,T,C] -> [N,T,H,D] */
static syz_tensor *split_heads(const encoder *e, syz_tensor *x) {
    return x ? syz_reshape(x, SYZ_SHAPE(x->shape.dim[0], x->shape.dim[1], e->heads, e->width / e->heads)) : NULL;
}

/* ---- image ---- */

/* Queries, keys or values: a third of qkv [N,T,3C] as [N,T,H,D]. */
static syz_tensor *third(const encoder *e, syz_tensor *qkv, int64_t k) {
    return split_heads(e, syz_narrow(qkv, 2, k * e->width, e->width));
}

static syz_tensor *vision_block(void *model, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const syz_model *m = model;
    const encoder *e = &((const settings *)m->settings)->vision;
    syz_path block = syz_pathf(VISION ".blocks.%d", (int)index);
    syz_tensor *x = in[0], *y = syz_apply_layer_norm(m, syz_join(block.text, "norm1").text, x, e->eps);
    y = syz_apply_linear(m, syz_join(block.text, "attn.qkv").text, y);
    y = syz_attention(third(e, y, 0), third(e, y, 1), third(e, y, 2), NULL, 0, false);
    x = syz_add(x, syz_apply_linear(m, syz_join(block.text, "attn.proj").text, syz_reshape(y, x->shape)));
    y = syz_apply_layer_norm(m, syz_join(block.text, "norm2").text, x, e->eps);
    y = syz_gelu(syz_apply_linear(m, syz_join(block.text, "mlp.fc1").text, y));
    return syz_add(x, syz_apply_linear(m, syz_join(block.text, "mlp.fc2").text, y));
}

/* pixels [N,H,W,3], normalised -> states [N,1+P,C], the class token's first */
static syz_tensor *encode_image(syz_model *m, syz_tensor *pixels) {
    const settings *s = m->settings;
    const encoder *e = &s->vision;
    if (!syz_check_pixels(m, pixels, s->image, s->channels)) return NULL;
    int64_t batch = pixels->shape.dim[0], patches = image_tokens(s) - 1;
    syz_tensor *x = syz_apply_conv(m, VISION ".patch_embed.proj", pixels, s->patch, 0);
    syz_tensor *parts[] = {
        syz_broadcast_to(syz_weight(m, VISION ".cls_token"), SYZ_SHAPE(batch, 1, e->width)),
        syz_reshape(x, SYZ_SHAPE(batch, patches, e->width)),
    };
    x = syz_add(syz_concat(parts, 2, 1), syz_weight(m, VISION ".pos_embed"));
    for (int64_t i = 0; i < e->layers; i++)
        x = syz_run_block(m, vision_block, i, &x, 1);
    return syz_apply_layer_norm(m, VISION ".norm", x, e->eps);
}

/* ---- text ---- */

/* LayerNorm(x + dense(attention)): x [B,T,C] asks, source [B,S,C or the image's width] answers */
static syz_tensor *attend(const syz_model *m, const char *name, syz_tensor *x, syz_tensor *source, syz_tensor *mask) {
    const encoder *e = &((const settings *)m->settings)->text;
    syz_tensor *q = split_heads(e, syz_apply_linear(m, syz_join(name, "self.query").text, x));
    syz_tensor *k = split_heads(e, syz_apply_linear(m, syz_join(name, "self.key").text, source));
    syz_tensor *v = split_heads(e, syz_apply_linear(m, syz_join(name, "self.value").text, source));
    syz_tensor *y = syz_reshape(syz_attention(q, k, v, mask, 0, false), x->shape);
    y = syz_add(syz_apply_linear(m, syz_join(name, "output.dense").text, y), x);
    return syz_apply_layer_norm(m, syz_join(name, "output.LayerNorm").text, y, e->eps);
}

/* in: states [B,T,C], the image's states, the mask [B,1,1,T] */
static syz_tensor *text_layer(void *model, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const syz_model *m = model;
    const encoder *e = &((const settings *)m->settings)->text;
    syz_path layer = syz_pathf(TEXT ".encoder.layer.%d", (int)index);
    syz_tensor *x = attend(m, syz_join(layer.text, "attention").text, in[0], in[0], in[2]);
    if (!x) return NULL;
    x = attend(m, syz_join(layer.text, "crossattention").text, x, in[1], NULL);
    syz_tensor *y = syz_gelu(syz_apply_linear(m, syz_join(layer.text, "intermediate.dense").text, x));
    y = syz_add(syz_apply_linear(m, syz_join(layer.text, "output.dense").text, y), x);
    return syz_apply_layer_norm(m, syz_join(layer.text, "output.LayerNorm").text, y, e->eps);
}

/* Whether states, ids and mask fit each other and the model; an error is pending when not. */
static bool check_text(const syz_model *m, const syz_tensor *image, const syz_tensor *ids, const syz_tensor *mask) {
    const settings *s = m->settings;
    const char *name = m->class->name;
    if (image->shape.n != 3 || image->shape.dim[1] != image_tokens(s) || image->shape.dim[2] != s->vision.width) {
        syz_fail(SYZ_ESHAPE, "%s: image_embeds must be [B,%d,%d], not %s", name, (int)image_tokens(s),
                 (int)s->vision.width, syz_dims(image));
    } else if (ids->dtype != SYZ_I64 || ids->shape.n != 2 || ids->shape.dim[0] != image->shape.dim[0] ||
               ids->shape.dim[1] < 1 || ids->shape.dim[1] > s->positions) {
        syz_fail(SYZ_ESHAPE, "%s: input_ids must be i64 [%d,T] beside these images, with T up to %d, not %s %s", name,
                 (int)image->shape.dim[0], (int)s->positions, syz_dtype_name(ids->dtype), syz_dims(ids));
    } else if (mask->dtype != SYZ_I64 || !syz_shape_equal(mask->shape, ids->shape)) {
        syz_fail(SYZ_ESHAPE, "%s: attention_mask must be i64 [%d,%d] beside these input_ids, not %s %s", name,
                 (int)ids->shape.dim[0], (int)ids->shape.dim[1], syz_dtype_name(mask->dtype), syz_dims(mask));
    }
    return !syz_failed();
}

/* ids i64 [B,T] and mask i64 [B,T], 1 for a token and 0 for padding, under the images' states -> [B,T,C] */
static syz_tensor *encode_text(syz_model *m, syz_tensor *image, syz_tensor *ids, syz_tensor *mask) {
    const settings *s = m->settings;
    if (!image || !check_text(m, image, ids, mask)) return NULL;
    syz_tensor *x = syz_embedding(syz_weight(m, TEXT ".embeddings.word_embeddings.weight"), ids);
    syz_tensor *positions = syz_weight(m, TEXT ".embeddings.position_embeddings.weight");
    x = syz_add(x, syz_narrow(positions, 0, 0, ids->shape.dim[1]));
    x = syz_apply_layer_norm(m, TEXT ".embeddings.LayerNorm", x, s->text.eps);
    /* padding is 10000 away from what is looked at, as in the published classes */
    mask = syz_affine(syz_cast(syz_to_device(mask, syz_device_current()), SYZ_F32), 10000, -10000);
    mask = syz_reshape(mask, SYZ_SHAPE(ids->shape.dim[0], 1, 1, ids->shape.dim[1]));
    for (int64_t i = 0; i < s->text.layers; i++)
        x = syz_run_block(m, text_layer, i, (syz_tensor *[]){x, image, mask}, 3);
    return x;
}

/* states [B,T,C] -> [B] */
static syz_tensor *apply_head(const syz_model *m, syz_tensor *states) {
    if (!states) return NULL;
    syz_shape shape = states->shape;
    syz_tensor *x = syz_reshape(syz_narrow(states, 1, 0, 1), SYZ_SHAPE(shape.dim[0], shape.dim[2]));
    for (int k = 0; k <= HIDDEN; k++)
        x = syz_apply_linear(m, syz_pathf("mlp.layers.%d", head_place[k]).text, x);
    return syz_reshape(x, SYZ_SHAPE(shape.dim[0]));
}

/* ---- methods ---- */

static void image_features(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    out[0] = encode_image(m, in[0]);
}

static void reward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    out[0] = apply_head(m, encode_text(m, in[0], in[1], in[2]));
}

static void forward(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    out[2] = encode_image(m, in[0]);
    out[1] = encode_text(m, out[2], in[1], in[2]);
    out[0] = apply_head(m, out[1]);
}

static const syz_method methods[] = {
    {"forward", "pixel_values input_ids attention_mask", "reward last_hidden_state image_embeds", forward},
    {"image_features", "pixel_values", "image_embeds", image_features},
    {"reward", "image_embeds input_ids attention_mask", "reward", reward},
    {0},
};

/* ---- ImageReward.pt by itself ---- */

static void put(json_t *config, const char *key, const syz_weights *weights, const char *prefix, const char *name,
                int side) {
    int64_t size = syz_layout_side(weights, prefix, name, side);
    if (size > 0) json_object_set_new(config, key, json_integer(size));
}

/* The number of heads does not show in the weights; in the published model, as in every BERT and ViT of its family,
 * each is 64 wide. */
static bool check_heads(json_t *config, const char *path) {
    int64_t width = json_integer_value(json_object_get(config, "hidden_size"));
    if (width % 64 == 0) return true;
    syz_fail(SYZ_EUNSUPPORTED,
             "%s: states of %d numbers cannot be split into heads of 64: give a configuration (med_config.json) with "
             "\"num_attention_heads\"",
             path, (int)width);
    return false;
}

static void put_vision(json_t *config, const syz_weights *weights, const char *prefix) {
    put(config, "hidden_size", weights, prefix, VISION ".cls_token", 2);
    put(config, "intermediate_size", weights, prefix, VISION ".blocks.0.mlp.fc1.weight", 0);
    put(config, "num_channels", weights, prefix, VISION ".patch_embed.proj.weight", 1);
    put(config, "patch_size", weights, prefix, VISION ".patch_embed.proj.weight", 2);
    int64_t layers = syz_layout_count(weights, prefix, VISION ".blocks.%d.norm1.weight");
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
    int64_t patches = syz_layout_side(weights, prefix, VISION ".pos_embed", 1) - 1, side = 0;
    while ((side + 1) * (side + 1) <= patches)
        side++;
    int64_t patch = syz_layout_side(weights, prefix, VISION ".patch_embed.proj.weight", 2);
    if (side * patch > 0) json_object_set_new(config, "image_size", json_integer(side * patch));
}

static void put_text(json_t *config, const syz_weights *weights, const char *prefix) {
    put(config, "hidden_size", weights, prefix, TEXT ".embeddings.word_embeddings.weight", 1);
    put(config, "vocab_size", weights, prefix, TEXT ".embeddings.word_embeddings.weight", 0);
    put(config, "max_position_embeddings", weights, prefix, TEXT ".embeddings.position_embeddings.weight", 0);
    put(config, "intermediate_size", weights, prefix, TEXT ".encoder.layer.0.intermediate.dense.weight", 0);
    int64_t layers = syz_layout_count(weights, prefix, TEXT ".encoder.layer.%d.output.dense.weight");
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
}

static json_t *head_sizes(const syz_weights *weights, const char *prefix) {
    json_t *sizes = json_array();
    for (int k = 0; k < HIDDEN; k++) {
        syz_path name = syz_pathf("mlp.layers.%d.weight", head_place[k]);
        int64_t size = syz_layout_side(weights, prefix, name.text, 0);
        json_array_append_new(sizes, json_integer(size > 0 ? size : 1));
    }
    return sizes;
}

/* What a file lacks gets some size here, so that loading names what is missing. */
static char *config_of(const syz_weights *weights, const char *prefix, const char *path) {
    json_t *config = json_pack("{s:s, s:o, s:o}", "_class_name", "ImageReward", "vision_config", json_object(),
                               "mlp_sizes", head_sizes(weights, prefix));
    json_t *vision = json_object_get(config, "vision_config");
    if (!vision) return syz_fail_null(SYZ_ENOMEM, "%s: out of memory", path);
    put_text(config, weights, prefix);
    put_vision(vision, weights, prefix);
    char *text = NULL;
    if (check_heads(config, path) && check_heads(vision, path)) {
        text = json_dumps(config, 0);
        if (!text) syz_fail(SYZ_ENOMEM, "%s: out of memory", path);
    }
    json_decref(config);
    return text;
}

static const syz_layout_rule own_names[] = {{"*", "*", SYZ_LAYOUT_SAME}, {0}};

static const syz_layout layouts[] = {
    {"ImageReward", "blip.visual_encoder.cls_token", NULL, own_names, ignore, config_of},
    {0},
};

const syz_model_class_info syz_image_reward = {
    .name = "ImageReward",
    .weights = "model",
    .settings_size = sizeof(settings),
    .build = build,
    .methods = methods,
    .layouts = layouts,
};
