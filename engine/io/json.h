/* JSON files with bounds, and typed access whose errors name the file and the key.
 *
 * A getter takes the default when the key is missing or null. When the value has another type it records an error (see
 * core/error.h) and returns the default, so that a configuration is read in one go and checked once at its end:
 *
 *     syz_json config;
 *     SYZ_TRY(syz_json_open(&config, "config.json"));
 *     model->layers = syz_json_int(&config, "num_layers", 19);
 *     model->eps = syz_json_number(&config, "eps", 1e-6);
 *     syz_json_close(&config);
 *     if (syz_failed()) ... */
#ifndef SYZ_IO_JSON_H
#define SYZ_IO_JSON_H

#include "syzygy.h"

#include <jansson.h>

#define SYZ_JSON_MAX_BYTES ((size_t)64 << 20)

/* Parse strictly: UTF-8, no duplicate keys, any value at the top. `name` is the file to blame in the error message.
 * Returns a new reference (json_decref), or NULL. */
json_t *syz_json_parse(const char *text, size_t size, const char *name);
json_t *syz_json_load(const char *path);

/* An object and the file it came from. */
typedef struct {
    json_t *object;
    char *name;
} syz_json;

/* Load a file whose top value must be an object. */
syz_status syz_json_open(syz_json *json, const char *path);
void syz_json_close(syz_json *json);

bool syz_json_has(const syz_json *json, const char *key); /* present and not null */
/* Fail unless every key of the list, which ends with NULL, is present. */
syz_status syz_json_require(const syz_json *json, ...) __attribute__((sentinel));

int64_t syz_json_int(const syz_json *json, const char *key, int64_t missing);
bool syz_json_bool(const syz_json *json, const char *key, bool missing);
double syz_json_number(const syz_json *json, const char *key, double missing);
/* Borrowed until the object is closed. */
const char *syz_json_string(const syz_json *json, const char *key, const char *missing);
/* Copy an array of integers and return its length; 0 if the key is missing. More than `max` is an error. */
int syz_json_ints(const syz_json *json, const char *key, int64_t *values, int max);
/* Borrowed view of a nested object for the same getters; its `object` is NULL if the key is missing. Not closed. */
syz_json syz_json_child(const syz_json *json, const char *key);

#endif
