/* AutoencoderKL of diffusers: images to latents and back.
 *
 * The two halves are chains of stages between a first and a last convolution. `build` writes the chain down while it
 * declares the parameters, and the methods walk it; a stage is what checkpointing recomputes. Everything is [N,H,W,C].
 * Scaling and shift of the latents belong to the pipeline. */
#include "models/model.h"

#include <string.h>

#define EPS 1e-6

enum { MAX_LEVELS = 8, MAX_LAYERS = 16, MAX_STAGES = 2 * MAX_LEVELS * (MAX_LAYERS + 2) + 6 };

typedef struct {
    enum { RESNET, ATTENTION, DOWN, UP } kind;
    bool shortcut; /* a resnet whose width changes */
    syz_path path;
} stage;

typedef struct {
    int64_t in, out, latent, groups, layers, width[MAX_LEVELS];
    int levels;
    bool attention, quant, post_quant;
    stage stages[MAX_STAGES]; /* the encoder's, then the decoder's */
    int nencoder, nstages;
} settings;

/* ---- configuration ---- */

static void check_types(const syz_json *config, const char *key, const char *expected) {
    const json_t *list = json_object_get(config->object, key), *item;
    size_t i;
    json_array_foreach(list, i, item) {
        const char *text = json_string_value(item);
        if (!text || strcmp(text, expected) != 0) syz_config_refuse(config, key, "has a block of an unknown kind");
    }
}

static void read_settings(settings *s, const syz_json *config) {
    s->in = syz_config_int(config, "in_channels", 3, 1, 1024);
    s->out = syz_config_int(config, "out_channels", 3, 1, 1024);
    s->latent = syz_config_int(config, "latent_channels", 4, 1, 1024);
    s->groups = syz_config_int(config, "norm_num_groups", 32, 1, 1 << 16);
    s->layers = syz_config_int(config, "layers_per_block", 1, 1, MAX_LAYERS);
    s->attention = syz_json_bool(config, "mid_block_add_attention", true);
    s->quant = syz_json_bool(config, "use_quant_conv", true);
    s->post_quant = syz_json_bool(config, "use_post_quant_conv", true);
    s->levels = syz_json_ints(config, "block_out_channels", s->width, MAX_LEVELS);
    if (s->levels == 0) s->width[s->levels++] = 64;
    for (int i = 0; i < s->levels; i++)
        if (s->width[i] < 1 || s->width[i] > 1 << 16 || s->width[i] % s->groups)
            syz_config_refuse(config, "block_out_channels", "must hold multiples of norm_num_groups");
    if (strcmp(syz_json_string(config, "act_fn", "silu"), "silu") != 0)
        syz_config_refuse(config, "act_fn", "must be \"silu\"");
    check_types(config, "down_block_types", "DownEncoderBlock2D");
    check_types(config, "up_block_types", "UpDecoderBlock2D");
}

/* ---- the chain and its parameters ---- */

static stage *add_stage(settings *s, int kind, syz_path path) {
    stage *next = &s->stages[s->nstages++];
    *next = (stage){.kind = kind, .path = path};
    return next;
}

static void add_resnet(syz_model *m, syz_path path, int64_t in, int64_t out) {
    syz_add_norm(m, syz_join(path.text, "norm1").text, in);
    syz_add_conv(m, syz_join(path.text, "conv1").text, in, out, 3);
    syz_add_norm(m, syz_join(path.text, "norm2").text, out);
    syz_add_conv(m, syz_join(path.text, "conv2").text, out, out, 3);
    if (in != out) syz_add_conv(m, syz_join(path.text, "conv_shortcut").text, in, out, 1);
    add_stage(m->settings, RESNET, path)->shortcut = in != out;
}

static void add_resampler(syz_model *m, int kind, syz_path path, int64_t width) {
    syz_add_conv(m, syz_join(path.text, "conv").text, width, width, 3);
    add_stage(m->settings, kind, path);
}

static void add_middle(syz_model *m, const char *half, int64_t width) {
    settings *s = m->settings;
    add_resnet(m, syz_pathf("%s.mid_block.resnets.0", half), width, width);
    if (s->attention) {
        syz_path path = syz_pathf("%s.mid_block.attentions.0", half);
        syz_add_norm(m, syz_join(path.text, "group_norm").text, width);
        static const char *const names[] = {"to_q", "to_k", "to_v", "to_out.0"};
        for (int i = 0; i < 4; i++)
            syz_add_linear(m, syz_join(path.text, names[i]).text, width, width, true);
        add_stage(s, ATTENTION, path);
    }
    add_resnet(m, syz_pathf("%s.mid_block.resnets.1", half), width, width);
}

static void add_end(syz_model *m, const char *half, int64_t width, int64_t out) {
    syz_add_norm(m, syz_join(half, "conv_norm_out").text, width);
    syz_add_conv(m, syz_join(half, "conv_out").text, width, out, 3);
}

static void build(syz_model *m, const syz_json *config) {
    settings *s = m->settings;
    read_settings(s, config);
    if (syz_failed()) return;
    int last = s->levels - 1;
    int64_t width = s->width[0];
    syz_add_conv(m, "encoder.conv_in", s->in, width, 3);
    for (int i = 0; i <= last; i++) {
        for (int k = 0; k < s->layers; k++, width = s->width[i])
            add_resnet(m, syz_pathf("encoder.down_blocks.%d.resnets.%d", i, k), width, s->width[i]);
        if (i < last) add_resampler(m, DOWN, syz_pathf("encoder.down_blocks.%d.downsamplers.0", i), width);
    }
    add_middle(m, "encoder", width);
    add_end(m, "encoder", width, 2 * s->latent);
    s->nencoder = s->nstages;
    syz_add_conv(m, "decoder.conv_in", s->latent, width, 3);
    add_middle(m, "decoder", width);
    for (int i = 0; i <= last; i++) {
        for (int k = 0; k <= s->layers; k++, width = s->width[last - i])
            add_resnet(m, syz_pathf("decoder.up_blocks.%d.resnets.%d", i, k), width, s->width[last - i]);
        if (i < last) add_resampler(m, UP, syz_pathf("decoder.up_blocks.%d.upsamplers.0", i), width);
    }
    add_end(m, "decoder", width, s->out);
    if (s->quant) syz_add_conv(m, "quant_conv", 2 * s->latent, 2 * s->latent, 1);
    if (s->post_quant) syz_add_conv(m, "post_quant_conv", s->latent, s->latent, 1);
}

/* ---- stages ---- */

static syz_tensor *resnet(const syz_model *m, const stage *at, syz_tensor *x) {
    const settings *s = m->settings;
    const char *path = at->path.text;
    syz_tensor *y = syz_apply_group_norm(m, syz_join(path, "norm1").text, x, s->groups, EPS, true);
    y = syz_apply_conv(m, syz_join(path, "conv1").text, y, 1, 1);
    y = syz_apply_group_norm(m, syz_join(path, "norm2").text, y, s->groups, EPS, true);
    y = syz_apply_conv(m, syz_join(path, "conv2").text, y, 1, 1);
    if (at->shortcut) x = syz_apply_conv(m, syz_join(path, "conv_shortcut").text, x, 1, 0);
    return syz_add(x, y);
}

/* One head over the H*W positions. */
static syz_tensor *attention(const syz_model *m, const stage *at, syz_tensor *x) {
    const settings *s = m->settings;
    const char *path = at->path.text;
    syz_shape image = x->shape;
    syz_shape rows = SYZ_SHAPE(image.dim[0], image.dim[1] * image.dim[2], 1, image.dim[3]);
    syz_tensor *y = syz_apply_group_norm(m, syz_join(path, "group_norm").text, x, s->groups, EPS, false);
    y = syz_reshape(y, rows);
    syz_tensor *q = syz_apply_linear(m, syz_join(path, "to_q").text, y);
    syz_tensor *k = syz_apply_linear(m, syz_join(path, "to_k").text, y);
    syz_tensor *v = syz_apply_linear(m, syz_join(path, "to_v").text, y);
    y = syz_apply_linear(m, syz_join(path, "to_out.0").text, syz_attention(q, k, v, NULL, 0, false));
    return syz_add(x, syz_reshape(y, image));
}

static syz_tensor *run_stage(void *model, int64_t index, syz_tensor *const in[], int nin) {
    (void)nin;
    const syz_model *m = model;
    const stage *at = &((const settings *)m->settings)->stages[index];
    syz_path conv = syz_join(at->path.text, "conv");
    switch (at->kind) {
    case RESNET:
        return resnet(m, at, in[0]);
    case ATTENTION:
        return attention(m, at, in[0]);
    case DOWN: /* zeros below and to the right only */
        return syz_conv2d(in[0], syz_weight(m, syz_pathf("%s.weight", conv.text).text),
                          syz_weight(m, syz_pathf("%s.bias", conv.text).text), 2, 0, 0, 1, 1);
    default:
        return syz_apply_conv(m, conv.text, syz_upsample_nearest(in[0], 2), 1, 1);
    }
}

static syz_tensor *run_half(syz_model *m, const char *half, syz_tensor *x, int first, int end) {
    const settings *s = m->settings;
    x = syz_apply_conv(m, syz_join(half, "conv_in").text, x, 1, 1);
    for (int i = first; i < end; i++)
        x = syz_run_block(m, run_stage, i, &x, 1);
    x = syz_apply_group_norm(m, syz_join(half, "conv_norm_out").text, x, s->groups, EPS, true);
    return syz_apply_conv(m, syz_join(half, "conv_out").text, x, 1, 1);
}

/* ---- methods ---- */

/* image [N,H,W,3] in [-1,1] -> moments [N,h,w,2C]: the mean, then the log variance */
static void encode(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    const settings *s = m->settings;
    syz_tensor *x = run_half(m, "encoder", in[0], 0, s->nencoder);
    out[0] = s->quant ? syz_apply_conv(m, "quant_conv", x, 1, 0) : x;
}

/* z [N,h,w,C] -> image [N,H,W,3] */
static void decode(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    const settings *s = m->settings;
    syz_tensor *z = s->post_quant ? syz_apply_conv(m, "post_quant_conv", in[0], 1, 0) : in[0];
    out[0] = run_half(m, "decoder", z, s->nencoder, s->nstages);
}

static syz_tensor *whole(void *m, int64_t decoder, syz_tensor *const in[], int nin) {
    (void)nin;
    syz_tensor *out = NULL;
    (decoder ? decode : encode)(m, in, &out);
    return out;
}

/* For one of many tiles: with checkpointing it keeps nothing but its input, and blocks are recomputed while it is. */
static void run_tile(syz_model *m, bool decoder, syz_tensor *const in[], syz_tensor *out[]) {
    bool recompute = m->checkpointing && syz_grad_enabled();
    out[0] = recompute ? syz_checkpoint_block(m, whole, decoder, in, 1) : whole(m, decoder, in, 1);
}

static void encode_tile(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    run_tile(m, false, in, out);
}

static void decode_tile(syz_model *m, syz_tensor *const in[], syz_tensor *out[]) {
    run_tile(m, true, in, out);
}

static const syz_method methods[] = {
    {"encode", "image", "moments", encode},
    {"decode", "latent", "image", decode},
    {"encode_tile", "image", "moments", encode_tile},
    {"decode_tile", "latent", "image", decode_tile},
    {0},
};

/* ---- the original single file ---- */

static const syz_layout_rule original_rules[] = {
    {"encoder.down_blocks.#.resnets.#.conv_shortcut.*", "encoder.down.#.block.#.nin_shortcut.*", SYZ_LAYOUT_SAME},
    {"encoder.down_blocks.#.resnets.#.*", "encoder.down.#.block.#.*", SYZ_LAYOUT_SAME},
    {"encoder.down_blocks.#.downsamplers.0.conv.*", "encoder.down.#.downsample.conv.*", SYZ_LAYOUT_SAME},
    {"encoder.mid_block.resnets.0.*", "encoder.mid.block_1.*", SYZ_LAYOUT_SAME},
    {"encoder.mid_block.resnets.1.*", "encoder.mid.block_2.*", SYZ_LAYOUT_SAME},
    {"encoder.mid_block.attentions.0.group_norm.*", "encoder.mid.attn_1.norm.*", SYZ_LAYOUT_SAME},
    {"encoder.mid_block.attentions.0.to_q.*", "encoder.mid.attn_1.q.*", SYZ_LAYOUT_RESHAPED}, /* convolutions 1 x 1 */
    {"encoder.mid_block.attentions.0.to_k.*", "encoder.mid.attn_1.k.*", SYZ_LAYOUT_RESHAPED},
    {"encoder.mid_block.attentions.0.to_v.*", "encoder.mid.attn_1.v.*", SYZ_LAYOUT_RESHAPED},
    {"encoder.mid_block.attentions.0.to_out.0.*", "encoder.mid.attn_1.proj_out.*", SYZ_LAYOUT_RESHAPED},
    {"encoder.conv_norm_out.*", "encoder.norm_out.*", SYZ_LAYOUT_SAME},
    {"decoder.up_blocks.#.resnets.#.conv_shortcut.*", "decoder.up.@.block.#.nin_shortcut.*", SYZ_LAYOUT_SAME},
    {"decoder.up_blocks.#.resnets.#.*", "decoder.up.@.block.#.*", SYZ_LAYOUT_SAME},
    {"decoder.up_blocks.#.upsamplers.0.conv.*", "decoder.up.@.upsample.conv.*", SYZ_LAYOUT_SAME},
    {"decoder.mid_block.resnets.0.*", "decoder.mid.block_1.*", SYZ_LAYOUT_SAME},
    {"decoder.mid_block.resnets.1.*", "decoder.mid.block_2.*", SYZ_LAYOUT_SAME},
    {"decoder.mid_block.attentions.0.group_norm.*", "decoder.mid.attn_1.norm.*", SYZ_LAYOUT_SAME},
    {"decoder.mid_block.attentions.0.to_q.*", "decoder.mid.attn_1.q.*", SYZ_LAYOUT_RESHAPED},
    {"decoder.mid_block.attentions.0.to_k.*", "decoder.mid.attn_1.k.*", SYZ_LAYOUT_RESHAPED},
    {"decoder.mid_block.attentions.0.to_v.*", "decoder.mid.attn_1.v.*", SYZ_LAYOUT_RESHAPED},
    {"decoder.mid_block.attentions.0.to_out.0.*", "decoder.mid.attn_1.proj_out.*", SYZ_LAYOUT_RESHAPED},
    {"decoder.conv_norm_out.*", "decoder.norm_out.*", SYZ_LAYOUT_SAME},
    {"*", "*", SYZ_LAYOUT_SAME}, /* conv_in, conv_out, quant_conv, post_quant_conv */
    {0},
};

static json_t *level_widths(const syz_weights *weights, const char *prefix) {
    json_t *widths = json_array();
    int64_t levels = syz_layout_count(weights, prefix, "encoder.down.%d.block.0.conv1.weight");
    for (int i = 0; i < levels; i++)
        json_array_append_new(
            widths, json_integer(syz_layout_side(weights, prefix,
                                                 syz_pathf("encoder.down.%d.block.0.conv1.weight", i).text, 0)));
    return widths;
}

/* Neither the number of groups nor the scaling of the latents shows in the weights: 32, and what FLUX.1 (16 channels)
 * and Stable Diffusion (4 channels) use. */
static char *original_config(const syz_weights *weights, const char *prefix, const char *path) {
    int64_t latent = syz_layout_side(weights, prefix, "decoder.conv_in.weight", 1);
    int64_t width = syz_layout_side(weights, prefix, "encoder.conv_in.weight", 0);
    if (width % 32 || (latent != 16 && latent != 4))
        return syz_fail_null(
            SYZ_EUNSUPPORTED,
            "%s: %d latent channels and a width of %d: the weights do not tell \"norm_num_groups\" and "
            "\"scaling_factor\": give a configuration",
            path, (int)latent, (int)width);
    bool flux = latent == 16;
    json_t *config =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:i, s:b, s:b, s:b, s:f, s:f}", "_class_name", "AutoencoderKL",
                  "in_channels", (json_int_t)syz_layout_side(weights, prefix, "encoder.conv_in.weight", 1),
                  "out_channels", (json_int_t)syz_layout_side(weights, prefix, "decoder.conv_out.weight", 0),
                  "latent_channels", (json_int_t)latent, "layers_per_block",
                  (json_int_t)syz_layout_count(weights, prefix, "encoder.down.0.block.%d.conv1.weight"),
                  "block_out_channels", level_widths(weights, prefix), "norm_num_groups", 32, "mid_block_add_attention",
                  syz_layout_side(weights, prefix, "encoder.mid.attn_1.q.weight", 0) > 0, "use_quant_conv",
                  syz_layout_side(weights, prefix, "quant_conv.weight", 0) > 0, "use_post_quant_conv",
                  syz_layout_side(weights, prefix, "post_quant_conv.weight", 0) > 0, "scaling_factor",
                  flux ? 0.3611 : 0.18215, "shift_factor", flux ? 0.1159 : 0.0);
    char *text = config ? json_dumps(config, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(config);
    return text ? text : syz_fail_null(SYZ_ENOMEM, "%s: out of memory", path);
}

static const char *const original_prefixes[] = {"vae.", "first_stage_model.", NULL};

static const syz_layout layouts[] = {
    {"AutoencoderKL, original", "encoder.down.0.block.0.norm1.weight", original_prefixes, original_rules, NULL,
     original_config},
    {0},
};

const syz_model_class_info syz_autoencoder_kl = {
    .name = "AutoencoderKL",
    .weights = "diffusion_pytorch_model",
    .settings_size = sizeof(settings),
    .build = build,
    .methods = methods,
    .layouts = layouts,
};
