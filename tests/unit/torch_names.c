/* The names that tensors of a saved object get: wrapping levels and trainers' state are undone, nothing else is. */
#include "check.h"
#include "torch_archive.h"
#include "unit/temporary.h"

/* The names in an object, sorted, each followed by a blank. */
static const char *names_of(const void *pickle, size_t size) {
    static uint8_t image[1 << 14];
    static char text[1024];
    size_t rows[2];
    const archive_entry entries[] = {{"x/data.pkl", pickle, size}, {"x/data/0", (const float[6]){0}, 24}};
    size_t length = archive_build(image, rows, entries, 2);
    syz_weights *weights = syz_weights_open(temporary_file("x.pt", image, length));
    check_ok(weights);
    text[0] = '\0';
    for (int64_t i = 0; i < syz_weights_count(weights); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", syz_weights_info(weights, i).name);
    syz_weights_close(weights);
    return text;
}

#define NAMES(object) names_of(HEAD object ".", sizeof(HEAD object ".") - 1)

/* A dictionary of what follows up to its DONE; a key with a tensor. */
#define DICT    "}("
#define DONE    "u"
#define A       TEXT("\1", "a") WHOLE
#define B       TEXT("\1", "b") WHOLE
#define MODULEA TEXT("\x08", "module.a") WHOLE
#define MODULEB TEXT("\x08", "module.b") WHOLE
#define EPOCH   TEXT("\5", "epoch") "K\3"
#define STATE   TEXT("\x0a", "state_dict")
#define PARAMS  TEXT("\6", "params")
#define EMA     TEXT("\x0a", "params_ema")
#define OTHER   TEXT("\6", "visual")
#define OPTIM   TEXT("\x09", "optimizer")

static void plain(void **state) {
    (void)state;
    assert_string_equal(NAMES(DICT DONE), "");
    assert_string_equal(NAMES(DICT A B EPOCH DONE), "a b ");
    assert_string_equal(NAMES(DICT A OTHER DICT B DONE DONE), "a visual.b ");
    assert_string_equal(NAMES(DICT OTHER DICT A B DONE DONE), "visual.a visual.b ");
    assert_string_equal(NAMES("](" WHOLE WHOLE "e"), "0 1 ");
    assert_string_equal(NAMES(DICT "K\7" WHOLE "\x89" WHOLE DONE), "7 bool ");
}

static void wrapped(void **state) {
    (void)state;
    assert_string_equal(NAMES(DICT EPOCH STATE DICT A B DONE DONE), "a b ");
    assert_string_equal(NAMES(DICT EMA DICT A DONE PARAMS DICT DONE DONE), "a ");
    assert_string_equal(NAMES(DICT PARAMS DICT A DONE EMA DICT A DONE DONE), "params.a params_ema.a ");
    assert_string_equal(NAMES(DICT STATE DICT A DONE B DONE), "b state_dict.a ");
    assert_string_equal(NAMES(DICT STATE DICT A OTHER DICT B DONE DONE DONE), "a visual.b ");
    assert_string_equal(NAMES(DICT STATE DICT STATE DICT A DONE DONE DONE), "state_dict.a "); /* one level only */
    assert_string_equal(NAMES(DICT STATE WHOLE DONE), "state_dict ");
}

static void of_a_trainer(void **state) {
    (void)state;
    assert_string_equal(NAMES(DICT STATE DICT A DONE OPTIM DICT B DONE DONE), "a ");
    assert_string_equal(NAMES(DICT STATE DICT A DONE OPTIM WHOLE DONE), "a ");
    assert_string_equal(NAMES(DICT STATE DICT A OPTIM DICT B DONE DONE DONE), "a optimizer.b ");
    assert_string_equal(NAMES(DICT A OPTIM DICT B DONE DONE),
                        "a optimizer.b "); /* without weights beside it, it is one */
}

static void of_data_parallel(void **state) {
    (void)state;
    assert_string_equal(NAMES(DICT MODULEA MODULEB DONE), "a b ");
    assert_string_equal(NAMES(DICT MODULEA B DONE), "b module.a ");
    assert_string_equal(NAMES(DICT STATE DICT MODULEA MODULEB DONE EPOCH DONE), "a b ");
    assert_string_equal(NAMES(DICT TEXT("\6", "module") DICT MODULEA DONE DONE), "a ");
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(plain), CHECK_TEST(wrapped), CHECK_TEST(of_a_trainer),
                                       CHECK_TEST(of_data_parallel)};
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
