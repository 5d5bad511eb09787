/* JSON files: typed getters, their messages, and what the parser refuses. */
#include "io/json.h"
#include "unit/temporary.h"

static const char *config_path(const char *text) {
    return temporary_file("config.json", text, strlen(text));
}

static void test_getters(void **state) {
    (void)state;
    syz_json config;
    const char *path =
        config_path("{\"layers\": 19, \"eps\": 1e-6, \"theta\": 10000, \"guidance\": true, \"act\": \"gelu\","
                    " \"none\": null, \"axes\": [16, 56, 56], \"rope\": {\"theta\": 2}}");
    assert_int_equal(syz_json_open(&config, path), SYZ_OK);
    assert_int_equal(syz_json_int(&config, "layers", 1), 19);
    assert_int_equal(syz_json_int(&config, "none", 7), 7);
    assert_int_equal(syz_json_int(&config, "absent", 8), 8);
    assert_true(syz_json_number(&config, "eps", 0) == 1e-6);
    assert_true(syz_json_number(&config, "theta", 0) == 10000.0);
    assert_true(syz_json_bool(&config, "guidance", false));
    assert_string_equal(syz_json_string(&config, "act", ""), "gelu");
    assert_null(syz_json_string(&config, "absent", NULL));
    assert_true(syz_json_has(&config, "eps"));
    assert_false(syz_json_has(&config, "none"));
    int64_t axes[4];
    assert_int_equal(syz_json_ints(&config, "axes", axes, 4), 3);
    assert_int_equal(axes[1], 56);
    syz_json rope = syz_json_child(&config, "rope");
    assert_int_equal(syz_json_int(&rope, "theta", 0), 2);
    syz_json absent = syz_json_child(&config, "absent");
    assert_int_equal(syz_json_int(&absent, "theta", 5), 5);
    assert_int_equal(syz_json_require(&config, "layers", "eps", NULL), SYZ_OK);
    assert_int_equal(syz_error_status(), SYZ_OK);
    syz_json_close(&config);
}

/* Each getter names the file, the key and the type it wants. */
static void test_wrong_types(void **state) {
    (void)state;
    syz_json config;
    const char *path = config_path("{\"a\": 1.5, \"b\": \"x\", \"c\": [1, 2.5], \"d\": [1, 2, 3]}");
    assert_int_equal(syz_json_open(&config, path), SYZ_OK);
    int64_t values[2];
    assert_int_equal(syz_json_int(&config, "a", 3), 3);
    assert_failed(SYZ_EFORMAT, "config.json: \"a\" must be an integer");
    assert_false(syz_json_bool(&config, "a", false));
    assert_failed(SYZ_EFORMAT, "\"a\" must be true or false");
    syz_json_number(&config, "b", 0);
    assert_failed(SYZ_EFORMAT, "\"b\" must be a number");
    syz_json_string(&config, "a", NULL);
    assert_failed(SYZ_EFORMAT, "\"a\" must be a string");
    assert_int_equal(syz_json_ints(&config, "a", values, 2), 0);
    assert_failed(SYZ_EFORMAT, "\"a\" must be an array of integers");
    assert_int_equal(syz_json_ints(&config, "c", values, 2), 0);
    assert_failed(SYZ_EFORMAT, "\"c\" must be an array of integers");
    assert_int_equal(syz_json_ints(&config, "d", values, 2), 0);
    assert_failed(SYZ_EFORMAT, "\"d\" has 3 entries, at most 2");
    assert_null(syz_json_child(&config, "b").object);
    assert_failed(SYZ_EFORMAT, "\"b\" must be an object");
    syz_json_require(&config, "a", "absent", NULL);
    assert_failed(SYZ_EFORMAT, "\"absent\" is missing");
    syz_json_close(&config);
}

static void test_malformed(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "config.json:1:0: not valid JSON"},     {"{", "not valid JSON"},
        {"{\"a\": 1} x", "not valid JSON"},          {"{\"a\": 1, \"a\": 2}", "duplicate object key"},
        {"{\"a\": 1\n, \"b\": }", "config.json:2:"}, {"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\": \"\\u0000\"}", "\\u0000"},         {"{\"a\": 99999999999999999999}", "too big integer"},
        {"{\"a\": 1e999}", "real number overflow"},  {"[1]", "must hold a JSON object"},
        {"null", "must hold a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        syz_json config;
        assert_int_not_equal(syz_json_open(&config, config_path(cases[i].text)), SYZ_OK);
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
    static char deep[100000];
    memset(deep, '[', sizeof deep);
    assert_null(syz_json_parse(deep, sizeof deep, "deep.json"));
    assert_failed(SYZ_EFORMAT, "deep.json:1:");
    size_t size = (size_t)16 << 20;
    char *wide = malloc(size);
    for (size_t i = 0; i < size; i += 2)
        memcpy(wide + i, i == 0 ? "[0" : ",0", 2);
    wide[size - 1] = ']';
    wide[size - 2] = ' ';
    assert_null(syz_json_parse(wide, size, "wide.json"));
    assert_failed(SYZ_EFORMAT, "wide.json: its JSON needs more than 4 times its size");
    free(wide);
}

static void test_absent(void **state) {
    (void)state;
    assert_null(syz_json_load(temporary_path("absent.json")));
    assert_failed(SYZ_ENOTFOUND, "absent.json: cannot open");
    assert_null(syz_json_load(temporary_folder()));
    assert_failed(SYZ_EIO, "not a regular file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_absent),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
