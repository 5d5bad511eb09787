/* The layers that models are made of: their parameters' names and starting values, and their application by name. */
#include "models/model.h"

#include <math.h>

/* ---- declaring ---- */

void syz_add_weight(syz_model *m, const char *name, syz_shape shape, syz_init init) {
    syz_params_add(&m->params, name, shape, init);
}

static void add_pair(syz_model *m, const char *name, syz_shape weight, syz_init init, bool bias, syz_init bias_init) {
    syz_add_weight(m, syz_pathf("%s.weight", name).text, weight, init);
    if (bias) syz_add_weight(m, syz_pathf("%s.bias", name).text, SYZ_SHAPE(weight.dim[0]), bias_init);
}

static void add_linear(syz_model *m, const char *name, syz_shape weight, syz_init init, bool bias, syz_init bias_init) {
    add_pair(m, name, weight, init, bias, bias_init);
    if (!syz_failed()) m->params.items[syz_params_find(&m->params, syz_pathf("%s.weight", name).text)].linear = true;
}

void syz_add_linear(syz_model *m, const char *name, int64_t in, int64_t out, bool bias) {
    syz_init init = {SYZ_INIT_UNIFORM, 1 / sqrt((double)in)};
    add_linear(m, name, SYZ_SHAPE(out, in), init, bias, init);
}

void syz_add_linear_zero(syz_model *m, const char *name, int64_t in, int64_t out) {
    add_linear(m, name, SYZ_SHAPE(out, in), SYZ_INIT_ZEROS, true, SYZ_INIT_ZEROS);
}

void syz_add_linear_normal(syz_model *m, const char *name, int64_t in, int64_t out, bool bias, double deviation) {
    add_linear(m, name, SYZ_SHAPE(out, in), (syz_init){SYZ_INIT_NORMAL, deviation}, bias, SYZ_INIT_ZEROS);
}

void syz_add_conv(syz_model *m, const char *name, int64_t in, int64_t out, int64_t size) {
    syz_init init = {SYZ_INIT_UNIFORM, 1 / sqrt((double)(in * size * size))};
    add_pair(m, name, SYZ_SHAPE(out, in, size, size), init, true, init);
}

void syz_add_norm(syz_model *m, const char *name, int64_t channels) {
    add_pair(m, name, SYZ_SHAPE(channels), SYZ_INIT_ONES, true, SYZ_INIT_ZEROS);
}

/* ---- applying ---- */

syz_tensor *syz_weight(const syz_model *m, const char *name) {
    if (syz_failed()) return NULL;
    int64_t index = syz_params_find(&m->params, name);
    if (index < 0) return syz_fail_null(SYZ_EINTERNAL, "%s has no parameter \"%s\"", m->class->name, name);
    return syz_model_param(m, index);
}

static syz_tensor *weight_of(const syz_model *m, const char *name) {
    return syz_weight(m, syz_pathf("%s.weight", name).text);
}

static syz_tensor *bias_of(const syz_model *m, const char *name) {
    syz_path path = syz_pathf("%s.bias", name);
    return syz_params_find(&m->params, path.text) < 0 ? NULL : syz_weight(m, path.text);
}

/* On a GPU a layer computes in the type of its weights, whatever it is given. */
static syz_tensor *as_weight(syz_tensor *x, const syz_tensor *weight) {
    if (!x || !weight || weight->device == 0 || x->dtype == weight->dtype) return x;
    return weight->dtype == SYZ_BF16 || weight->dtype == SYZ_F32 ? syz_cast(x, weight->dtype) : x;
}

syz_tensor *syz_apply_linear(const syz_model *m, const char *name, syz_tensor *x) {
    syz_tensor *weight = weight_of(m, name);
    x = as_weight(x, weight);
    return syz_lora_apply(m, name, x, syz_linear(x, weight, bias_of(m, name)));
}

syz_tensor *syz_apply_linear_gelu(const syz_model *m, const char *name, syz_tensor *x) {
    if (syz_lora_acts_on(m, name)) return syz_gelu_tanh(syz_apply_linear(m, name, x));
    syz_tensor *weight = weight_of(m, name);
    return syz_linear_gelu(as_weight(x, weight), weight, bias_of(m, name));
}

bool syz_check_pixels(const syz_model *m, const syz_tensor *pixels, int64_t side, int64_t channels) {
    if (syz_shape_equal(pixels->shape, SYZ_SHAPE(pixels->shape.dim[0], side, side, channels))) return true;
    syz_fail(SYZ_ESHAPE, "%s: pixel_values must be [N,%d,%d,%d], not %s", m->class->name, (int)side, (int)side,
             (int)channels, syz_dims(pixels));
    return false;
}

syz_tensor *syz_apply_conv(const syz_model *m, const char *name, syz_tensor *x, int64_t stride, int64_t pad) {
    syz_tensor *weight = weight_of(m, name);
    return syz_conv2d(as_weight(x, weight), weight, bias_of(m, name), stride, pad, pad, pad, pad);
}

syz_tensor *syz_apply_layer_norm(const syz_model *m, const char *name, syz_tensor *x, double eps) {
    return syz_layer_norm(x, weight_of(m, name), bias_of(m, name), eps);
}

syz_tensor *syz_apply_group_norm(const syz_model *m, const char *name, syz_tensor *x, int64_t groups, double eps,
                                 bool silu) {
    return syz_group_norm(x, weight_of(m, name), bias_of(m, name), groups, eps, silu);
}

syz_tensor *syz_apply_embedding(const syz_model *m, const char *name, syz_tensor *ids) {
    return syz_embedding(syz_weight(m, name), ids);
}

syz_tensor *syz_narrow(syz_tensor *x, int64_t dim, int64_t begin, int64_t length) {
    return syz_slice(x, dim, begin, begin + length);
}

syz_tensor *syz_narrow_view(syz_tensor *x, int64_t dim, int64_t begin, int64_t length) {
    return syz_slice_view(x, dim, begin, begin + length);
}

static void release_model(void *m) {
    syz_model_release(m);
}

/* A tensor that holds a reference on the model as long as a graph holds the tensor. */
static syz_tensor *lease(syz_model *m) {
    syz_tensor *t = syz_wrap(SYZ_U8, SYZ_SHAPE(1), m, release_model, m);
    if (t) syz_model_retain(m);
    return t;
}

/* Not while adapters are off: the block would be run again with them on. */
bool syz_is_checkpointing(const syz_model *m) {
    return m->checkpointing && syz_grad_enabled() && syz_lora_is_steady(m);
}

syz_tensor *syz_checkpoint_block(syz_model *m, syz_segment block, int64_t index, syz_tensor *const in[], int nin) {
    syz_tensor *all[SYZ_MAX_INPUTS];
    if (nin >= SYZ_MAX_INPUTS) return syz_fail_null(SYZ_EINTERNAL, "a block of a model has too many inputs");
    for (int k = 0; k < nin; k++)
        all[k] = in[k];
    all[nin] = lease(m);
    return all[nin] ? syz_checkpoint(block, m, index, all, nin + 1) : NULL;
}

syz_tensor *syz_run_block(syz_model *m, syz_segment block, int64_t index, syz_tensor *const in[], int nin) {
    if (syz_failed()) return NULL;
    for (int k = 0; k < nin; k++)
        if (!in[k]) return NULL;
    if (syz_is_checkpointing(m)) return syz_checkpoint_block(m, block, index, in, nin);
    if (syz_scope_push() != SYZ_OK) return NULL;
    syz_tensor *out = syz_scope_return(block(m, index, in, nin));
    syz_scope_pop();
    return out;
}
