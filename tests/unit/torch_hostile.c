/* Pickles and archives that want something else than to hold weights: each is refused by one line that says what it
 * wanted, and nothing happens. */
#include "check.h"
#include "io/torch_pickle.h"
#include "torch_archive.h"
#include "unit/temporary.h"

enum { ENTRIES = 3 };

static uint8_t image[1 << 16];
static size_t rows[16];

/* An archive with this pickle and one storage of six floats, as a file. */
static const char *archive(const void *pickle, size_t size) {
    static const float values[] = {1, 2, 3, 4, 5, 6};
    const archive_entry entries[ENTRIES] = {
        {"x/data.pkl", pickle, size}, {"x/data/0", values, sizeof values}, {"x/version", "3\n", 2}};
    size_t length = archive_build(image, rows, entries, ENTRIES);
    return temporary_file("x.pt", image, length);
}

#define ARCHIVE(pickle) archive(pickle, sizeof(pickle) - 1)

static void a_legal_one(void **state) {
    (void)state;
    syz_weights *weights = syz_weights_open(ARCHIVE(TENSOR(ID("K\6"), "K\0", "K\2K\3\x86", "K\1K\2\x86")));
    check_ok(weights);
    syz_tensor *t = syz_weights_get(weights, "w");
    check_ok(t);
    assert_memory_equal(syz_data(t), ((float[]){1, 3, 5, 2, 4, 6}), 24);
    syz_weights_close(weights);
}

#define REFUSED "; nothing is executed and the file is refused"
#define CASE(pickle, message)                                                                                          \
    { pickle, sizeof(pickle) - 1, message }

typedef struct {
    const char *pickle;
    size_t size;
    const char *message;
} hostile;

static void check_refused(const hostile *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        assert_null(syz_weights_open(archive(cases[i].pickle, cases[i].size)));
        if (strchr(syz_error_message(), '\n')) fail_msg("case %zu: more than one line", i);
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
}

/* Names that are asked for, in each of the ways that a pickle has. */
static void names(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE("\x80\x02"
             "cos\nsystem\nX\2\0\0\0id\x85R.",
             "x.pt: pickle opcode GLOBAL at byte 2 asks for os.system" REFUSED),
        CASE("\x80\x02"
             "cposix\nsystem\n" TEXT("\2", "id") "\x85R.",
             "asks for posix.system" REFUSED),
        CASE("\x80\x02"
             "cnt\nsystem\n" TEXT("\2", "id") "\x85R.",
             "asks for nt.system" REFUSED),
        CASE("\x80\x02"
             "c__builtin__\neval\n" TEXT("\1", "1") "\x85R.",
             "asks for __builtin__.eval" REFUSED),
        CASE("\x80\x04\x8c\x08"
             "builtins\x8c\x04"
             "eval\x93\x8c\1"
             "1\x85R.",
             "opcode STACK_GLOBAL at byte 18 asks for builtins.eval" REFUSED),
        CASE("\x80\x04\x8c\x08"
             "builtins\x8c\x07"
             "getattr\x93.",
             "asks for builtins.getattr" REFUSED),
        CASE("\x80\x02"
             "csubprocess\nPopen\n.",
             "asks for subprocess.Popen" REFUSED),
        CASE("\x80\x02(ios\nsystem\n.", "opcode INST at byte 3 asks for os.system" REFUSED),
        CASE("\x80\x02"
             "ctorch\nload\n.",
             "asks for torch.load" REFUSED),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2.evil\n.",
             "asks for torch._utils._rebuild_tensor_v2.evil"),
        CASE("\x80\x02"
             "ccollections\nOrderedDict\x1b[2J\n.",
             "asks for collections.OrderedDict?[2J"),
        CASE("\x80\x02"
             "ctorch.jit._pickle\nrestore_type_tag\n.",
             "asks for torch.jit._pickle.restore_type_tag"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
}

/* Known names in places where they mean nothing. */
static void calls(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE("\x80\x02"
             "ctorch\nDoubleStorage\n)\x81.",
             "opcode NEWOBJ at byte 24 makes a new torch.DoubleStorage"),
        CASE("\x80\x02"
             "ctorch\nfloat32\n)R.",
             "opcode REDUCE at byte 18 calls torch.float32"),
        CASE("\x80\x02K\1)R.", "calls a int with a tuple"),
        CASE("\x80\x02"
             "ctorch\nSize\nK\1R.",
             "calls a name with a int"),
        CASE("\x80\x04K\1K\2\x93.", "takes a int and a int for a name"),
        CASE("\x80\x02"
             "ctorch\nSize\nK\1\x85R.",
             "calls Size with unknown arguments"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_parameter\nK\1\x85R.",
             "calls _rebuild_parameter with unknown arguments"),
        CASE("\x80\x02"
             "ccollections\nOrderedDict\n]K\1a\x85R.",
             "makes an OrderedDict of something else than pairs"),
        CASE("\x80\x02"
             "ccollections\nOrderedDict\n}b.",
             "opcode BUILD at byte 28 sets the state of a name" REFUSED),
        CASE("\x80\x02K\1}b.", "sets the state of a int"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
}

/* What the machine itself refuses. */
static void opcodes(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE("", "the pickle ends early"),
        CASE("\x80\x02", "the pickle ends early"),
        CASE("\x80\x06}.", "opcode PROTO at byte 0 announces protocol 6, at most 5 is known"),
        CASE("\x80\x02I1\n.", "opcode 0x49 at byte 2 is not one that weights need" REFUSED),
        CASE("\x80\x02(o.", "opcode OBJ at byte 3 is not one"),
        CASE("\x80\x02Pos\n.", "opcode PERSID at byte 2 is not one"),
        CASE("\x80\x02\x82\1.", "opcode EXT1 at byte 2 is not one"),
        CASE("\x80\x02}2.", "opcode DUP at byte 3 is not one"),
        CASE("\x80\x04}})\x92.", "opcode NEWOBJ_EX at byte 5 is not one"),
        CASE("\x80\x02.", "opcode STOP at byte 2 finds nothing on the stack"),
        CASE("\x80\x02(.", "finds nothing on the stack"),
        CASE("\x80\x02}}.", "leaves 1 values on the stack"),
        CASE("\x80\x02t.", "opcode TUPLE at byte 2 finds no mark"),
        CASE("\x80\x02K\1(\x86.", "opcode TUPLE2 at byte 5 finds nothing"),
        CASE("\x80\x02K\1K\1"
             "a.",
             "opcode APPEND at byte 6 adds to a int"),
        CASE("\x80\x02}K\1K\1"
             "a.",
             "opcode APPEND at byte 7 adds to a int"),
        CASE("\x80\x02}(K\1u.", "opcode SETITEMS at byte 6 has a key without a value"),
        CASE("\x80\x02q\0.", "opcode BINPUT at byte 2 finds nothing"),
        CASE("\x80\x02h\0.", "opcode BINGET at byte 2 asks for place 0, where nothing was put"),
        CASE("\x80\x02}q\5h\4.", "asks for place 4, where nothing was put"),
        CASE("\x80\x02}r\xff\xff\xff\x0f.", "needs more than the 64 MiB of memory"),
        CASE("\x80\x02}r\xff\xff\xff\xff.", "names place 4294967295"),
        CASE("\x80\x02X\xff\xff\xff\xff.", "the pickle ends early"),
        CASE("\x80\x02\x8d\0\0\0\0\1\0\0\0.", "has a string of 4294967296 bytes"),
        CASE("\x80\x02\x8b\xff\xff\xff\xff.", "the pickle ends early"),
        CASE("\x80\x02"
             "cos\nsystem",
             "the pickle ends early"),
        CASE("\x80\x02K\1.", "x.pt: holds a int, not weights"),
        CASE("\x80\x04\x8f(K\1\x90.", "x.pt: holds a object, not weights"),
        CASE("\x80\x02)]}N.", "leaves 3 values on the stack"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
}

/* Persistent ids name storages and nothing else. */
static void persistent_ids(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE("\x80\x02K\1Q.", "opcode BINPERSID at byte 4 names something else than a storage of a known type"),
        CASE("\x80\x02)Q.", "names something else"),
        CASE("\x80\x02(" TEXT("\6", "module") FLOATS HERE "K\6tQ.", "names something else"),
        CASE("\x80\x02(" STORED "ctorch\nSize\n" HERE "K\6tQ.", "names something else"),
        CASE("\x80\x02(" STORED FLOATS "K\0" TEXT("\3", "cpu") "K\6tQ.", "names something else"),
        CASE("\x80\x02(" STORED FLOATS HERE "J\xff\xff\xff\xfftQ.", "names something else"),
        CASE("\x80\x02(" STORED FLOATS HERE "K\6(K\1K\1K\1ttQ.", "names a view of another storage"),
        CASE("\x80\x02(" STORED "ctorch\nQInt8Storage\n" HERE "K\6tQ.", "asks for torch.QInt8Storage"),
        CASE(TENSOR("(" STORED FLOATS TEXT("\1", "7") TEXT("\3", "cpu") "K\6tQ", "K\0", "K\6\x85", "K\1\x85"),
             "x.pt: tensor \"w\": its storage \"7\" is not in the file"),
        CASE(TENSOR("(" STORED FLOATS TEXT("\x0b", "../data.pkl") TEXT("\3", "cpu") "K\6tQ", "K\0", "K\6\x85",
                    "K\1\x85"),
             "its storage \"../data.pkl\" is not in the file"),
        CASE(TENSOR("(" STORED "ctorch.storage\nUntypedStorage\n" HERE "K\x18tQ", "K\0", "K\6\x85", "K\1\x85"),
             "tensor \"w\": its storage has no type"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
}

/* A tensor never reaches beyond its storage, nor a storage beyond its bytes. */
static void tensors(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE(TENSOR(ID("K\7"), "K\0", "K\7\x85", "K\1\x85"),
             "x.pt: tensor \"w\": its storage claims 7 elements of 4 bytes, the file holds 24 bytes"),
        CASE(TENSOR(ID("K\5"), "K\0", "K\5\x85", "K\1\x85"), "claims 5 elements of 4 bytes, the file holds 24"),
        CASE(TENSOR(ID("\x8a\x08\6\0\0\0\0\0\0\x40"), "K\0", "K\6\x85", "K\1\x85"), "its storage claims"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\7\x85", "K\1\x85"),
             "shape [7] from element 0 on needs more than the 6 elements of its storage"),
        CASE(TENSOR(ID("K\6"), "K\1", "K\6\x85", "K\1\x85"), "shape [6] from element 1 on needs more"),
        CASE(TENSOR(ID("K\6"), "K\6", ")", ")"), "shape [] from element 6 on needs more"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\2K\2\x86", "K\5K\1\x86"), "needs more than the 6 elements"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\7\x85", "K\0\x85"), "needs more than the 6 elements"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\2\x85", "\x8a\x08\0\0\0\0\0\0\0\x40\x85"), "needs more than the 6 elements"),
        CASE(TENSOR(ID("K\6"), "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\2\x85", "K\1\x85"), "needs more than"),
        CASE(TENSOR(ID("K\6"), "K\0", "\x8a\x08\0\0\0\0\1\0\0\0\x8a\x08\0\0\0\0\1\0\0\0\x86", "K\0K\0\x86"),
             "shape [4294967296,4294967296] from element 0 on needs more"),
        CASE(TENSOR(ID("K\6"), "J\xff\xff\xff\xff", "K\2\x85", "K\1\x85"), "a negative offset"),
        CASE(TENSOR(ID("K\6"), "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"), "shape[0] must be an integer of at least 0"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\2\x85", "J\xff\xff\xff\xff\x85"),
             "stride[0] must be an integer of at least 0"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\2\x85", "N\x85"), "stride[0] must be an integer of at least 0"),
        CASE(TENSOR(ID("K\6"), "K\0", "K\2\x85", ")"), "shape and stride differ in length"),
        CASE(TENSOR(ID("K\6"), "K\0", "(K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1t"), "7 dimensions, at most 6"),
        CASE(TENSOR("N", "K\0", "K\2\x85", "K\1\x85"),
             "opcode REDUCE at byte 81 calls _rebuild_tensor_v2 with unknown"),
        CASE(TENSOR(ID("K\6"), "N", "K\2\x85", "K\1\x85"), "calls _rebuild_tensor_v2 with unknown arguments"),
        CASE(HEAD KEY "ctorch._utils\n_rebuild_tensor_v3\n(" ID("K\6") "K\0K\6\x85K\1\x85" HOOKS "N" END,
             "calls _rebuild_tensor_v3 with unknown arguments"),
        CASE(HEAD REBUILD "(" ID("K\6") "K\0K\6\x85K\1\x85" HOOKS "tR.", "holds one tensor without a name"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
}

/* ---- names of tensors -------------------------------------------------------------------------------------------- */

static void tensor_names(void **state) {
    (void)state;
    static const hostile cases[] = {
        CASE(HEAD "}(" TEXT("\3", "a.b") WHOLE "q\1" TEXT("\1", "a") "}" TEXT("\1", "b") "h\1su.",
             "x.pt: two tensors are named \"a.b\""),
        CASE(HEAD "}(" TEXT("\1", "a") WHOLE TEXT("\1", "a") WHOLE "u.", "two tensors are named \"a\""),
        CASE(HEAD "}X\2\0\0\0\xff\xfe" WHOLE "s.", "the name is not UTF-8 text"),
        CASE(HEAD "}" TEXT("\1", "a") "}X\3\0\0\0x\0y" WHOLE "ss.", "x.pt: tensor \"a...\": a zero byte in the name"),
        CASE(HEAD "}X\0\0\0\0" WHOLE "s.", "holds one tensor without a name"),
    };
    check_refused(cases, sizeof cases / sizeof *cases);
    static char name[2048] = HEAD "}X\xb0\4\0\0";
    memset(name + 8, 'n', 1200);
    memcpy(name + 1208, WHOLE "s.", sizeof WHOLE "s.");
    assert_null(syz_weights_open(archive(name, 1208 + sizeof WHOLE "s." - 1)));
    assert_failed(SYZ_EFORMAT, "name longer than 1024 bytes");
}

/* Small pickles that stand for a lot: nested, contained in themselves, doubled at every level. */
static void bombs(void **state) {
    (void)state;
    static char pickle[1 << 15];
    size_t at = 0;
    for (int i = 0; i < 1000; i++)
        pickle[at++] = ']';
    for (int i = 0; i < 999; i++)
        pickle[at++] = 'a';
    pickle[at++] = '.';
    assert_null(syz_weights_open(archive(pickle, at)));
    assert_failed(SYZ_EFORMAT, "x.pt: nested deeper than 32 levels");

    assert_null(syz_weights_open(ARCHIVE("\x80\x02]q\0h\0a.")));
    assert_failed(SYZ_EFORMAT, "nested deeper than 32 levels");
    assert_null(syz_weights_open(ARCHIVE("\x80\x02}q\0K\1h\0s.")));
    assert_failed(SYZ_EFORMAT, "nested deeper than 32 levels");

    /* A list of ten lists of ten lists, and so on, 20 levels deep: 10^20 values of 500 bytes. */
    at = 0;
    for (char level = 0; level <= 20; level++) {
        pickle[at++] = ']';
        pickle[at++] = '(';
        for (int i = 0; i < 10 && level > 0; i++) {
            pickle[at++] = 'h';
            pickle[at++] = (char)(level - 1);
        }
        pickle[at++] = 'e';
        pickle[at++] = 'q';
        pickle[at++] = level;
        if (level > 0) pickle[at++] = '\x86'; /* leave one value on the stack: (what was there, this) */
    }
    pickle[at++] = '.';
    assert_null(syz_weights_open(archive(pickle, at)));
    assert_failed(SYZ_EFORMAT, "x.pt: more than 4194304 values");

    /* Four million lists, of 48 bytes and more each in memory. */
    static char many[1 << 22];
    memset(many, ']', sizeof many - 1);
    many[sizeof many - 1] = 't';
    syz_pickle machine;
    syz_pickle_value value;
    syz_pickle_begin(&machine, "many.pt", (const uint8_t *)many, sizeof many);
    assert_int_equal(syz_pickle_next(&machine, &value), SYZ_EFORMAT);
    assert_failed(SYZ_EFORMAT, "many.pt: pickle opcode EMPTY_LIST at byte");
    syz_pickle_free(&machine);
}

/* ---- archives ---------------------------------------------------------------------------------------------------- */

#define LEGAL TENSOR(ID("K\6"), "K\0", "K\6\x85", "K\1\x85")

/* The legal archive with `bytes` little-endian bytes of `value` at `at`, counted from the row of an entry, or, without
 * one, from the end record. */
static syz_weights *patched(int row, size_t at, uint64_t value, int bytes) {
    const archive_entry entries[ENTRIES] = {{"x/data.pkl", LEGAL, sizeof LEGAL - 1},
                                            {"x/data/0", (const float[]){1, 2, 3, 4, 5, 6}, 24},
                                            {"x/version", "3\n", 2}};
    size_t size = archive_build(image, rows, entries, ENTRIES);
    archive_put(image + (row < 0 ? size - 22 : rows[row]) + at, value, bytes);
    return syz_weights_open(temporary_file("x.pt", image, size));
}

static void archives(void **state) {
    (void)state;
    static const struct {
        int row;
        size_t at;
        uint64_t value;
        int bytes;
        const char *message;
    } cases[] = {
        {-1, 0, 0, 4, "x.pt: the zip archive does not end with its directory (torn download?)"},
        {-1, 20, 1, 2, "does not end with its directory"},
        {-1, 4, 1, 2, "in several parts"},
        {-1, 8, 2, 2, "in several parts"},
        {-1, 12, 1, 4, "does not end where it should"},
        {-1, 16, 0xfffffff0, 4, "does not end where it should"},
        {-1, 8, 0xffffffff, 4, "65535 zip entries do not fit"},
        {-1, 8, 0x00020002, 4, "holds more than its 2 entries"},
        {-1, 8, 0x00040004, 4, "4 zip entries do not fit into their directory"},
        {1, 0, 0, 4, "the zip directory is damaged at byte"},
        {2, 28, 0xffff, 2, "the zip directory is damaged at byte"},
        {1, 8, 1, 2, "entry \"x/data/0\" is encrypted"},
        {1, 20, 23, 4, "entry \"x/data/0\" has two sizes"},
        {1, 42, 0, 4, "entry \"x/data/0\" has a header that differs from the directory"},
        {1, 42, 7, 4, "entry \"x/data/0\" has no header where the directory says"},
        {1, 42, 0xfffffff0, 4, "entry \"x/data/0\" has no header where the directory says"},
        {1, 10, 8, 2, "entry \"x/data/0\" has a header that differs"},
        {0, 16, 1, 4, "x.pt: data.pkl does not match its CRC-32"},
        {0, 46, 'y', 1, "entry \"y/data.pkl\" has a header that differs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(patched(cases[i].row, cases[i].at, cases[i].value, cases[i].bytes));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
    syz_weights *weights = patched(1, 16, 1, 4); /* seen when the tensor is taken */
    check_ok(weights);
    assert_null(syz_weights_get(weights, "w"));
    assert_failed(SYZ_EFORMAT, "tensor \"w\": its bytes do not match their CRC-32");
    syz_weights_close(weights);
}

/* Sizes in the directory that grow together: over the next entry, over the directory. */
static void overlaps(void **state) {
    (void)state;
    static const struct {
        uint64_t size;
        const char *message;
    } cases[] = {
        {25, "entry \"x/version\" overlaps the entry before it"},
        {2000, "entry \"x/data/0\" runs past the directory"},
        {0xfffffffe, "entry \"x/data/0\" runs past the directory"},
        {0xffffffff, "entry \"x/data/0\" runs past the directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(patched(1, 20, cases[i].size | cases[i].size << 32, 8));
        assert_failed(SYZ_EFORMAT, cases[i].message);
    }
}

/* The same archive with sizes and offset of the storage in a zip64 field of `length` bytes. */
static syz_weights *with_zip64(uint64_t size, uint64_t length) {
    syz_weights_close(patched(-1, 4, 0, 2));
    size_t end = rows[2], extra = 4 + (size_t)length, total = rows[2] + 46 + strlen("x/version") + 22;
    memmove(image + end + extra, image + end, total - end);
    archive_put(image + rows[1] + 20, UINT64_MAX, 8);
    archive_put(image + rows[1] + 30, extra, 2);
    uint64_t place = 0;
    for (int i = 3; i >= 0; i--)
        place = place << 8 | image[rows[1] + 42 + (size_t)i];
    archive_put(image + rows[1] + 42, UINT32_MAX, 4);
    const uint64_t fields[] = {size, 24, place};
    archive_put(image + end, 1, 2);
    archive_put(image + end + 2, length, 2);
    for (size_t i = 0; i < length / 8; i++)
        archive_put(image + end + 4 + 8 * i, fields[i], 8);
    uint8_t *last = image + total + extra - 22;
    archive_put(last + 12, total + extra - 22 - rows[0], 4);
    return syz_weights_open(temporary_file("x.pt", image, total + extra));
}

static void zip64(void **state) {
    (void)state;
    syz_weights *weights = with_zip64(24, 24);
    check_ok(weights);
    check_ok(syz_weights_get(weights, "w"));
    syz_weights_close(weights);
    assert_null(with_zip64(24, 16));
    assert_failed(SYZ_EFORMAT, "entry \"x/data/0\" has a short zip64 field");
    assert_null(with_zip64(25, 24));
    assert_failed(SYZ_EFORMAT, "entry \"x/data/0\" has two sizes");
}

static void contents(void **state) {
    (void)state;
    static const struct {
        archive_entry entries[4];
        int status;
        const char *message;
    } cases[] = {
        {{{"x/data.pkl", LEGAL, sizeof LEGAL - 1}, {"x/data/0", "", 0}, {"x/data/0", "", 0}, {"x/version", "3", 1}},
         SYZ_EFORMAT,
         "entry \"x/data/0\" is there twice"},
        {{{"x/data.pkl", "}.", 2}, {"y/data.pkl", "}.", 2}, {"x/a", "", 0}, {"x/b", "", 0}},
         SYZ_EFORMAT,
         "x.pt: holds two files data.pkl"},
        {{{"word/document.xml", "", 0}, {"data.pkl", "", 0}, {"x/a", "", 0}, {"x/b", "", 0}},
         SYZ_EFORMAT,
         "x.pt: is a zip archive without data.pkl"},
        {{{"x/data.pkl", "}.", 2}, {"x/constants.pkl", "", 0}, {"x/a", "", 0}, {"x/b", "", 0}},
         SYZ_EUNSUPPORTED,
         "x.pt: is a TorchScript archive"},
        {{{"x/data.pkl", "}.", 2}, {"x/byteorder", "big", 3}, {"x/a", "", 0}, {"x/b", "", 0}},
         SYZ_EUNSUPPORTED,
         "x.pt: its byte order is not little-endian"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = archive_build(image, rows, cases[i].entries, 4);
        assert_null(syz_weights_open(temporary_file("x.pt", image, size)));
        assert_failed(cases[i].status, cases[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CHECK_TEST(a_legal_one),    CHECK_TEST(names),    CHECK_TEST(calls),        CHECK_TEST(opcodes),
        CHECK_TEST(persistent_ids), CHECK_TEST(tensors),  CHECK_TEST(tensor_names), CHECK_TEST(bombs),
        CHECK_TEST(archives),       CHECK_TEST(overlaps), CHECK_TEST(zip64),        CHECK_TEST(contents),
    };
    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
