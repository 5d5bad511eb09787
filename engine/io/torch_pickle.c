/* The pickle machine: a stack, a memo, and one row per opcode. Opcodes are those of Python's pickletools, protocols 2
 * to 5, as far as weights need them; docs/design/weights.md says why there are no others. */
#include "io/torch_pickle.h"

#include "core/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory is bounded by the pickle's size; of the older stream, which has no other length than that of the file, by the
 * first 256 MiB. */
enum { MAX_PROTOCOL = 5, BASE_BUDGET = 64 << 20, BUDGET_PER_BYTE = 4, MAX_COUNTED = 256 << 20 };

typedef syz_pickle machine;
typedef syz_pickle_value value;

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

syz_status syz_pickle_refuse(const machine *m, const char *format, ...) {
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return syz_fail(SYZ_EFORMAT, "%s: pickle opcode %s at byte %zu %s; nothing is executed and the file is refused",
                    m->path, m->opcode, m->opcode_at, why);
}

const char *syz_pickle_kind_name(const value *v) {
    static const char *const names[] = {"mark",   "None",  "bool", "int",  "float",   "string", "name",
                                        "object", "tuple", "list", "dict", "storage", "tensor"};
    return names[v->kind];
}

bool syz_pickle_text_is(const value *v, const char *text) {
    return v->kind == SYZ_PICKLE_TEXT && v->length == strlen(text) && memcmp(v->as.text, text, v->length) == 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static syz_status spend(machine *m, size_t bytes) {
    if (bytes > m->budget - m->used) {
        return syz_pickle_refuse(m, "needs more than the %zu MiB of memory that a pickle of this size may take",
                                 m->budget >> 20);
    }
    m->used += bytes;
    return SYZ_OK;
}

static syz_status reserve(machine *m, syz_pickle_object *list, size_t count) {
    if (count <= list->capacity) return SYZ_OK;
    size_t capacity = list->capacity ? list->capacity : 4;
    while (capacity < count)
        capacity *= 2;
    SYZ_TRY(spend(m, (capacity - list->capacity) * sizeof(value)));
    value *items = syz_alloc(capacity, sizeof *items);
    if (!items) return syz_error_status();
    if (list->count) memcpy(items, list->items, list->count * sizeof *items);
    free(list->items);
    list->items = items;
    list->capacity = (uint32_t)capacity;
    return SYZ_OK;
}

syz_status syz_pickle_append(machine *m, syz_pickle_object *list, value v) {
    SYZ_TRY(reserve(m, list, (size_t)list->count + 1));
    list->items[list->count++] = v;
    return SYZ_OK;
}

syz_status syz_pickle_make(machine *m, value *v, syz_pickle_kind kind, const value *items, size_t count) {
    SYZ_TRY(spend(m, sizeof(syz_pickle_object) + count * sizeof *items));
    syz_pickle_object *object = syz_alloc(1, sizeof *object);
    if (!object) return syz_error_status();
    object->next = m->objects;
    m->objects = object;
    *v = (value){.kind = kind, .as.object = object};
    if (count == 0) return SYZ_OK;
    if (!(object->items = syz_alloc(count, sizeof *items))) return syz_error_status();
    memcpy(object->items, items, count * sizeof *items);
    object->count = object->capacity = (uint32_t)count;
    return SYZ_OK;
}

static syz_status push(machine *m, value v) {
    return syz_pickle_append(m, &m->stack, v);
}

static syz_status pop(machine *m, value *v) {
    *v = (value){0};
    if (m->stack.count == 0 || m->stack.items[m->stack.count - 1].kind == SYZ_PICKLE_MARK) {
        return syz_pickle_refuse(m, "finds nothing on the stack");
    }
    *v = m->stack.items[--m->stack.count];
    return SYZ_OK;
}

/* The values above the topmost mark leave the stack, with the mark; borrowed until the next push. */
static syz_status pop_marked(machine *m, const value **items, size_t *count) {
    uint32_t at = m->stack.count;
    *items = NULL;
    *count = 0;
    while (at > 0 && m->stack.items[at - 1].kind != SYZ_PICKLE_MARK)
        at--;
    if (at == 0) return syz_pickle_refuse(m, "finds no mark on the stack");
    *items = m->stack.items + at;
    *count = m->stack.count - at;
    m->stack.count = at - 1;
    return SYZ_OK;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static syz_status take(machine *m, const uint8_t **bytes, size_t count) {
    *bytes = NULL;
    if (count > m->size - m->at) return syz_fail(SYZ_EFORMAT, "%s: the pickle ends early (torn download?)", m->path);
    *bytes = m->bytes + m->at;
    m->at += count;
    return SYZ_OK;
}

/* An unsigned little-endian number of `width` bytes. */
static syz_status take_number(machine *m, uint64_t *number, int width) {
    const uint8_t *bytes;
    SYZ_TRY(take(m, &bytes, (size_t)width));
    *number = 0;
    for (int i = width - 1; i >= 0; i--)
        *number = *number << 8 | bytes[i];
    return SYZ_OK;
}

static syz_status take_line(machine *m, const char **text, size_t *length) {
    const uint8_t *start = m->bytes + m->at, *end = memchr(start, '\n', m->size - m->at);
    *text = (const char *)start;
    *length = end ? (size_t)(end - start) : 0;
    return take(m, &start, end ? *length + 1 : m->size - m->at + 1);
}

/* ---- opcodes: values; `n` is the row's number -------------------------------------------------------------------- */

static syz_status op_constant(machine *m, int n) {
    return push(m, n < 0 ? (value){.kind = SYZ_PICKLE_NONE} : (value){.kind = SYZ_PICKLE_BOOL, .as.integer = n});
}

static syz_status op_mark(machine *m, int n) {
    (void)n;
    return push(m, (value){.kind = SYZ_PICKLE_MARK});
}

/* n bytes; the widest of them, four, are signed */
static syz_status op_integer(machine *m, int n) {
    uint64_t number;
    SYZ_TRY(take_number(m, &number, n));
    return push(m, (value){.kind = SYZ_PICKLE_INTEGER, .as.integer = n == 4 ? (int32_t)number : (int64_t)number});
}

/* Two's complement of a length that n bytes give. What 64 bits do not hold is no number of a tensor. */
static syz_status op_long(machine *m, int n) {
    uint64_t length;
    const uint8_t *bytes;
    SYZ_TRY(take_number(m, &length, n));
    SYZ_TRY(take(m, &bytes, (size_t)length));
    if (length > 8) return push(m, (value){.kind = SYZ_PICKLE_INERT});
    uint64_t number = length && bytes[length - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = (size_t)length; i-- > 0;)
        number = number << 8 | bytes[i];
    return push(m, (value){.kind = SYZ_PICKLE_INTEGER, .as.integer = (int64_t)number});
}

/* A big-endian double. */
static syz_status op_float(machine *m, int n) {
    const uint8_t *bytes;
    (void)n;
    SYZ_TRY(take(m, &bytes, 8));
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | bytes[i];
    value v = {.kind = SYZ_PICKLE_NUMBER};
    memcpy(&v.as.number, &bits, sizeof bits);
    return push(m, v);
}

/* Text or bytes of a length that n bytes give. */
static syz_status op_text(machine *m, int n) {
    uint64_t length;
    const uint8_t *bytes;
    SYZ_TRY(take_number(m, &length, n));
    if (length > UINT32_MAX) return syz_pickle_refuse(m, "has a string of %llu bytes", (unsigned long long)length);
    SYZ_TRY(take(m, &bytes, (size_t)length));
    return push(m, (value){.kind = SYZ_PICKLE_TEXT, .length = (uint32_t)length, .as.text = (const char *)bytes});
}

/* ---- opcodes: containers ----------------------------------------------------------------------------------------- */

/* A new one: n is its kind. */
static syz_status op_empty(machine *m, int n) {
    value v = {.kind = SYZ_PICKLE_INERT};
    if (n != SYZ_PICKLE_INERT) SYZ_TRY(syz_pickle_make(m, &v, (syz_pickle_kind)n, NULL, 0));
    return push(m, v);
}

/* Of the n topmost values, or of those above the mark. */
static syz_status op_tuple(machine *m, int n) {
    const value *items;
    size_t count = (size_t)n;
    value v, above[3];
    if (n == 0) {
        SYZ_TRY(pop_marked(m, &items, &count));
    } else {
        for (int i = n - 1; i >= 0; i--)
            SYZ_TRY(pop(m, &above[i]));
        items = above;
    }
    SYZ_TRY(syz_pickle_make(m, &v, SYZ_PICKLE_TUPLE, items, count));
    return push(m, v);
}

/* Add `count` items to the container on top of the stack. What an inert object holds is not kept. */
static syz_status extend(machine *m, const value *items, size_t count, syz_pickle_kind kind) {
    value target;
    SYZ_TRY(pop(m, &target));
    if (target.kind != kind && target.kind != SYZ_PICKLE_INERT) {
        return syz_pickle_refuse(m, "adds to a %s", syz_pickle_kind_name(&target));
    }
    if (kind == SYZ_PICKLE_DICT && count % 2) return syz_pickle_refuse(m, "has a key without a value");
    for (size_t i = 0; i < count && target.kind != SYZ_PICKLE_INERT; i++)
        SYZ_TRY(syz_pickle_append(m, target.as.object, items[i]));
    return push(m, target);
}

/* n items, or with n = 0 those above the mark, for a list, a dictionary or a set, which is inert. */
static syz_status add_items(machine *m, int n, syz_pickle_kind kind) {
    const value *items;
    size_t count = (size_t)n;
    value above[2];
    if (n == 0) {
        SYZ_TRY(pop_marked(m, &items, &count));
    } else {
        for (int i = n - 1; i >= 0; i--)
            SYZ_TRY(pop(m, &above[i]));
        items = above;
    }
    return extend(m, items, count, kind);
}

static syz_status op_append(machine *m, int n) {
    return add_items(m, n, SYZ_PICKLE_LIST);
}

static syz_status op_set_item(machine *m, int n) {
    return add_items(m, n, SYZ_PICKLE_DICT);
}

static syz_status op_add_items(machine *m, int n) {
    return add_items(m, n, SYZ_PICKLE_INERT);
}

/* ---- opcodes: the memo ------------------------------------------------------------------------------------------- */

static syz_status store(machine *m, uint64_t index) {
    if (m->stack.count == 0) return syz_pickle_refuse(m, "finds nothing on the stack");
    if (index > UINT32_MAX / 4) return syz_pickle_refuse(m, "names place %llu", (unsigned long long)index);
    SYZ_TRY(reserve(m, &m->memo, (size_t)index + 1));
    m->memo.items[index] = m->stack.items[m->stack.count - 1];
    if (m->memo.count <= index) m->memo.count = (uint32_t)index + 1;
    return SYZ_OK;
}

static syz_status op_put(machine *m, int n) {
    uint64_t index;
    SYZ_TRY(take_number(m, &index, n));
    return store(m, index);
}

static syz_status op_memoize(machine *m, int n) {
    (void)n;
    return store(m, m->memo.count);
}

static syz_status op_get(machine *m, int n) {
    uint64_t index;
    SYZ_TRY(take_number(m, &index, n));
    if (index >= m->memo.count || m->memo.items[index].kind == SYZ_PICKLE_MARK) {
        return syz_pickle_refuse(m, "asks for place %llu, where nothing was put", (unsigned long long)index);
    }
    return push(m, m->memo.items[index]);
}

/* ---- opcodes: names and what is done with them ------------------------------------------------------------------- */

static syz_status op_global(machine *m, int n) {
    const char *module, *name;
    size_t module_length, name_length;
    value v;
    (void)n;
    SYZ_TRY(take_line(m, &module, &module_length));
    SYZ_TRY(take_line(m, &name, &name_length));
    SYZ_TRY(syz_pickle_find_global(m, &v, module, module_length, name, name_length));
    return push(m, v);
}

static syz_status op_stack_global(machine *m, int n) {
    value module, name, v;
    (void)n;
    SYZ_TRY(pop(m, &name));
    SYZ_TRY(pop(m, &module));
    if (module.kind != SYZ_PICKLE_TEXT || name.kind != SYZ_PICKLE_TEXT) {
        return syz_pickle_refuse(m, "takes a %s and a %s for a name", syz_pickle_kind_name(&module),
                                 syz_pickle_kind_name(&name));
    }
    SYZ_TRY(syz_pickle_find_global(m, &v, module.as.text, module.length, name.as.text, name.length));
    return push(m, v);
}

/* REDUCE and, with n = 1, NEWOBJ: a function or class and its arguments. */
static syz_status op_reduce(machine *m, int n) {
    value function, arguments, v;
    SYZ_TRY(pop(m, &arguments));
    SYZ_TRY(pop(m, &function));
    if (function.kind != SYZ_PICKLE_GLOBAL || arguments.kind != SYZ_PICKLE_TUPLE) {
        return syz_pickle_refuse(m, "calls a %s with a %s", syz_pickle_kind_name(&function),
                                 syz_pickle_kind_name(&arguments));
    }
    const syz_pickle_global *global = &syz_pickle_globals[function.as.integer];
    if (n == 1 && global->role != SYZ_GLOBAL_INERT)
        return syz_pickle_refuse(m, "makes a new %s.%s", global->module, global->name);
    SYZ_TRY(syz_pickle_reduce(m, &v, &function, &arguments));
    return push(m, v);
}

/* The state of a dictionary is what a state_dict() carries beside its tensors; that of inert objects is not kept. */
static syz_status op_build(machine *m, int n) {
    value state, target;
    (void)n;
    SYZ_TRY(pop(m, &state));
    SYZ_TRY(pop(m, &target));
    if (target.kind != SYZ_PICKLE_DICT && target.kind != SYZ_PICKLE_INERT) {
        return syz_pickle_refuse(m, "sets the state of a %s", syz_pickle_kind_name(&target));
    }
    return push(m, target);
}

static syz_status op_persistent(machine *m, int n) {
    value id, v;
    (void)n;
    SYZ_TRY(pop(m, &id));
    SYZ_TRY(syz_pickle_persistent(m, &v, &id));
    return push(m, v);
}

static syz_status op_protocol(machine *m, int n) {
    uint64_t version;
    SYZ_TRY(take_number(m, &version, n));
    if (version <= MAX_PROTOCOL) return SYZ_OK;
    return syz_pickle_refuse(m, "announces protocol %d, at most %d is known", (int)version, MAX_PROTOCOL);
}

/* Frames only help whoever reads from a stream. */
static syz_status op_frame(machine *m, int n) {
    uint64_t length;
    return take_number(m, &length, n);
}

/* Never allowed; the name that it asks for is worth telling. */
static syz_status op_instance(machine *m, int n) {
    const char *module, *name;
    size_t module_length, name_length;
    (void)n;
    SYZ_TRY(take_line(m, &module, &module_length));
    SYZ_TRY(take_line(m, &name, &name_length));
    return syz_pickle_refuse(m, "asks for %.*s.%.*s", (int)(module_length < 100 ? module_length : 100), module,
                             (int)(name_length < 100 ? name_length : 100), name);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

/* Rows without a function are known to Python and refused here. */
static const struct {
    const char *name;
    syz_status (*run)(machine *m, int n);
    int n;
} opcodes[256] = {
    ['('] = {"MARK", op_mark, 0},
    [')'] = {"EMPTY_TUPLE", op_empty, SYZ_PICKLE_TUPLE},
    [']'] = {"EMPTY_LIST", op_empty, SYZ_PICKLE_LIST},
    ['}'] = {"EMPTY_DICT", op_empty, SYZ_PICKLE_DICT},
    [0x8f] = {"EMPTY_SET", op_empty, SYZ_PICKLE_INERT},
    ['N'] = {"NONE", op_constant, -1},
    [0x88] = {"NEWTRUE", op_constant, 1},
    [0x89] = {"NEWFALSE", op_constant, 0},
    ['K'] = {"BININT1", op_integer, 1},
    ['M'] = {"BININT2", op_integer, 2},
    ['J'] = {"BININT", op_integer, 4},
    [0x8a] = {"LONG1", op_long, 1},
    [0x8b] = {"LONG4", op_long, 4},
    ['G'] = {"BINFLOAT", op_float, 0},
    ['X'] = {"BINUNICODE", op_text, 4},
    [0x8c] = {"SHORT_BINUNICODE", op_text, 1},
    [0x8d] = {"BINUNICODE8", op_text, 8},
    ['T'] = {"BINSTRING", op_text, 4},
    ['U'] = {"SHORT_BINSTRING", op_text, 1},
    ['B'] = {"BINBYTES", op_text, 4},
    ['C'] = {"SHORT_BINBYTES", op_text, 1},
    ['t'] = {"TUPLE", op_tuple, 0},
    [0x85] = {"TUPLE1", op_tuple, 1},
    [0x86] = {"TUPLE2", op_tuple, 2},
    [0x87] = {"TUPLE3", op_tuple, 3},
    ['a'] = {"APPEND", op_append, 1},
    ['e'] = {"APPENDS", op_append, 0},
    ['s'] = {"SETITEM", op_set_item, 2},
    ['u'] = {"SETITEMS", op_set_item, 0},
    [0x90] = {"ADDITEMS", op_add_items, 0},
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    ['c'] = {"GLOBAL", op_global, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0},
    ['R'] = {"REDUCE", op_reduce, 0},
    [0x81] = {"NEWOBJ", op_reduce, 1},
    ['b'] = {"BUILD", op_build, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0},
    [0x80] = {"PROTO", op_protocol, 1},
    [0x95] = {"FRAME", op_frame, 8},
    ['i'] = {"INST", op_instance, 0},
    ['.'] = {"STOP", NULL, 0},
    ['o'] = {"OBJ", NULL, 0},
    ['P'] = {"PERSID", NULL, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    ['0'] = {"POP", NULL, 0},
    ['1'] = {"POP_MARK", NULL, 0},
    ['2'] = {"DUP", NULL, 0},
};

void syz_pickle_begin(machine *m, const char *path, const uint8_t *bytes, size_t size) {
    *m = (machine){.path = path, .bytes = bytes, .size = size, .budget = BASE_BUDGET};
    m->budget += (size < MAX_COUNTED ? size : MAX_COUNTED) * BUDGET_PER_BYTE;
}

syz_status syz_pickle_next(machine *m, value *result) {
    m->stack.count = m->memo.count = 0;
    if (m->memo.items) memset(m->memo.items, 0, m->memo.capacity * sizeof(value));
    for (;;) {
        const uint8_t *byte;
        SYZ_TRY(take(m, &byte, 1));
        m->opcode_at = m->at - 1;
        m->opcode = opcodes[*byte].name;
        if (*byte == '.') break;
        if (!opcodes[*byte].run) {
            char text[8];
            snprintf(text, sizeof text, "0x%02x", *byte);
            if (!m->opcode) m->opcode = text;
            return syz_pickle_refuse(m, "is not one that weights need");
        }
        SYZ_TRY(opcodes[*byte].run(m, opcodes[*byte].n));
    }
    SYZ_TRY(pop(m, result));
    if (m->stack.count != 0) return syz_pickle_refuse(m, "leaves %u values on the stack", m->stack.count);
    return SYZ_OK;
}

void syz_pickle_free(machine *m) {
    while (m->objects) {
        syz_pickle_object *object = m->objects;
        m->objects = object->next;
        free(object->items);
        free(object);
    }
    free(m->stack.items);
    free(m->memo.items);
    free(m->storages.items);
    *m = (machine){0};
}
