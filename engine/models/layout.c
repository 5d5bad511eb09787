#include "models/layout.h"

#include "core/alloc.h"
#include "core/error.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBERS = 4 };

/* ---- names ---- */

/* What `#` and `*` of a pattern stand for. */
typedef struct {
    long numbers[MAX_NUMBERS];
    int count;
    const char *rest;
} captures;

/* When the name does not fit, `found` holds the numbers up to the difference. */
static bool match(const char *pattern, const char *name, captures *found) {
    *found = (captures){0};
    for (; *pattern && *pattern != '*'; pattern++) {
        if (*pattern != '#') {
            if (*pattern != *name++) return false;
            continue;
        }
        if (!isdigit((unsigned char)*name) || found->count == MAX_NUMBERS) return false;
        char *end;
        found->numbers[found->count++] = strtol(name, &end, 10);
        name = end;
    }
    found->rest = name;
    return *pattern ? *name : !*name;
}

/* The highest number that the model's names have at the place of the pattern's k-th `#`. */
static long highest(const syz_params *params, const char *pattern, int k) {
    long most = 0;
    captures found;
    for (int64_t i = 0; i < params->count; i++) {
        match(pattern, params->items[i].name, &found);
        if (found.count > k && found.numbers[k] > most) most = found.numbers[k];
    }
    return most;
}

/* The pattern `text` with the captured parts put in; `pattern` is the one that captured them. */
static syz_path fill_in(const char *text, const captures *found, const syz_params *params, const char *pattern) {
    syz_path path = {""};
    int k = 0;
    size_t length = 0;
    for (; *text && length < sizeof path.text; text++) {
        char *to = path.text + length;
        size_t room = sizeof path.text - length;
        if (*text == '*') {
            length += (size_t)snprintf(to, room, "%s", found->rest);
        } else if (*text == '#' || *text == '@') {
            long number = k < found->count ? found->numbers[k] : 0;
            if (*text == '@') number = highest(params, pattern, k) - number;
            length += (size_t)snprintf(to, room, "%ld", number);
            k++;
        } else {
            length += (size_t)snprintf(to, room, "%c", *text);
        }
    }
    if (length >= sizeof path.text) syz_fail(SYZ_EINVAL, "a parameter name is too long");
    return path;
}

static int64_t find_prefixed(const syz_weights *weights, const char *prefix, const char *name) {
    return syz_weights_find(weights, syz_pathf("%s%s", prefix, name).text);
}

syz_naming syz_layout_find(const syz_layout *layouts, const syz_weights *weights) {
    static const char *const none[] = {NULL};
    for (const syz_layout *layout = layouts; layout && layout->name; layout++) {
        if (syz_weights_find(weights, layout->sign) >= 0) return (syz_naming){layout, ""};
        for (const char *const *prefix = layout->prefixes ? layout->prefixes : none; *prefix; prefix++)
            if (find_prefixed(weights, *prefix, layout->sign) >= 0) return (syz_naming){layout, *prefix};
    }
    return (syz_naming){NULL, ""};
}

/* ---- resolving ---- */

typedef struct {
    const syz_params *params;
    const syz_weights *weights;
    const char *path;
    syz_naming naming;
    int64_t *used; /* numbers of each tensor of the file */
} resolution;

/* The rule for a parameter and the full name of its source there. */
static syz_status find_rule(const resolution *r, const syz_param *param, const syz_layout_rule **rule, captures *found,
                            syz_path *name) {
    *rule = NULL;
    captures fits;
    for (const syz_layout_rule *at = r->naming.layout->rules; at->name; at++) {
        if (!match(at->name, param->name, &fits)) continue;
        syz_path source = fill_in(at->source, &fits, r->params, at->name);
        syz_path full = syz_pathf("%s%s", r->naming.prefix, source.text);
        bool here = syz_weights_find(r->weights, full.text) >= 0;
        if (*rule && !here) continue;
        *rule = at, *found = fits, *name = full;
        if (here) break;
    }
    if (*rule || syz_failed()) return syz_error_status();
    return syz_fail(SYZ_EUNSUPPORTED, "%s: the layout \"%s\" has no place for \"%s\", which the configuration asks for",
                    r->path, r->naming.layout->name, param->name);
}

/* Rows of the source that rules before `end` take (NULL: all rules). */
static int64_t rows_before(const resolution *r, const syz_layout_rule *rule, const captures *found,
                           const syz_layout_rule *end) {
    int64_t rows = 0;
    for (const syz_layout_rule *at = r->naming.layout->rules; at->name && at != end; at++) {
        if (at->how != SYZ_LAYOUT_ROWS || strcmp(at->source, rule->source) != 0) continue;
        int64_t i = syz_params_find(r->params, fill_in(at->name, found, r->params, at->name).text);
        if (i >= 0) rows += r->params->items[i].shape.dim[0];
    }
    return rows;
}

static bool is_floating(const char *dtype) {
    syz_dtype parsed;
    return syz_dtype_parse(&parsed, dtype) && syz_is_float(parsed);
}

static int64_t product(syz_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++)
        n *= shape.dim[i];
    return n;
}

/* Whether a tensor of shape `found` can hold the parameter; `expected` is what it should be. */
static bool fits(syz_shape *expected, syz_shape found, syz_layout_how how, int64_t rows) {
    if (how == SYZ_LAYOUT_RESHAPED) return product(found) == product(*expected);
    if (how == SYZ_LAYOUT_TRANSPOSED) *expected = SYZ_SHAPE(expected->dim[1], expected->dim[0]);
    if (how == SYZ_LAYOUT_ROWS) expected->dim[0] = rows;
    return syz_shape_equal(found, *expected);
}

static syz_status resolve(resolution *r, const syz_param *param, syz_source *source) {
    const syz_layout_rule *rule = NULL;
    captures found;
    syz_path name = syz_pathf("%s%s", r->naming.prefix, param->name);
    *source = (syz_source){.how = SYZ_LAYOUT_SAME};
    syz_shape expected = param->shape;
    int64_t rows = 0;
    if (r->naming.layout) {
        SYZ_TRY(find_rule(r, param, &rule, &found, &name));
        source->how = rule->how;
        if (rule->how == SYZ_LAYOUT_ROWS) {
            source->row = rows_before(r, rule, &found, rule);
            rows = rows_before(r, rule, &found, NULL);
        }
    }
    source->index = syz_weights_find(r->weights, name.text);
    if (source->index < 0)
        return syz_fail(SYZ_EFORMAT, "%s: \"%s\" is missing (the configuration expects it)", r->path, name.text);
    syz_weight_info info = syz_weights_info(r->weights, source->index);
    char text[96], other[96];
    if (!fits(&expected, info.shape, source->how, rows))
        return syz_fail(SYZ_EFORMAT, "%s: \"%s\" has shape %s, the configuration expects %s", r->path, name.text,
                        syz_shape_text(info.shape, text, sizeof text), syz_shape_text(expected, other, sizeof other));
    if (!is_floating(info.dtype))
        return syz_fail(SYZ_EFORMAT, "%s: \"%s\" is %s, not a floating-point type that can be read", r->path, name.text,
                        info.dtype);
    r->used[source->index] += product(param->shape);
    return SYZ_OK;
}

/* Whether the tensor may stay unused: another model's, or one that the layout or the class knows as no parameter. */
static bool passed_over(const resolution *r, const char *name, bool (*ignore)(const char *)) {
    size_t length = strlen(r->naming.prefix);
    if (strncmp(name, r->naming.prefix, length) != 0) return true;
    if (r->naming.layout) ignore = r->naming.layout->ignore;
    return ignore && ignore(name + length);
}

static syz_status check_use(const resolution *r, bool (*ignore)(const char *)) {
    for (int64_t k = 0; k < syz_weights_count(r->weights); k++) {
        syz_weight_info info = syz_weights_info(r->weights, k);
        int64_t size = product(info.shape);
        if (r->used[k] == size && (size || !passed_over(r, info.name, ignore))) continue;
        if (r->used[k] > size)
            return syz_fail(SYZ_EINTERNAL, "%s: two parameters take their values from \"%s\"", r->path, info.name);
        if (r->used[k] || !passed_over(r, info.name, ignore))
            return syz_fail(SYZ_EFORMAT, "%s: \"%s\" does not belong to the model of this configuration", r->path,
                            info.name);
    }
    return SYZ_OK;
}

syz_source *syz_layout_resolve(const syz_params *params, const syz_weights *weights, const char *path,
                               syz_naming naming, bool (*ignore)(const char *name)) {
    if (syz_failed()) return NULL;
    resolution r = {params, weights, path, naming, syz_alloc((size_t)syz_weights_count(weights), sizeof *r.used)};
    syz_source *sources = r.used ? syz_alloc((size_t)params->count, sizeof *sources) : NULL;
    syz_status status = sources ? SYZ_OK : syz_error_status();
    for (int64_t i = 0; i < params->count && status == SYZ_OK; i++)
        status = resolve(&r, &params->items[i], &sources[i]);
    if (status == SYZ_OK) status = check_use(&r, ignore);
    free(r.used);
    if (status == SYZ_OK) return sources;
    free(sources);
    return NULL;
}

/* ---- values ---- */

static void release_tensor(void *t) {
    syz_release(t);
}

/* Rows of a tensor, sharing its memory. */
static syz_tensor *view_rows(syz_tensor *t, int64_t begin, syz_shape shape) {
    size_t row = syz_nbytes(t) / (size_t)(t->shape.dim[0] ? t->shape.dim[0] : 1);
    const uint8_t *data = (const uint8_t *)syz_data(t) + (size_t)begin * row;
    syz_tensor *view = syz_wrap(t->dtype, shape, data, release_tensor, t);
    if (view) syz_retain(t);
    return view;
}

syz_tensor *syz_layout_take(const syz_weights *weights, const syz_source *source, syz_shape shape) {
    syz_tensor *t = syz_weights_get(weights, syz_weights_info(weights, source->index).name);
    if (!t) return NULL;
    int64_t rows = shape.n ? shape.dim[0] : 0;
    syz_tensor *halves[2];
    switch (source->how) {
    case SYZ_LAYOUT_ROWS:
        return view_rows(t, source->row, shape);
    case SYZ_LAYOUT_TRANSPOSED:
        return syz_permute(t, SYZ_SHAPE(1, 0));
    case SYZ_LAYOUT_SWAPPED_HALVES:
        halves[0] = syz_slice(t, 0, rows / 2, rows);
        halves[1] = syz_slice(t, 0, 0, rows / 2);
        return syz_concat(halves, 2, 0);
    case SYZ_LAYOUT_RESHAPED:
        return syz_reshape(t, shape);
    default:
        return t;
    }
}

/* ---- for configurations ---- */

int64_t syz_layout_side(const syz_weights *weights, const char *prefix, const char *name, int side) {
    int64_t i = find_prefixed(weights, prefix, name);
    syz_shape shape = syz_weights_info(weights, i).shape; /* empty for -1 */
    return side < shape.n ? shape.dim[side] : 0;
}

int64_t syz_layout_count(const syz_weights *weights, const char *prefix, const char *pattern) {
    const char *number = strstr(pattern, "%d");
    int64_t n = 0;
    if (!number) return 0;
    while (find_prefixed(weights, prefix,
                         syz_pathf("%.*s%d%s", (int)(number - pattern), pattern, (int)n, number + 2).text) >= 0)
        n++;
    return n;
}
