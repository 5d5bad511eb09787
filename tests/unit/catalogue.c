/* The duties that a line of ops.def brings with it: a well-formed signature, a backward unless it says NOGRAD, a
 * `keeps` mask over tensors that exist, and a test in tests/ops/. Run from the repository's root, as CTest does. */
#include "check.h"

#include <ctype.h>
#include <glob.h>
#include <stdlib.h>

static char *read_all(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = calloc(size + 1, 1);
    size_t got = text ? fread(text, 1, size, file) : 0;
    fclose(file);
    if (got == size) return text;
    free(text);
    return NULL;
}

/* Whether `text` holds syz_<name> as a whole word. */
static bool mentions(const char *text, const char *name) {
    char word[96];
    int length = snprintf(word, sizeof word, "syz_%s", name);
    for (const char *at = text; (at = strstr(at, word)); at += length) {
        unsigned char after = (unsigned char)at[length], before = at > text ? (unsigned char)at[-1] : ' ';
        if (!isalnum(after) && after != '_' && !isalnum(before) && before != '_') return true;
    }
    return false;
}

static void every_operation_has_a_test(void **state) {
    (void)state;
    glob_t files;
    assert_int_equal(glob("tests/ops/*.c", 0, NULL, &files), 0);
    bool tested[SYZ_OP_COUNT] = {0};
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char *text = read_all(files.gl_pathv[i]);
        assert_non_null(text);
        for (int op = 0; op < syz_op_count(); op++)
            tested[op] |= mentions(text, syz_op_name(op));
        free(text);
    }
    globfree(&files);
    int missing = 0;
    for (int op = 0; op < syz_op_count(); op++) {
        if (tested[op]) continue;
        print_error("syz_%s is called by no file in tests/ops/\n", syz_op_name(op));
        missing++;
    }
    assert_int_equal(missing, 0);
}

static void every_operation_has_a_backward(void **state) {
    (void)state;
    for (int op = 0; op < SYZ_OP_COUNT; op++) {
        assert_non_null(syz_ops[op].forward);
        bool differentiable = !(syz_ops[op].flags & SYZ_OP_NO_GRAD);
        if (differentiable != (syz_ops[op].backward != NULL)) fail_msg("%s: backward and NOGRAD", syz_op_name(op));
    }
}

static int count(const char *text, const char *letters) {
    int n = 0;
    for (; *text; text++)
        n += strchr(letters, *text) != NULL;
    return n;
}

/* One C parameter per letter; a list takes two, its elements and their number. */
static void signatures_match_parameters(void **state) {
    (void)state;
    for (int op = 0; op < SYZ_OP_COUNT; op++) {
        const char *signature = syz_op_signature(op);
        if (strlen(signature) != strspn(signature, "TtLibfS")) fail_msg("%s: letters", syz_op_name(op));
        int parameters = (int)strlen(signature) + count(signature, "L");
        if (count(syz_op_params(op), ",") + 1 != parameters) fail_msg("%s: parameters", syz_op_name(op));
        if (count(signature, "ib") > 8 || count(signature, "f") > 4 || count(signature, "S") > 1)
            fail_msg("%s: more numbers than a call holds", syz_op_name(op));
        if (strchr(signature, 'L')) continue;
        if (syz_ops[op].keeps >> count(signature, "Tt") && syz_ops[op].keeps != 0xfff)
            fail_msg("%s keeps an input that it does not have", syz_op_name(op));
    }
}

static void names_are_unique(void **state) {
    (void)state;
    for (int a = 0; a < SYZ_OP_COUNT; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(syz_op_name(a), syz_op_name(b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(every_operation_has_a_test),
        CHECK_TEST(every_operation_has_a_backward),
        CHECK_TEST(signatures_match_parameters),
        CHECK_TEST(names_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
