/* YAML: scalar types against the core schema of YAML 1.2, round trips through the emitter, and what is refused. */
#include "io/yaml.h"
#include "unit/temporary.h"

static char *to_json(const char *text) {
    return syz_yaml_to_json(text, strlen(text), "x.yaml");
}

static void check_json(const char *yaml, const char *expected) {
    char *json = to_json(yaml);
    if (!json) fail_msg("%s: %s", yaml, syz_error_message());
    assert_string_equal(json, expected);
    free(json);
}

static void test_scalars(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "null"},
        {"~", "null"},
        {"Null", "null"},
        {"nULL", "\"nULL\""},
        {"true", "true"},
        {"FALSE", "false"},
        {"yes", "\"yes\""},
        {"on", "\"on\""},
        {"0", "0"},
        {"-12", "-12"},
        {"+7", "7"},
        {"007", "7"},
        {"0x1F", "31"},
        {"0o17", "15"},
        {"0x", "\"0x\""},
        {"0o8", "\"0o8\""},
        {"-0x1", "\"-0x1\""},
        {"1_000", "\"1_000\""},
        {"12:30", "\"12:30\""},
        {"0b1", "\"0b1\""},
        {"1.5", "1.5"},
        {".5", "0.5"},
        {"5.", "5.0"},
        {"-.5e1", "-5.0"},
        {"1e3", "1000.0"},
        {"1e-5", "1.0000000000000001e-5"},
        {"1e", "\"1e\""},
        {".", "\".\""},
        {"+", "\"+\""},
        {"1.2.3", "\"1.2.3\""},
        {"'12'", "\"12\""},
        {"\"true\"", "\"true\""},
        {"!!str 12", "\"12\""},
        {"! 12", "\"12\""},
        {"|\n a\n b\n", "\"a\\nb\\n\""},
        {"2024-01-01", "\"2024-01-01\""},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_json(cases[i][0], cases[i][1]);
}

static void test_collections(void **state) {
    (void)state;
    check_json("a: 1\nb:\n  - x\n  - {c: [2, 3], d: }\n", "{\"a\": 1, \"b\": [\"x\", {\"c\": [2, 3], \"d\": null}]}");
    check_json("5: five\ntrue: yes\n", "{\"5\": \"five\", \"true\": \"yes\"}");
    check_json("---\na: &anchor 1\n...\n", "{\"a\": 1}");
    check_json("[]", "[]");
    check_json("# nothing but a comment\n", "null");
    char deep[129];
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    deep[128] = 0;
    char *json = to_json(deep);
    assert_non_null(json);
    free(json);
}

static void test_malformed(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", "x.yaml:3:1: duplicate key \"a\""},
        {"{a: 1, 'a': 2}", "duplicate key \"a\""},
        {"a: &x 1\nb: *x\n", "x.yaml:2:4: aliases are not accepted"},
        {"a: &x [*x]\n", "aliases are not accepted"},
        {"<<: *x\n", "aliases are not accepted"},
        {"*x : 1\n", "a key must be text"},
        {"[a]: 1\n", "a key must be text"},
        {"a: !!int '3'\n", "tags other than !!str"},
        {"a: !python/object x\n", "tags other than !!str"},
        {"a: !!python/tuple [1]\n", "tags other than !!str"},
        {"a: !!set {x}\n", "tags other than !!str"},
        {"a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document"},
        {"a: .inf", "infinity and NaN are not accepted"},
        {"a: -.Inf", "infinity and NaN are not accepted"},
        {"a: .nan", "infinity and NaN are not accepted"},
        {"a: 1e999", "beyond the range of doubles"},
        {"a: 9223372036854775808", "an integer beyond 64 bits"},
        {"a: 0xFFFFFFFFFFFFFFFFF", "an integer beyond 64 bits"},
        {"a: [1, 2", "not valid YAML"},
        {"a: b: c", "x.yaml:1:5: not valid YAML"},
        {"a:\n\t- b", "not valid YAML"},
        {"a: \xff", "not valid YAML"},
        {"a: \"\\x00\"", "a zero character"},
        {"\"\\0\": 1", "a zero character"},
        {"a: 'open", "not valid YAML"},
        {"%YAML 3.0\n---\na", "not valid YAML"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(to_json(cases[i].text));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
}

/* Sizes and depths that would take a parser without caps minutes. */
static void test_caps(void **state) {
    (void)state;
    size_t size = SYZ_YAML_MAX_BYTES + 1;
    char *big = malloc(size);
    memset(big, '[', size);
    assert_null(syz_yaml_parse(big, size, "big.yaml"));
    assert_failed(SYZ_EFORMAT, "big.yaml: has 1048577 bytes");
    assert_null(syz_yaml_parse(big, size - 1, "deep.yaml"));
    assert_failed(SYZ_EFORMAT, "deep.yaml:1:65: nested deeper than 64 levels");
    memset(big, '{', size);
    assert_null(syz_yaml_parse(big, size - 1, "deep.yaml"));
    assert_failed(SYZ_EFORMAT, "deep.yaml");
    for (size_t i = 0; i + 1 < size; i += 2)
        memcpy(big + i, "- ", 2);
    assert_null(syz_yaml_parse(big, size - 1, "deep.yaml"));
    assert_failed(SYZ_EFORMAT, "nested deeper than 64 levels");
    assert_null(syz_yaml_load(temporary_file("big.yaml", big, size)));
    assert_failed(SYZ_EFORMAT, "big.yaml: has 1048577 bytes, at most 1048576");
    free(big);
}

static void check_round_trip(const char *json) {
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    char *yaml = syz_yaml_emit(value);
    if (!yaml) fail_msg("%s: %s", json, syz_error_message());
    json_t *back = syz_yaml_parse(yaml, strlen(yaml), "back.yaml");
    if (!back) fail_msg("%s: %s", yaml, syz_error_message());
    if (!json_equal(value, back)) fail_msg("%s is written as %s", json, yaml);
    json_decref(back);
    json_decref(value);
    free(yaml);
}

static const char *const tricky_strings[] = {
    "",
    "null",
    "~",
    "true",
    "False",
    "yes",
    "off",
    "12",
    "-1.5",
    "1e3",
    "0x1F",
    ".inf",
    ".NaN",
    "a: b",
    "# c",
    "- x",
    "[1]",
    "{a}",
    "*a",
    "&a",
    "!t",
    "%d",
    "@a",
    "`a",
    " lead",
    "trail ",
    "a #b",
    "a\\nb",
    "\\n",
    "a\\tb",
    "\\u0001",
    "'q'",
    "\\\"q",
    "? x",
    ":",
    "-",
    "---",
    "...",
    "a\\\\b",
    "\\u00e9",
    "\\u2028",
    "\\ufeff",
    "\\ud83d\\ude00",
    "x: ",
    "|",
    ">",
    "\\u0085",
    "\\u007f",
    "\\r\\n",
    "two\\n\\n lines\\n ",
    "12:30",
    "=",
    "<<",
};

static const char *const tricky_values[] = {
    "0.1",
    "1e-5",
    "1e300",
    "5e-324",
    "-0.0",
    "1.0",
    "123456789.125",
    "0.30000000000000004",
    "9007199254740993",
    "-9223372036854775808",
    "[]",
    "{}",
    "[[], {}, [[1, 2.5]], null, true, false]",
    "{\"a\": {\"b\": {}, \"c\": []}, \"d\": [{\"e\": 1}, [2, [3]]]}",
};

static void test_round_trips(void **state) {
    (void)state;
    char json[256];
    for (size_t i = 0; i < sizeof tricky_strings / sizeof *tricky_strings; i++) {
        snprintf(json, sizeof json, "\"%s\"", tricky_strings[i]);
        check_round_trip(json);
        snprintf(json, sizeof json, "{\"k\": \"%s\", \"%s\": [\"%s\", {\"x\": \"%s\"}]}", tricky_strings[i],
                 tricky_strings[i], tricky_strings[i], tricky_strings[i]);
        check_round_trip(json);
    }
    for (size_t i = 0; i < sizeof tricky_values / sizeof *tricky_values; i++)
        check_round_trip(tricky_values[i]);
}

/* A configuration reads like one a person wrote, and keeps its order. */
static void test_style(void **state) {
    (void)state;
    const char *json = "{\"recipe\": \"srpo\", \"lr\": 1e-5, \"window\": [5, 25], \"words\": [\"3D render\", \"no\"],"
                       " \"eval\": {\"every\": 5, \"none\": null}, \"empty\": {}}";
    char *yaml = syz_yaml_from_json(json, strlen(json), "x.json");
    assert_non_null(yaml);
    assert_string_equal(yaml, "recipe: srpo\nlr: 1.0e-05\nwindow: [5, 25]\nwords:\n- 3D render\n- 'no'\neval:\n"
                              "  every: 5\n  none: null\nempty: {}\n");
    free(yaml);
    assert_null(syz_yaml_from_json("{", 1, "x.json"));
    assert_failed(SYZ_EFORMAT, "x.json:1:");
    char deep[130];
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    assert_null(syz_yaml_from_json(deep, 130, "deep.json"));
    assert_failed(SYZ_EINVAL, "nested deeper than 64 levels");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars), cmocka_unit_test(test_collections), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_caps),    cmocka_unit_test(test_round_trips), cmocka_unit_test(test_style),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
