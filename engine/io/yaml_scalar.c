#include "io/yaml_scalar.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static bool one_of(const char *text, const char *const *words) {
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

static const char *skip_digits(const char *text, const char *digits) {
    return text + strspn(text, digits);
}

/* [0-9]+ is an integer; with a point or an exponent, a float. `text` comes after the sign. */
static syz_yaml_kind classify_number(const char *text) {
    const char *digits = "0123456789", *end = skip_digits(text, digits);
    bool whole = end > text, fraction = false;
    if (whole && *end == '\0') return SYZ_YAML_INT;
    if (*end == '.') {
        const char *after = end + 1;
        end = skip_digits(after, digits);
        fraction = end > after;
    }
    if (!whole && !fraction) return SYZ_YAML_STRING;
    if (*end == 'e' || *end == 'E') {
        const char *exponent = end + 1;
        if (*exponent == '+' || *exponent == '-') exponent++;
        end = skip_digits(exponent, digits);
        if (end == exponent) return SYZ_YAML_STRING;
    }
    return *end == '\0' ? SYZ_YAML_FLOAT : SYZ_YAML_STRING;
}

syz_yaml_kind syz_yaml_classify(const char *text) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const infinities[] = {".inf", ".Inf", ".INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    if (one_of(text, nulls)) return SYZ_YAML_NULL;
    if (one_of(text, trues)) return SYZ_YAML_TRUE;
    if (one_of(text, falses)) return SYZ_YAML_FALSE;
    if (one_of(text, nans)) return SYZ_YAML_NOT_FINITE;
    if (text[0] == '0' && text[1] == 'o' && text[2]) {
        return *skip_digits(text + 2, "01234567") ? SYZ_YAML_STRING : SYZ_YAML_OCTAL;
    }
    if (text[0] == '0' && text[1] == 'x' && text[2]) {
        return *skip_digits(text + 2, "0123456789abcdefABCDEF") ? SYZ_YAML_STRING : SYZ_YAML_HEX;
    }
    const char *unsigned_text = text + (*text == '+' || *text == '-');
    if (one_of(unsigned_text, infinities)) return SYZ_YAML_NOT_FINITE;
    return classify_number(unsigned_text);
}
