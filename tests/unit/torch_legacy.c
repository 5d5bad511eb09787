/* The stream from before PyTorch 1.6, piece by piece: a legal one, and what is wrong with others. */
#include "check.h"
#include "torch_archive.h"
#include "unit/temporary.h"

#define MAGIC   "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define VERSION "\x80\2M\xe9\3."
#define MACHINE "\x80\2}" TEXT("\x0d", "little_endian") "\x88s."
#define OBJECT  TENSOR(ID("K\6N"), "K\0", "K\6\x85", "K\1\x85")
#define KEYS    "\x80\2]" TEXT("\1", "0") "a."
#define COUNT   "\6\0\0\0\0\0\0\0"
#define VALUES                                                                                                         \
    "\0\0\x80\x3f"                                                                                                     \
    "\0\0\0\x40"                                                                                                       \
    "\0\0\x40\x40"                                                                                                     \
    "\0\0\x80\x40"                                                                                                     \
    "\0\0\xa0\x40"                                                                                                     \
    "\0\0\xc0\x40"

static void a_legal_one(void **state) {
    (void)state;
    static const char stream[] = MAGIC VERSION MACHINE OBJECT KEYS COUNT VALUES;
    syz_weights *weights = syz_weights_open(temporary_file("x.pt", stream, sizeof stream - 1));
    check_ok(weights);
    syz_tensor *t = syz_weights_get(weights, "w");
    check_ok(t);
    assert_memory_equal(syz_data(t), ((float[]){1, 2, 3, 4, 5, 6}), 24);
    syz_weights_close(weights);
}

#define CASE(stream, status, message)                                                                                  \
    { stream, sizeof(stream) - 1, status, message }

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        int status;
        const char *message;
    } cases[] = {
        CASE(MAGIC "\x80\2K\1." MACHINE OBJECT KEYS COUNT VALUES, SYZ_EFORMAT, "x.pt: is not of protocol 1001"),
        CASE(MAGIC VERSION "\x80\2]." OBJECT KEYS COUNT VALUES, SYZ_EFORMAT, "is not of protocol 1001"),
        CASE(MAGIC VERSION "\x80\2}" TEXT("\x0d", "little_endian") "\x89s." OBJECT KEYS COUNT VALUES, SYZ_EUNSUPPORTED,
             "x.pt: its byte order is not little-endian"),
        CASE(MAGIC VERSION MACHINE "\x80\2cos\nsystem\n." KEYS COUNT VALUES, SYZ_EFORMAT,
             "asks for os.system; nothing is executed"),
        CASE(MAGIC VERSION MACHINE OBJECT "\x80\2}." COUNT VALUES, SYZ_EFORMAT, "the list of storages is a dict"),
        CASE(MAGIC VERSION MACHINE OBJECT "\x80\2]K\1a." COUNT VALUES, SYZ_EFORMAT, "the list of storages holds a int"),
        CASE(MAGIC VERSION MACHINE OBJECT "\x80\2](" TEXT("\1", "0") TEXT("\1", "0") "e." COUNT VALUES COUNT VALUES,
             SYZ_EFORMAT, "the list of storages holds one twice"),
        CASE(MAGIC VERSION MACHINE OBJECT "\x80\2].", SYZ_EFORMAT, "x.pt: storage \"0\" is not in the file"),
        CASE(MAGIC VERSION MACHINE OBJECT "\x80\2](" TEXT("\1", "0") TEXT("\1", "1") "e." COUNT VALUES COUNT VALUES,
             SYZ_EFORMAT, "storage number 1 belongs to no tensor"),
        CASE(MAGIC VERSION MACHINE OBJECT KEYS "\5\0\0\0\0\0\0\0" VALUES, SYZ_EFORMAT,
             "storage number 0 has 5 elements, a tensor claims 6"),
        CASE(MAGIC VERSION MACHINE OBJECT KEYS "\6\0\0\0\0\0\0\x40" VALUES, SYZ_EFORMAT, "a tensor claims 6"),
        CASE(MAGIC VERSION MACHINE OBJECT KEYS COUNT VALUES "x", SYZ_EFORMAT, "1 bytes follow the last storage"),
        CASE(MAGIC VERSION MACHINE OBJECT KEYS COUNT, SYZ_EFORMAT, "ends inside storage number 0 (torn download?)"),
        CASE(MAGIC VERSION MACHINE OBJECT KEYS "\6", SYZ_EFORMAT, "ends before storage number 0 (torn download?)"),
        CASE(MAGIC VERSION MACHINE HEAD "}(" TEXT("\1", "a") WHOLE TEXT("\1", "b") REBUILD
             "(" ID("K\5N") "K\0K\5\x85K\1\x85" HOOKS "tRu." KEYS COUNT VALUES,
             SYZ_EFORMAT, "storage \"0\" is named with two sizes"),
        CASE(MAGIC VERSION MACHINE TENSOR("(" STORED FLOATS HERE "K\6(K\1K\1K\1ttQ", "K\0", "K\6\x85", "K\1\x85")
                 KEYS COUNT VALUES,
             SYZ_EFORMAT, "names a view of another storage"),
        CASE(MAGIC VERSION MACHINE TENSOR(ID("\x8a\x08\0\0\0\0\0\0\0\x40"), "K\0", "K\6\x85", "K\1\x85") KEYS
             "\0\0\0\0\0\0\0\x40" VALUES,
             SYZ_EFORMAT, "storage number 0 has 4611686018427387904 elements"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(syz_weights_open(temporary_file("x.pt", cases[i].bytes, cases[i].size)));
        assert_failed(cases[i].status, cases[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {CHECK_TEST(a_legal_one), CHECK_TEST(refused)};
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
