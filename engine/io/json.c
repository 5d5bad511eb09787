#include "io/json.h"

#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* A text such as [0,0,0,...] grows 24-fold in jansson's memory. While a parse runs, its allocations draw on a budget;
 * at all other times these functions are malloc and free, so that values of a host that uses jansson itself mix freely.
 */
static _Thread_local struct {
    bool active, exhausted;
    size_t left;
} budget;

static void *budget_malloc(size_t size) {
    size_t cost = size < 16 ? 32 : size + 16; /* with the block header and rounding of malloc */
    if (budget.active && (cost > budget.left || budget.exhausted)) {
        budget.exhausted = true;
        return NULL;
    }
    if (budget.active) budget.left -= cost;
    return malloc(size);
}

json_t *syz_json_parse(const char *text, size_t size, const char *name) {
    if (syz_failed()) return NULL;
    json_set_alloc_funcs(budget_malloc, free);
    budget.active = true;
    budget.exhausted = false;
    budget.left = 4 * size + ((size_t)64 << 20);
    json_error_t error = {.line = 0};
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    budget.active = false;
    if (value) return value;
    if (budget.exhausted) {
        return syz_fail_null(SYZ_EFORMAT, "%s: its JSON needs more than 4 times its size in memory", name);
    }
    if (json_error_code(&error) == json_error_out_of_memory) {
        return syz_fail_null(SYZ_ENOMEM, "%s: out of memory while reading JSON", name);
    }
    return syz_fail_null(SYZ_EFORMAT, "%s:%d:%d: not valid JSON: %s", name, error.line, error.column, error.text);
}

json_t *syz_json_load(const char *path) {
    uint8_t *data;
    size_t size;
    if (syz_file_read(&data, &size, path, SYZ_JSON_MAX_BYTES) != SYZ_OK) return NULL;
    json_t *value = syz_json_parse((const char *)data, size, path);
    free(data);
    return value;
}

syz_status syz_json_open(syz_json *json, const char *path) {
    *json = (syz_json){0};
    json_t *value = syz_json_load(path);
    if (!value) return syz_error_status();
    if (!json_is_object(value)) {
        json_decref(value);
        return syz_fail(SYZ_EFORMAT, "%s: must hold a JSON object {...}", path);
    }
    char *name = syz_strdup(path);
    if (!name) {
        json_decref(value);
        return syz_error_status();
    }
    *json = (syz_json){.object = value, .name = name};
    return SYZ_OK;
}

void syz_json_close(syz_json *json) {
    json_decref(json->object);
    free(json->name);
    *json = (syz_json){0};
}

/* The value of a key, NULL if it is missing or null. */
static json_t *lookup(const syz_json *json, const char *key) {
    json_t *value = json_object_get(json->object, key);
    return json_is_null(value) ? NULL : value;
}

bool syz_json_has(const syz_json *json, const char *key) {
    return lookup(json, key) != NULL;
}

syz_status syz_json_require(const syz_json *json, ...) {
    syz_status status = SYZ_OK;
    va_list keys;
    va_start(keys, json);
    for (const char *key; status == SYZ_OK && (key = va_arg(keys, const char *));) {
        if (!lookup(json, key)) status = syz_fail(SYZ_EFORMAT, "%s: \"%s\" is missing", json->name, key);
    }
    va_end(keys);
    return status;
}

static void wrong_type(const syz_json *json, const char *key, const char *expected) {
    syz_fail(SYZ_EFORMAT, "%s: \"%s\" must be %s", json->name, key, expected);
}

int64_t syz_json_int(const syz_json *json, const char *key, int64_t missing) {
    const json_t *value = lookup(json, key);
    if (!value) return missing;
    if (json_is_integer(value)) return json_integer_value(value);
    wrong_type(json, key, "an integer");
    return missing;
}

bool syz_json_bool(const syz_json *json, const char *key, bool missing) {
    const json_t *value = lookup(json, key);
    if (!value) return missing;
    if (json_is_boolean(value)) return json_is_true(value);
    wrong_type(json, key, "true or false");
    return missing;
}

double syz_json_number(const syz_json *json, const char *key, double missing) {
    const json_t *value = lookup(json, key);
    if (!value) return missing;
    if (json_is_number(value)) return json_number_value(value);
    wrong_type(json, key, "a number");
    return missing;
}

const char *syz_json_string(const syz_json *json, const char *key, const char *missing) {
    const json_t *value = lookup(json, key);
    if (!value) return missing;
    if (json_is_string(value)) return json_string_value(value);
    wrong_type(json, key, "a string");
    return missing;
}

int syz_json_ints(const syz_json *json, const char *key, int64_t *values, int max) {
    const json_t *array = lookup(json, key);
    if (!array) return 0;
    if (!json_is_array(array)) {
        wrong_type(json, key, "an array of integers");
        return 0;
    }
    size_t n = json_array_size(array);
    if (n > (size_t)max) {
        syz_fail(SYZ_EFORMAT, "%s: \"%s\" has %zu entries, at most %d are supported", json->name, key, n, max);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value)) {
            wrong_type(json, key, "an array of integers");
            return 0;
        }
        values[i] = json_integer_value(value);
    }
    return (int)n;
}

syz_json syz_json_child(const syz_json *json, const char *key) {
    json_t *value = lookup(json, key);
    if (value && !json_is_object(value)) {
        wrong_type(json, key, "an object");
        value = NULL;
    }
    return (syz_json){.object = value, .name = json->name};
}
