#include "io/yaml.h"

#include "core/error.h"
#include "io/file.h"
#include "io/json.h"
#include "io/yaml_scalar.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct {
    yaml_parser_t parser;
    const char *name;
} reader;

static json_t *fail_at(const reader *r, const yaml_event_t *event, const char *rule) {
    return syz_fail_null(SYZ_EFORMAT, "%s:%zu:%zu: %s", r->name, event->start_mark.line + 1,
                         event->start_mark.column + 1, rule);
}

static bool next_event(reader *r, yaml_event_t *event) {
    if (yaml_parser_parse(&r->parser, event)) return true;
    if (r->parser.error == YAML_MEMORY_ERROR) {
        syz_fail(SYZ_ENOMEM, "%s: out of memory while reading YAML", r->name);
    } else if (r->parser.error == YAML_READER_ERROR) {
        syz_fail(SYZ_EFORMAT, "%s: byte %zu: not valid YAML: %s", r->name, r->parser.problem_offset, r->parser.problem);
    } else {
        syz_fail(SYZ_EFORMAT, "%s:%zu:%zu: not valid YAML: %s", r->name, r->parser.problem_mark.line + 1,
                 r->parser.problem_mark.column + 1, r->parser.problem);
    }
    return false;
}

/* ---- scalars ----------------------------------------------------------------------------------------------------- */

static json_t *make_integer(const reader *r, const yaml_event_t *event, const char *digits, int base) {
    errno = 0;
    long long value = strtoll(digits, NULL, base);
    if (errno == ERANGE) return fail_at(r, event, "an integer beyond 64 bits");
    return json_integer(value);
}

static json_t *make_plain(const reader *r, const yaml_event_t *event, const char *text) {
    switch (syz_yaml_classify(text)) {
    case SYZ_YAML_NULL:
        return json_null();
    case SYZ_YAML_TRUE:
        return json_true();
    case SYZ_YAML_FALSE:
        return json_false();
    case SYZ_YAML_INT:
        return make_integer(r, event, text, 10);
    case SYZ_YAML_OCTAL:
        return make_integer(r, event, text + 2, 8);
    case SYZ_YAML_HEX:
        return make_integer(r, event, text + 2, 16);
    case SYZ_YAML_FLOAT: {
        double value = strtod(text, NULL);
        return isfinite(value) ? json_real(value) : fail_at(r, event, "a number beyond the range of doubles");
    }
    case SYZ_YAML_NOT_FINITE:
        return fail_at(r, event, "infinity and NaN are not accepted; quote it if it is text");
    case SYZ_YAML_STRING:
        break;
    }
    return json_string(text);
}

/* True if the tag leaves the scalar's type to us (*text false) or asks for text (*text true). */
static bool tag_ok(bool *text, const yaml_event_t *event) {
    const char *tag = (const char *)event->data.scalar.tag;
    *text = tag || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return !tag || strcmp(tag, "!") == 0 || strcmp(tag, YAML_STR_TAG) == 0;
}

/* The scalar's characters, borrowed from the event; NULL with an error if they hold a zero. */
static const char *scalar_text(const reader *r, const yaml_event_t *event) {
    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) == event->data.scalar.length) return text;
    fail_at(r, event, "a zero character in text");
    return NULL;
}

static json_t *read_scalar(const reader *r, const yaml_event_t *event) {
    bool is_text;
    if (!tag_ok(&is_text, event)) return fail_at(r, event, "tags other than !!str are not accepted");
    const char *text = scalar_text(r, event);
    if (!text) return NULL;
    return is_text ? json_string(text) : make_plain(r, event, text);
}

/* ---- collections ------------------------------------------------------------------------------------------------- */

static json_t *read_value(reader *r, const yaml_event_t *event, int depth);

static json_t *read_sequence(reader *r, int depth) {
    json_t *array = json_array();
    for (;;) {
        yaml_event_t event;
        if (!next_event(r, &event)) break;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        json_t *value = end ? NULL : read_value(r, &event, depth);
        yaml_event_delete(&event);
        if (end) return array;
        if (!value || json_array_append_new(array, value) != 0) break;
    }
    json_decref(array);
    return NULL;
}

/* Reads the value of `key` and adds the pair. */
static bool read_pair(reader *r, json_t *object, const yaml_event_t *key, int depth) {
    if (key->type != YAML_SCALAR_EVENT) return fail_at(r, key, "a key must be text") != NULL;
    const char *text = scalar_text(r, key);
    if (!text) return false;
    if (json_object_get(object, text)) {
        syz_fail(SYZ_EFORMAT, "%s:%zu:%zu: duplicate key \"%s\"", r->name, key->start_mark.line + 1,
                 key->start_mark.column + 1, text);
        return false;
    }
    yaml_event_t event;
    if (!next_event(r, &event)) return false;
    json_t *value = read_value(r, &event, depth);
    yaml_event_delete(&event);
    return value && json_object_set_new(object, text, value) == 0;
}

static json_t *read_mapping(reader *r, int depth) {
    json_t *object = json_object();
    for (;;) {
        yaml_event_t event;
        if (!next_event(r, &event)) break;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        bool added = end || read_pair(r, object, &event, depth);
        yaml_event_delete(&event);
        if (end) return object;
        if (!added) break;
    }
    json_decref(object);
    return NULL;
}

/* The value that starts with this event, which the caller deletes. */
static json_t *read_value(reader *r, const yaml_event_t *event, int depth) {
    bool sequence = event->type == YAML_SEQUENCE_START_EVENT;
    if (event->type == YAML_ALIAS_EVENT) return fail_at(r, event, "aliases are not accepted; repeat the value");
    if (event->type == YAML_SCALAR_EVENT) return read_scalar(r, event);
    if (!sequence && event->type != YAML_MAPPING_START_EVENT) return fail_at(r, event, "expected a value");
    if (sequence ? event->data.sequence_start.tag : event->data.mapping_start.tag) {
        return fail_at(r, event, "tags other than !!str are not accepted");
    }
    if (depth == SYZ_YAML_MAX_DEPTH) return fail_at(r, event, "nested deeper than 64 levels");
    return sequence ? read_sequence(r, depth + 1) : read_mapping(r, depth + 1);
}

/* Stream start, one document, stream end. */
static json_t *read_stream(reader *r) {
    json_t *value = NULL;
    for (bool done = false; !done;) {
        yaml_event_t event;
        if (!next_event(r, &event)) break;
        bool failed = false;
        if (event.type == YAML_STREAM_END_EVENT) {
            done = true;
            if (!value) value = json_null();
        } else if (event.type == YAML_DOCUMENT_START_EVENT && value) {
            failed = !fail_at(r, &event, "a second document; only one is read");
        } else if (event.type != YAML_STREAM_START_EVENT && event.type != YAML_DOCUMENT_START_EVENT &&
                   event.type != YAML_DOCUMENT_END_EVENT) {
            value = read_value(r, &event, 0);
            failed = !value;
        }
        yaml_event_delete(&event);
        if (failed) break;
    }
    if (!syz_failed() && value) return value;
    json_decref(value);
    return syz_fail_null(SYZ_ENOMEM, "%s: out of memory while reading YAML", r->name);
}

json_t *syz_yaml_parse(const char *text, size_t size, const char *name) {
    if (syz_failed()) return NULL;
    if (size > SYZ_YAML_MAX_BYTES) {
        return syz_fail_null(SYZ_EFORMAT, "%s: has %zu bytes, YAML of at most %zu is read", name, size,
                             SYZ_YAML_MAX_BYTES);
    }
    reader r = {.name = name};
    if (!yaml_parser_initialize(&r.parser)) return syz_fail_null(SYZ_ENOMEM, "%s: out of memory", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    json_t *value = read_stream(&r);
    yaml_parser_delete(&r.parser);
    return value;
}

json_t *syz_yaml_load(const char *path) {
    uint8_t *data;
    size_t size;
    if (syz_file_read(&data, &size, path, SYZ_YAML_MAX_BYTES) != SYZ_OK) return NULL;
    json_t *value = syz_yaml_parse((const char *)data, size, path);
    free(data);
    return value;
}

/* ---- the public functions, from text to text ----------------------------------------------------------------------
 */

char *syz_yaml_to_json(const char *text, size_t size, const char *name) {
    json_t *value = syz_yaml_parse(text, size, name);
    if (!value) return NULL;
    char *json = json_dumps(value, JSON_ENCODE_ANY);
    json_decref(value);
    return json ? json : syz_fail_null(SYZ_ENOMEM, "%s: out of memory", name);
}

char *syz_yaml_from_json(const char *text, size_t size, const char *name) {
    json_t *value = syz_json_parse(text, size, name);
    if (!value) return NULL;
    char *yaml = syz_yaml_emit(value);
    json_decref(value);
    return yaml;
}
