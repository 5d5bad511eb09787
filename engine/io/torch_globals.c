/* The names that weights may ask for, and what each is read as. A name only selects one of the readings below; no code
 * of that name exists here. */
#include "io/torch_pickle.h"

#include <string.h>

typedef syz_pickle machine;
typedef syz_pickle_value value;

#define TYPED(storage, dtype, type)                                                                                    \
    {"torch", storage, SYZ_GLOBAL_STORAGE, type}, {                                                                    \
        "torch", dtype, SYZ_GLOBAL_DTYPE, type                                                                         \
    }
#define INERT(module, name)                                                                                            \
    { module, name, SYZ_GLOBAL_INERT, NULL }

const syz_pickle_global syz_pickle_globals[] = {
    {"collections", "OrderedDict", SYZ_GLOBAL_DICT, NULL},
    {"torch._utils", "_rebuild_tensor", SYZ_GLOBAL_TENSOR_V1, NULL},
    {"torch._utils", "_rebuild_tensor_v2", SYZ_GLOBAL_TENSOR_V2, NULL},
    {"torch._utils", "_rebuild_tensor_v3", SYZ_GLOBAL_TENSOR_V3, NULL},
    {"torch._utils", "_rebuild_parameter", SYZ_GLOBAL_PARAMETER, NULL},
    {"torch", "Size", SYZ_GLOBAL_SIZE, NULL},
    TYPED("FloatStorage", "float32", "F32"),
    TYPED("DoubleStorage", "float64", "F64"),
    TYPED("HalfStorage", "float16", "F16"),
    TYPED("BFloat16Storage", "bfloat16", "BF16"),
    TYPED("LongStorage", "int64", "I64"),
    TYPED("IntStorage", "int32", "I32"),
    TYPED("ShortStorage", "int16", "I16"),
    TYPED("CharStorage", "int8", "I8"),
    TYPED("ByteStorage", "uint8", "U8"),
    TYPED("BoolStorage", "bool", "BOOL"),
    TYPED("ComplexFloatStorage", "complex64", "C64"),
    {"torch", "uint16", SYZ_GLOBAL_DTYPE, "U16"},
    {"torch", "uint32", SYZ_GLOBAL_DTYPE, "U32"},
    {"torch", "uint64", SYZ_GLOBAL_DTYPE, "U64"},
    {"torch", "float8_e4m3fn", SYZ_GLOBAL_DTYPE, "F8_E4M3"},
    {"torch", "float8_e5m2", SYZ_GLOBAL_DTYPE, "F8_E5M2"},
    {"torch", "float8_e8m0fnu", SYZ_GLOBAL_DTYPE, "F8_E8M0"},
    {"torch", "UntypedStorage", SYZ_GLOBAL_STORAGE, NULL},
    {"torch.storage", "UntypedStorage", SYZ_GLOBAL_STORAGE, NULL},
    /* Of training scripts, beside the weights: settings, counters, devices. */
    INERT("torch", "device"),
    INERT("argparse", "Namespace"),
    INERT("_codecs", "encode"),
    INERT("__builtin__", "set"),
    INERT("builtins", "set"),
    INERT("numpy", "dtype"),
    INERT("numpy", "ndarray"),
    INERT("numpy.core.multiarray", "scalar"),
    INERT("numpy._core.multiarray", "scalar"),
    INERT("numpy.core.multiarray", "_reconstruct"),
    INERT("numpy._core.multiarray", "_reconstruct"),
};

enum { GLOBALS = sizeof syz_pickle_globals / sizeof *syz_pickle_globals };

static bool same(const char *known, const char *text, size_t length) {
    return strlen(known) == length && memcmp(known, text, length) == 0;
}

syz_status syz_pickle_find_global(machine *m, value *v, const char *module, size_t module_length, const char *name,
                                  size_t name_length) {
    for (int i = 0; i < GLOBALS; i++) {
        const syz_pickle_global *global = &syz_pickle_globals[i];
        if (!same(global->name, name, name_length) || !same(global->module, module, module_length)) continue;
        *v = (value){.kind = SYZ_PICKLE_GLOBAL, .as.integer = i};
        return SYZ_OK;
    }
    return syz_pickle_refuse(m, "asks for %.*s.%.*s", (int)(module_length < 100 ? module_length : 100), module,
                             (int)(name_length < 100 ? name_length : 100), name);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* OrderedDict(), or OrderedDict([(key, value), ...]). */
static syz_status make_dict(machine *m, value *result, const syz_pickle_object *arguments) {
    SYZ_TRY(syz_pickle_make(m, result, SYZ_PICKLE_DICT, NULL, 0));
    if (arguments->count == 0) return SYZ_OK;
    const value *list = &arguments->items[0];
    if (arguments->count > 1 || list->kind != SYZ_PICKLE_LIST)
        return syz_pickle_refuse(m, "makes an OrderedDict of something else than pairs");
    for (uint32_t i = 0; i < list->as.object->count; i++) {
        const value *pair = &list->as.object->items[i];
        if ((pair->kind != SYZ_PICKLE_TUPLE && pair->kind != SYZ_PICKLE_LIST) || pair->as.object->count != 2)
            return syz_pickle_refuse(m, "makes an OrderedDict of something else than pairs");
        SYZ_TRY(syz_pickle_append(m, result->as.object, pair->as.object->items[0]));
        SYZ_TRY(syz_pickle_append(m, result->as.object, pair->as.object->items[1]));
    }
    return SYZ_OK;
}

/* The arguments as they are, and behind them the function: torch.c makes a tensor of them. */
static syz_status make_tensor(machine *m, value *result, const value *function, const syz_pickle_object *arguments) {
    static const uint32_t least[] = {
        [SYZ_GLOBAL_TENSOR_V1] = 4, [SYZ_GLOBAL_TENSOR_V2] = 6, [SYZ_GLOBAL_TENSOR_V3] = 7};
    const syz_pickle_global *global = &syz_pickle_globals[function->as.integer];
    const value *items = arguments->items;
    bool known = arguments->count >= least[global->role] && items[0].kind == SYZ_PICKLE_STORAGE &&
                 items[1].kind == SYZ_PICKLE_INTEGER && items[2].kind == SYZ_PICKLE_TUPLE &&
                 items[3].kind == SYZ_PICKLE_TUPLE;
    if (known && global->role == SYZ_GLOBAL_TENSOR_V3) {
        known = items[6].kind == SYZ_PICKLE_GLOBAL && syz_pickle_globals[items[6].as.integer].role == SYZ_GLOBAL_DTYPE;
    }
    if (!known) return syz_pickle_refuse(m, "calls %s with unknown arguments", global->name);
    SYZ_TRY(syz_pickle_make(m, result, SYZ_PICKLE_TENSOR, items, arguments->count));
    return syz_pickle_append(m, result->as.object, *function);
}

syz_status syz_pickle_reduce(machine *m, value *result, const value *function, const value *arguments) {
    const syz_pickle_global *global = &syz_pickle_globals[function->as.integer];
    const syz_pickle_object *given = arguments->as.object;
    switch (global->role) {
    case SYZ_GLOBAL_DICT:
        return make_dict(m, result, given);
    case SYZ_GLOBAL_TENSOR_V1:
    case SYZ_GLOBAL_TENSOR_V2:
    case SYZ_GLOBAL_TENSOR_V3:
        return make_tensor(m, result, function, given);
    case SYZ_GLOBAL_PARAMETER:
        if (given->count == 0 || given->items[0].kind != SYZ_PICKLE_TENSOR) break;
        *result = given->items[0];
        return SYZ_OK;
    case SYZ_GLOBAL_SIZE:
        if (given->count != 1 || given->items[0].kind != SYZ_PICKLE_TUPLE) break;
        *result = given->items[0];
        return SYZ_OK;
    case SYZ_GLOBAL_INERT:
        *result = (value){.kind = SYZ_PICKLE_INERT};
        return SYZ_OK;
    default:
        return syz_pickle_refuse(m, "calls %s.%s", global->module, global->name);
    }
    return syz_pickle_refuse(m, "calls %s with unknown arguments", global->name);
}

syz_status syz_pickle_persistent(machine *m, value *result, const value *id) {
    const value *items = id->kind == SYZ_PICKLE_TUPLE ? id->as.object->items : NULL;
    uint32_t count = items ? id->as.object->count : 0;
    if (count < 5 || count > 6 || !syz_pickle_text_is(&items[0], "storage") || items[1].kind != SYZ_PICKLE_GLOBAL ||
        syz_pickle_globals[items[1].as.integer].role != SYZ_GLOBAL_STORAGE || items[2].kind != SYZ_PICKLE_TEXT ||
        items[4].kind != SYZ_PICKLE_INTEGER || items[4].as.integer < 0) {
        return syz_pickle_refuse(m, "names something else than a storage of a known type");
    }
    if (count == 6 && items[5].kind != SYZ_PICKLE_NONE)
        return syz_pickle_refuse(m, "names a view of another storage, which only very old files have");
    SYZ_TRY(syz_pickle_make(m, result, SYZ_PICKLE_STORAGE, items, count));
    return syz_pickle_append(m, &m->storages, *result);
}
