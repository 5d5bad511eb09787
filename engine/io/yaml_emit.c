#include "core/alloc.h"
#include "core/error.h"
#include "io/yaml.h"
#include "io/yaml_scalar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

typedef struct {
    yaml_emitter_t emitter;
    char *text;
    size_t size, capacity;
} writer;

static int append(void *data, unsigned char *bytes, size_t count) {
    writer *w = data;
    if (count >= w->capacity - w->size) {
        size_t capacity = 2 * w->capacity + count + 1;
        char *text = realloc(w->text, capacity);
        if (!text) return 0;
        w->text = text;
        w->capacity = capacity;
    }
    memcpy(w->text + w->size, bytes, count);
    w->size += count;
    w->text[w->size] = '\0';
    return 1;
}

static bool emit_scalar(writer *w, const char *text, size_t length, yaml_scalar_style_t style) {
    yaml_event_t event;
    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)length, 1, 1, style) &&
           yaml_emitter_emit(&w->emitter, &event);
}

/* Words that older readers (YAML 1.1) take for booleans. */
static bool reads_as_boolean_elsewhere(const char *text) {
    static const char *const words[] = {"y", "n", "yes", "no", "on", "off"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0) return true;
    return false;
}

/* Quoted where plain text would read back as another type; double quotes escape what has no other spelling. */
static bool emit_string(writer *w, const char *text, size_t length) {
    yaml_scalar_style_t style = YAML_PLAIN_SCALAR_STYLE;
    if (syz_yaml_classify(text) != SYZ_YAML_STRING || reads_as_boolean_elsewhere(text)) {
        style = YAML_SINGLE_QUOTED_SCALAR_STYLE;
    }
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] >= 0x7f) style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    return emit_scalar(w, text, length, style);
}

/* The shortest digits that read back equal, with a point, without which older readers take 1e-05 for text. */
static bool emit_real(writer *w, double value) {
    char digits[40], text[48];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    size_t mantissa = strcspn(digits, "e");
    const char *point = memchr(digits, '.', mantissa) ? "" : ".0";
    int length = snprintf(text, sizeof text, "%.*s%s%s", (int)mantissa, digits, point, digits + mantissa);
    return emit_scalar(w, text, (size_t)length, YAML_PLAIN_SCALAR_STYLE);
}

static bool emit_integer(writer *w, json_int_t value) {
    char text[32];
    int length = snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, value);
    return emit_scalar(w, text, (size_t)length, YAML_PLAIN_SCALAR_STYLE);
}

static bool emit_value(writer *w, const json_t *value, int depth);

/* [5, 25] on one line, as a person would write it. */
static bool is_short_list(const json_t *array) {
    size_t n = json_array_size(array);
    if (n > 16) return false;
    for (size_t i = 0; i < n; i++)
        if (!json_is_number(json_array_get(array, i))) return false;
    return true;
}

static bool emit_array(writer *w, const json_t *array, int depth) {
    yaml_event_t event;
    yaml_sequence_style_t style = is_short_list(array) ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE;
    bool ok =
        yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, style) && yaml_emitter_emit(&w->emitter, &event);
    for (size_t i = 0; ok && i < json_array_size(array); i++)
        ok = emit_value(w, json_array_get(array, i), depth);
    return ok && yaml_sequence_end_event_initialize(&event) && yaml_emitter_emit(&w->emitter, &event);
}

static bool emit_object(writer *w, const json_t *object, int depth) {
    yaml_event_t event;
    yaml_mapping_style_t style = json_object_size(object) ? YAML_BLOCK_MAPPING_STYLE : YAML_FLOW_MAPPING_STYLE;
    bool ok =
        yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, style) && yaml_emitter_emit(&w->emitter, &event);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        ok = ok && emit_string(w, key, strlen(key)) && emit_value(w, value, depth);
    }
    return ok && yaml_mapping_end_event_initialize(&event) && yaml_emitter_emit(&w->emitter, &event);
}

static bool emit_value(writer *w, const json_t *value, int depth) {
    bool nested = json_is_array(value) || json_is_object(value);
    if (nested && depth == SYZ_YAML_MAX_DEPTH) {
        syz_fail(SYZ_EINVAL, "YAML: the value is nested deeper than %d levels", SYZ_YAML_MAX_DEPTH);
        return false;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return emit_object(w, value, depth + 1);
    case JSON_ARRAY:
        return emit_array(w, value, depth + 1);
    case JSON_STRING:
        return emit_string(w, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return emit_integer(w, json_integer_value(value));
    case JSON_REAL:
        return emit_real(w, json_real_value(value));
    case JSON_TRUE:
        return emit_scalar(w, "true", 4, YAML_PLAIN_SCALAR_STYLE);
    case JSON_FALSE:
        return emit_scalar(w, "false", 5, YAML_PLAIN_SCALAR_STYLE);
    case JSON_NULL:
        return emit_scalar(w, "null", 4, YAML_PLAIN_SCALAR_STYLE);
    }
    return false;
}

static bool emit_document(writer *w, const json_t *value) {
    yaml_event_t event;
    yaml_emitter_set_output(&w->emitter, append, w);
    yaml_emitter_set_unicode(&w->emitter, 1);
    yaml_emitter_set_width(&w->emitter, -1);
    return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) && yaml_emitter_emit(&w->emitter, &event) &&
           yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
           yaml_emitter_emit(&w->emitter, &event) && emit_value(w, value, 0) &&
           yaml_document_end_event_initialize(&event, 1) && yaml_emitter_emit(&w->emitter, &event) &&
           yaml_stream_end_event_initialize(&event) && yaml_emitter_emit(&w->emitter, &event);
}

char *syz_yaml_emit(const json_t *value) {
    if (syz_failed()) return NULL;
    writer w = {.text = NULL};
    bool done = yaml_emitter_initialize(&w.emitter) && emit_document(&w, value);
    if (!done) syz_fail(SYZ_ENOMEM, "YAML: cannot write: %s", w.emitter.problem ? w.emitter.problem : "out of memory");
    yaml_emitter_delete(&w.emitter);
    if (done) return w.text;
    free(w.text);
    return NULL;
}
