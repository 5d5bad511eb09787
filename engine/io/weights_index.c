/* Sharded weights: an index, JSON with a "weight_map" from tensor names to the files beside it that hold them. */
#include "core/alloc.h"
#include "core/error.h"
#include "io/json.h"
#include "io/weights.h"

#include <stdlib.h>
#include <string.h>

/* The ending that shards of this index have. */
static const char *shard_ending(const char *index) {
    return syz_weights_ends_with(index, ".bin.index.json") ? ".bin" : ".safetensors";
}

/* A shard is a plain file name in the index's own folder. */
static bool shard_name_ok(const char *name, const char *ending) {
    return syz_weights_ends_with(name, ending) && strlen(name) <= 255 && name[0] != '.' && !strchr(name, '/');
}

static syz_status take_entry(syz_weights *weights, const syz_weight_entry *from) {
    syz_weight_entry *to = syz_weights_add(weights, from->file);
    *to = *from;
    to->name = syz_strdup(from->name);
    return to->name ? SYZ_OK : syz_error_status();
}

/* Move the tensors that the index places in this shard out of the shard's own object. */
static syz_status take_shard(syz_weights *weights, json_t *map, const char *shard_name) {
    const char *slash = strrchr(weights->path, '/');
    int folder = slash ? (int)(slash - weights->path) + 1 : 0;
    char *path = syz_format("%.*s%s", folder, weights->path, shard_name);
    syz_weights *shard = path ? syz_weights_open_file(path, true) : NULL;
    syz_status status = shard ? SYZ_OK : syz_error_status();
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        if (status != SYZ_OK || strcmp(json_string_value(value), shard_name) != 0) continue;
        int64_t i = syz_weights_find(shard, name);
        if (i < 0) {
            status = syz_fail(SYZ_EFORMAT, "%s: places tensor \"%.200s\" in %s, which lacks it", weights->path, name,
                              shard_name);
        } else {
            status = take_entry(weights, &shard->entries[i]);
        }
    }
    syz_weights_close(shard);
    free(path);
    return status;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of the map, sorted; borrowed from it, the array is the caller's. */
static const char **shard_names(size_t *count, json_t *map, const char *path) {
    const char **names = syz_alloc(json_object_size(map), sizeof *names);
    if (!names) return NULL;
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        const char *name = json_string_value(value);
        if (!name || !shard_name_ok(name, shard_ending(path))) {
            syz_fail(SYZ_EFORMAT, "%s: weight_map \"%.200s\" must name a %s file in the same folder", path, key,
                     shard_ending(path));
            free(names);
            return NULL;
        }
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, by_text);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[(*count)++] = names[i];
    if (*count <= SYZ_WEIGHTS_MAX_SHARDS) return names;
    free(names);
    return syz_fail_null(SYZ_EFORMAT, "%s: %zu shards, at most %d are supported", path, *count, SYZ_WEIGHTS_MAX_SHARDS);
}

syz_status syz_weights_read_index(syz_weights *weights, json_t *index) {
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) return syz_fail(SYZ_EFORMAT, "%s: \"weight_map\" must be an object", weights->path);
    SYZ_TRY(syz_weights_reserve(weights, json_object_size(map)));
    size_t shards;
    const char **names = shard_names(&shards, map, weights->path);
    if (!names) return syz_error_status();
    syz_status status = SYZ_OK;
    for (size_t i = 0; i < shards && status == SYZ_OK; i++)
        status = take_shard(weights, map, names[i]);
    free(names);
    weights->metadata = json_incref(json_object_get(index, "metadata"));
    if (status == SYZ_OK) syz_weights_sort(weights);
    return status;
}
