/* The names of the tensors in a saved object. Checkpoints wrap their weights in various ways; these are undone, so that
 * the names are those of the model:
 *   - {"epoch": 3, "state_dict": {...}}: when all tensors lie below one key of `wrappers`, that level goes;
 *   - beside such a key, what lies below a key of `training` (moments, random states) is left out;
 *   - "module.", when all names begin with it (DistributedDataParallel), goes. */
#include "io/torch.h"

#include "core/alloc.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32, MAX_VISITED = 1 << 22 };

static const char *const wrappers[] = {
    "state_dict", "model_state_dict", "model", "module", "params", "params_ema", "net", NULL,
};

static const char *const training[] = {
    "optimizer",    "optimizer_states", "optimizer_state_dict",
    "lr_scheduler", "lr_schedulers",    "scheduler",
    "scaler",       "callbacks",        "loops",
    "rng_state",    "cuda_rng_state",   "random_state",
    "amp",          "hyper_parameters", NULL,
};

static bool listed(const char *const *list, const char *name, size_t length) {
    for (; *list; list++)
        if (strlen(*list) == length && memcmp(*list, name, length) == 0) return true;
    return false;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

typedef struct {
    syz_torch_names *names;
    char text[SYZ_WEIGHTS_MAX_NAME + 1];
    size_t length, first;
} walk;

static syz_status add(walk *w, const syz_pickle_value *tensor) {
    syz_torch_names *names = w->names;
    if (w->length == 0) return syz_fail(SYZ_EFORMAT, "%s: holds one tensor without a name", names->path);
    if (names->count == SYZ_WEIGHTS_MAX_TENSORS) {
        return syz_fail(SYZ_EFORMAT, "%s: more than %d tensors", names->path, SYZ_WEIGHTS_MAX_TENSORS);
    }
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 64;
        syz_torch_named *items = syz_alloc(capacity, sizeof *items);
        if (!items) return syz_error_status();
        if (names->count) memcpy(items, names->items, names->count * sizeof *items);
        free(names->items);
        names->items = items;
        names->capacity = capacity;
    }
    char *name = syz_strdup(w->text);
    if (!name) return syz_error_status();
    names->items[names->count++] = (syz_torch_named){name, w->first == w->length ? 0 : w->first, *tensor};
    return SYZ_OK;
}

/* Lengthen the name by a part. */
static syz_status enter(walk *w, const char *part, size_t length) {
    size_t dot = w->length ? 1 : 0;
    if (length > SYZ_WEIGHTS_MAX_NAME || w->length + dot + length > SYZ_WEIGHTS_MAX_NAME) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%.40s...\": name longer than %d bytes", w->names->path,
                        w->length ? w->text : part, SYZ_WEIGHTS_MAX_NAME);
    }
    if (memchr(part, '\0', length)) {
        return syz_fail(SYZ_EFORMAT, "%s: tensor \"%s...\": a zero byte in the name", w->names->path, w->text);
    }
    if (dot) w->text[w->length++] = '.';
    memcpy(w->text + w->length, part, length);
    w->length += length;
    w->text[w->length] = '\0';
    if (!dot) w->first = w->length;
    return SYZ_OK;
}

/* A key as text; one that is no text and no number stands as the name of its kind, which no model expects. */
static syz_status enter_key(walk *w, const syz_pickle_value *key) {
    char number[24];
    if (key->kind == SYZ_PICKLE_INTEGER) {
        snprintf(number, sizeof number, "%" PRId64, key->as.integer);
        return enter(w, number, strlen(number));
    }
    if (key->kind != SYZ_PICKLE_TEXT) return enter(w, syz_pickle_kind_name(key), strlen(syz_pickle_kind_name(key)));
    return enter(w, key->as.text, key->length);
}

static bool holds_values(const syz_pickle_value *v) {
    return v->kind == SYZ_PICKLE_TUPLE || v->kind == SYZ_PICKLE_LIST || v->kind == SYZ_PICKLE_DICT ||
           v->kind == SYZ_PICKLE_TENSOR;
}

/* `root` and all below it. Values may be shared and may even contain themselves: both bounds end that. */
static syz_status visit(walk *w, const syz_pickle_value *root, int depth) {
    if (root->kind == SYZ_PICKLE_TENSOR) return add(w, root);
    if (depth == MAX_DEPTH) return syz_fail(SYZ_EFORMAT, "%s: nested deeper than %d levels", w->names->path, MAX_DEPTH);
    const syz_pickle_object *object = root->as.object;
    bool dict = root->kind == SYZ_PICKLE_DICT;
    for (uint32_t i = 0; i + (dict ? 1 : 0) < object->count; i += dict ? 2 : 1) {
        const syz_pickle_value position = {.kind = SYZ_PICKLE_INTEGER, .as.integer = i};
        const syz_pickle_value *child = &object->items[dict ? i + 1 : i];
        if (++w->names->visited > MAX_VISITED)
            return syz_fail(SYZ_EFORMAT, "%s: more than %d values", w->names->path, MAX_VISITED);
        if (!holds_values(child)) continue;
        size_t length = w->length, first = w->first;
        SYZ_TRY(enter_key(w, dict ? &object->items[i] : &position));
        SYZ_TRY(visit(w, child, depth + 1));
        w->text[length] = '\0';
        w->length = length;
        w->first = first;
    }
    return SYZ_OK;
}

/* ---- what is undone ---------------------------------------------------------------------------------------------- */

static void shorten(syz_torch_names *names, size_t count) {
    for (size_t i = 0; i < names->count; i++) {
        syz_torch_named *item = &names->items[i];
        memmove(item->name, item->name + count, strlen(item->name + count) + 1);
    }
}

static bool wrapped(const syz_torch_named *item) {
    return item->first && listed(wrappers, item->name, item->first);
}

static void drop_training_state(syz_torch_names *names) {
    bool any = false;
    for (size_t i = 0; i < names->count; i++)
        any = any || wrapped(&names->items[i]);
    size_t kept = 0;
    for (size_t i = 0; i < names->count && any; i++) {
        syz_torch_named item = names->items[i];
        if (listed(training, item.name, item.first ? item.first : strlen(item.name)))
            free(item.name);
        else
            names->items[kept++] = item;
    }
    if (any) names->count = kept;
}

static void unwrap(syz_torch_names *names) {
    static const char module[] = "module.";
    if (names->count == 0) return;
    size_t first = wrapped(&names->items[0]) ? names->items[0].first : 0;
    bool all = true;
    for (size_t i = 0; i < names->count && first; i++) {
        const syz_torch_named *item = &names->items[i];
        if (item->first != first || memcmp(item->name, names->items[0].name, first) != 0) first = 0;
    }
    if (first) shorten(names, first + 1);
    for (size_t i = 0; i < names->count; i++)
        all = all && strncmp(names->items[i].name, module, sizeof module - 1) == 0;
    if (all) shorten(names, sizeof module - 1);
}

static syz_status check_name(const syz_torch_names *names, const char *name) {
    json_t *text = json_string(name);
    json_decref(text);
    if (!text) return syz_fail(SYZ_EFORMAT, "%s: tensor \"%.40s\": the name is not UTF-8 text", names->path, name);
    if (!*name) return syz_fail(SYZ_EFORMAT, "%s: a tensor has an empty name", names->path);
    return SYZ_OK;
}

syz_status syz_torch_collect(syz_torch_names *names, const char *path, const syz_pickle_value *root, bool shard) {
    *names = (syz_torch_names){.path = path};
    if (!holds_values(root))
        return syz_fail(SYZ_EFORMAT, "%s: holds a %s, not weights", path, syz_pickle_kind_name(root));
    walk w = {.names = names};
    SYZ_TRY(visit(&w, root, 0));
    if (!shard) {
        drop_training_state(names);
        unwrap(names);
    }
    for (size_t i = 0; i < names->count; i++)
        SYZ_TRY(check_name(names, names->items[i].name));
    return SYZ_OK;
}

void syz_torch_names_free(syz_torch_names *names) {
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i].name);
    free(names->items);
    *names = (syz_torch_names){0};
}
