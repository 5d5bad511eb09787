/* Published checkpoints at full size: a file with each one's names and shapes loads, every key used exactly once.
 *
 * The files are sparse: the header is real, the tensors are a hole as large as they are, which costs nothing. */
#include "models/reference.h"
#include "unit/temporary.h"

#include <fcntl.h>
#include <glob.h>
#include <jansson.h>
#include <unistd.h>

enum { MAX_KEYS = 4096 };

typedef struct {
    char name[256];
    syz_shape shape;
} key;

static key keys[MAX_KEYS];
static int key_count;

/* ---- lists ---- */

static void add_keys(const char *name, syz_shape shape) {
    int first, last, after;
    const char *brace = strchr(name, '{');
    if (!brace) {
        assert_true(key_count < MAX_KEYS);
        snprintf(keys[key_count].name, sizeof keys[key_count].name, "%s", name);
        keys[key_count++].shape = shape;
        return;
    }
    assert_int_equal(sscanf(brace, "{%d..%d}%n", &first, &last, &after), 2);
    for (int n = first; n <= last; n++) {
        char text[256];
        snprintf(text, sizeof text, "%.*s%d%s", (int)(brace - name), name, n, brace + after);
        add_keys(text, shape);
    }
}

static void read_list(const char *path) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[512], name[256];
    int at;
    key_count = 0;
    while (fgets(line, sizeof line, file)) {
        syz_shape shape = {0};
        assert_int_equal(sscanf(line, "%255s [%n", name, &at), 1);
        for (char *text = line + at; *text && *text != ']'; text += strspn(text, ", "))
            shape.dim[shape.n++] = strtol(text, &text, 10);
        add_keys(name, shape);
    }
    fclose(file);
    assert_true(key_count > 100);
}

/* ---- files ---- */

static int64_t numbers(syz_shape shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++)
        n *= shape.dim[i];
    return n;
}

static json_t *describe(const key *k, int64_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < k->shape.n; i++)
        json_array_append_new(shape, json_integer(k->shape.dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "BF16", "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + 2 * numbers(k->shape)));
}

/* A bf16 file of the first `count` keys, whose tensors are holes. */
static const char *write_sparse(int count) {
    json_t *header = json_object();
    int64_t end = 0;
    for (int i = 0; i < count; i++) {
        json_object_set_new(header, keys[i].name, describe(&keys[i], end));
        end += 2 * numbers(keys[i].shape);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t length = strlen(text);
    static const char spaces[64] = "                                                               ";
    uint64_t padding = (64 - (sizeof length + length) % 64) % 64, padded = length + padding; /* aligned tensors */
    const char *path = temporary_path("sparse.safetensors");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&padded, sizeof padded, 1, file), 1); /* little-endian, as every machine of the tests is */
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fwrite(spaces, 1, padding, file), padding);
    assert_int_equal(ftruncate(fileno(file), (off_t)(sizeof padded + padded + (uint64_t)end)), 0);
    fclose(file);
    free(text);
    json_decref(header);
    return path;
}

/* ---- checks ---- */

/* lua/syz/published/NAME.json of tests/models/keys/NAME.txt or NAME.LAYOUT.txt; to be freed. `foreign`: with a layout.
 */
static char *published_config(const char *list, bool *foreign) {
    char name[128], path[256];
    snprintf(name, sizeof name, "%s", strrchr(list, '/') + 1);
    *foreign = false;
    for (;;) {
        char *dot = strrchr(name, '.');
        assert_non_null(dot);
        *dot = '\0';
        snprintf(path, sizeof path, "lua/syz/published/%s.json", name);
        if (access(path, F_OK) == 0) break;
        *foreign = true;
    }
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    char *text = json_dumps(config, 0);
    json_decref(config);
    return text;
}

/* Every parameter is a key of the list; that no key is left over, but for those the class ignores, loading has checked.
 */
static void check_names(const syz_model *m) {
    for (int64_t i = 0; i < syz_model_param_count(m); i++) {
        const char *name = syz_model_param_name(m, i);
        int at = 0;
        while (at < key_count && strcmp(keys[at].name, name) != 0)
            at++;
        if (at == key_count) fail_msg("%s: \"%s\" is not in the list", syz_model_class(m), name);
        assert_true(syz_shape_equal(syz_model_param(m, i)->shape, keys[at].shape));
    }
}

static void check_same_shapes(const syz_model *a, const syz_model *b) {
    assert_int_equal(syz_model_param_count(a), syz_model_param_count(b));
    for (int64_t i = 0; i < syz_model_param_count(a); i++) {
        assert_string_equal(syz_model_param_name(a, i), syz_model_param_name(b, i));
        assert_true(syz_shape_equal(syz_model_param(a, i)->shape, syz_model_param(b, i)->shape));
    }
}

static void check_list(const char *list) {
    bool foreign;
    char *config = published_config(list, &foreign);
    syz_model *m, *inferred;
    read_list(list);
    syz_model_load_as(&m, write_sparse(key_count), config, true);
    if (!m) fail_msg("%s: %s", list, syz_error_message());
    if (!foreign) check_names(m);
    if (strstr(list, ".original.") || strstr(list, ".open_clip.")) { /* these tell their configuration themselves */
        syz_model_load_stored(&inferred, temporary_path("sparse.safetensors"));
        check_ok(inferred);
        check_same_shapes(inferred, m);
        syz_model_release(inferred);
    }
    syz_model_release(m);
    syz_model_load_as(&m, write_sparse(key_count - 1), config, true);
    assert_null(m);
    if (!strstr(syz_error_message(), keys[key_count - 1].name))
        fail_msg("\"%s\" does not name %s", syz_error_message(), keys[key_count - 1].name);
    syz_error_clear();
    free(config);
}

static void every_published_checkpoint(void **state) {
    (void)state;
    glob_t lists;
    assert_int_equal(glob("tests/models/keys/*.txt", 0, NULL, &lists), 0);
    assert_true(lists.gl_pathc >= 9);
    for (size_t i = 0; i < lists.gl_pathc; i++)
        check_list(lists.gl_pathv[i]);
    globfree(&lists);
}

static json_t *inferred_config(const char *list) {
    syz_model *m;
    read_list(list);
    syz_model_load_stored(&m, write_sparse(key_count));
    check_ok(m);
    json_t *config = json_loads(syz_model_config(m), 0, NULL);
    assert_non_null(config);
    syz_model_release(m);
    return config;
}

/* What the original files do not say in their shapes is as published. */
static void inferred_configurations(void **state) {
    (void)state;
    json_t *config = inferred_config("tests/models/keys/flux.1-vae.original.txt");
    assert_float_equal(json_real_value(json_object_get(config, "scaling_factor")), 0.3611, 1e-12);
    assert_float_equal(json_real_value(json_object_get(config, "shift_factor")), 0.1159, 1e-12);
    assert_int_equal(json_integer_value(json_object_get(config, "norm_num_groups")), 32);
    json_decref(config);
    config = inferred_config("tests/models/keys/flux.1-schnell.original.txt");
    assert_true(json_is_false(json_object_get(config, "guidance_embeds")));
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(every_published_checkpoint),
        CHECK_TEST(inferred_configurations),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
