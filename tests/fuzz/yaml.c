/* YAML: what is accepted can be written, and reads back equal. */
#include "io/yaml.h"
#include "fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value = syz_yaml_parse((const char *)data, size, "fuzz");
    fuzz_check_outcome(value);
    if (!value) return 0;
    char *text = syz_yaml_emit(value);
    fuzz_check(text);
    json_t *back = syz_yaml_parse(text, strlen(text), "back");
    /* Escapes may have made it longer than a document may be. */
    fuzz_check(back || strlen(text) > SYZ_YAML_MAX_BYTES);
    if (back) fuzz_check(json_equal(value, back));
    syz_error_clear();
    json_decref(back);
    free(text);
    json_decref(value);
    return 0;
}
