/* Saving parameters as diffusers and transformers do: NAME.safetensors, or NAME-00001-of-00003.safetensors, ... with
 * NAME.safetensors.index.json. All files are written under temporary names first. Then, in this order: an index whose
 * shards are about to be replaced goes, shards take their names, the index takes its name, and what an earlier save
 * left under other names goes. So a reader finds the old weights, the new ones or, for the time of a few renames, none;
 * never a mixture. */
#include "models/params.h"

#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "tensor/tensor.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const syz_params *params;
    const char *folder, *name;
    syz_dtype dtype;
    const syz_random_weights *random; /* NULL: the parameters have values */
    uint64_t done;                    /* bytes written */
    int64_t *members;                 /* parameters of the shard that is being written */
    int64_t *shard_of;                /* of every parameter */
    int64_t shards;
    uint64_t total; /* bytes of all */
    syz_file_writer **writers;
    syz_file_writer *index; /* NULL for a single file */
} plan;

/* ---- which parameter goes where ---------------------------------------------------------------------------------- */

static uint64_t bytes_of(const plan *p, const syz_param *param) {
    return (uint64_t)syz_shape_numel(param->shape) * syz_dtype_size(p->dtype);
}

/* Parameters in their order fill one shard after the other; one that is too large for any has a shard of its own. */
static syz_status distribute(plan *p, uint64_t most) {
    if (!(p->shard_of = syz_alloc((size_t)p->params->count, sizeof *p->shard_of))) return syz_error_status();
    int64_t open = -1;
    uint64_t filled = 0;
    for (int64_t i = 0; i < p->params->count; i++) {
        const syz_param *param = &p->params->items[i];
        if (!param->tensor && !p->random)
            return syz_fail(SYZ_EINVAL, "%s/%s.safetensors: \"%s\" has no values yet: initialise or load the model",
                            p->folder, p->name, param->name);
        uint64_t bytes = bytes_of(p, param);
        p->total += bytes;
        if (bytes > most) {
            p->shard_of[i] = p->shards++;
            continue;
        }
        if (open < 0 || bytes > most - filled) {
            open = p->shards++;
            filled = 0;
        }
        filled += bytes;
        p->shard_of[i] = open;
    }
    if (p->shards == 0) p->shards = 1;
    if (p->shards <= SYZ_WEIGHTS_MAX_SHARDS) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "%s: %lld shards of at most %llu bytes, at most %d are supported", p->folder,
                    (long long)p->shards, (unsigned long long)most, SYZ_WEIGHTS_MAX_SHARDS);
}

/* "NAME.safetensors" or "NAME-00002-of-00003.safetensors", to be freed. */
static char *shard_name(const plan *p, int64_t k) {
    if (p->shards == 1) return syz_format("%s.safetensors", p->name);
    return syz_format("%s-%05lld-of-%05lld.safetensors", p->name, (long long)k + 1, (long long)p->shards);
}

/* ---- writing under temporary names ------------------------------------------------------------------------------- */

static syz_tensor *make_values(void *context, int64_t index) {
    plan *p = context;
    const syz_param *param = &p->params->items[p->members[index]];
    if (!p->random) return param->tensor;
    syz_memory_trim(); /* sizes differ from parameter to parameter: what the last one left is of no use */
    syz_tensor *t = syz_params_draw(param, p->random);
    p->done += bytes_of(p, param);
    if (t && p->random->progress) p->random->progress(p->random->context, p->done, p->total);
    return t;
}

static syz_status write_shard(plan *p, int64_t k, syz_weight_plan *weights) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    int64_t count = 0;
    for (int64_t i = 0; i < p->params->count; i++) {
        if (p->shard_of[i] != k) continue;
        weights[count] = (syz_weight_plan){p->params->items[i].name, p->params->items[i].shape, p->dtype};
        p->members[count++] = i;
    }
    char *name = shard_name(p, k), *path = name ? syz_format("%s/%s", p->folder, name) : NULL;
    if (path) p->writers[k] = syz_safetensors_begin(path, weights, count, make_values, p, metadata, 1);
    free(name);
    free(path);
    return syz_error_status();
}

static syz_status write_shards(plan *p) {
    p->writers = syz_alloc((size_t)p->shards, sizeof *p->writers);
    p->members = p->writers ? syz_alloc((size_t)p->params->count, sizeof *p->members) : NULL;
    syz_weight_plan *weights = p->members ? syz_alloc((size_t)p->params->count, sizeof *weights) : NULL;
    for (int64_t k = 0; k < p->shards && weights && !syz_failed(); k++)
        write_shard(p, k, weights);
    free(weights);
    return syz_error_status();
}

static char *index_text(const plan *p) {
    json_t *map = json_object();
    for (int64_t i = 0; i < p->params->count && !syz_failed(); i++) {
        char *name = shard_name(p, p->shard_of[i]);
        if (name && json_object_set_new(map, p->params->items[i].name, json_string(name)) != 0)
            syz_fail(SYZ_ENOMEM, "%s: out of memory", p->folder);
        free(name);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)p->total, "weight_map", map);
    char *text = index && !syz_failed() ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(index);
    if (!text) syz_fail(SYZ_ENOMEM, "%s: out of memory", p->folder);
    return text;
}

static char *index_path(const plan *p) {
    return syz_format("%s/%s.safetensors.index.json", p->folder, p->name);
}

static syz_status write_index(plan *p) {
    char *text = index_text(p), *path = text ? index_path(p) : NULL;
    if (path && (p->index = syz_file_begin(path, strlen(text) + 1))) {
        syz_file_put(p->index, text, strlen(text));
        syz_file_put(p->index, "\n", 1);
        syz_file_finish(p->index);
    }
    free(text);
    free(path);
    return syz_error_status();
}

/* ---- taking the place of an earlier save ------------------------------------------------------------------------- */

static const char *skip_digits(const char *text, int count) {
    while (count > 0 && isdigit((unsigned char)*text)) {
        text++;
        count--;
    }
    return count == 0 ? text : NULL;
}

/* Whether `file` is a name that some save of these weights has: *shards is then the number of its shards (1: a single
 * file), or 0 for an index. */
static bool is_ours(const plan *p, const char *file, int64_t *shards) {
    size_t length = strlen(p->name);
    if (strncmp(file, p->name, length) != 0) return false;
    const char *rest = file + length;
    *shards = strcmp(rest, ".safetensors") == 0;
    if (*shards || strcmp(rest, ".safetensors.index.json") == 0) return true;
    const char *middle = *rest == '-' ? skip_digits(rest + 1, 5) : NULL;
    if (!middle || strncmp(middle, "-of-", 4) != 0) return false;
    const char *end = skip_digits(middle + 4, 5);
    if (!end || strcmp(end, ".safetensors") != 0) return false;
    *shards = strtoll(middle + 4, NULL, 10);
    return true;
}

/* An index goes before the shards that it lists. */
static syz_status remove_index(const plan *p) {
    char *path = index_path(p);
    syz_status status = path ? syz_file_remove(path) : syz_error_status();
    free(path);
    return status;
}

/* Remove what an earlier save has under names that this one does not use. */
static syz_status remove_stale(const plan *p) {
    if (p->shards == 1) SYZ_TRY(remove_index(p));
    DIR *folder = opendir(p->folder);
    if (!folder) return syz_fail(SYZ_EIO, "%s: cannot list the folder", p->folder);
    struct dirent *entry;
    int64_t shards;
    while (!syz_failed() && (entry = readdir(folder))) {
        if (!is_ours(p, entry->d_name, &shards) || shards == 0 || shards == p->shards) continue;
        char *path = syz_format("%s/%s", p->folder, entry->d_name);
        if (path) syz_file_remove(path);
        free(path);
    }
    closedir(folder);
    return syz_error_status();
}

static syz_status publish(plan *p) {
    if (p->index) {
        char *name = shard_name(p, 0), *path = name ? syz_format("%s/%s", p->folder, name) : NULL;
        bool replaces = path && access(path, F_OK) == 0;
        free(name);
        free(path);
        if (syz_failed()) return syz_error_status();
        if (replaces) SYZ_TRY(remove_index(p));
    }
    for (int64_t k = 0; k < p->shards; k++) {
        syz_file_writer *writer = p->writers[k];
        p->writers[k] = NULL;
        SYZ_TRY(syz_file_commit(writer));
    }
    syz_file_writer *index = p->index;
    p->index = NULL;
    if (index) SYZ_TRY(syz_file_commit(index));
    return remove_stale(p);
}

syz_status syz_params_save(const syz_params *params, const char *folder, const char *name, syz_dtype dtype,
                           uint64_t max_shard_bytes, const syz_random_weights *random) {
    if (!syz_is_float(dtype))
        return syz_fail(SYZ_EDTYPE, "%s/%s.safetensors: weights cannot be saved as %s", folder, name,
                        syz_dtype_name(dtype));
    plan p = {.params = params, .folder = folder, .name = name, .dtype = dtype, .random = random};
    syz_status status = distribute(&p, max_shard_bytes);
    if (status == SYZ_OK) status = write_shards(&p);
    if (status == SYZ_OK && p.shards > 1) status = write_index(&p);
    if (status == SYZ_OK) status = publish(&p);
    for (int64_t k = 0; p.writers && k < p.shards; k++)
        syz_file_discard(p.writers[k]);
    syz_file_discard(p.index);
    free(p.writers);
    free(p.members);
    free(p.shard_of);
    return status;
}
