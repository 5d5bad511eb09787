/* The Lua binding, inside: userdata types, errors, arguments. Only engine/bind/ and engine/host/ see Lua.
 *
 * Every function here that takes a lua_State may raise a Lua error (a longjmp), so none is called while a C resource is
 * held that no userdata owns. */
#ifndef SYZ_BIND_BIND_H
#define SYZ_BIND_BIND_H

#include "syzygy.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

SYZ_API int luaopen_syz_core(lua_State *L);

/* ---- userdata types (types.c) ---- */

typedef struct {
    const char *name; /* as in "tensor expected, got nil" */
} bind_type;

/* Make the type's metatable, with `methods` behind __index, and leave it on the stack. Scripts cannot reach it:
 * getmetatable() gives the type's name. */
void bind_new_type(lua_State *L, const bind_type *type, const luaL_Reg *methods, const luaL_Reg *meta);
void bind_push_metatable(lua_State *L, const bind_type *type);
/* A zeroed userdata of the type, on top of the stack. */
void *bind_new(lua_State *L, const bind_type *type, size_t size);
void *bind_test(lua_State *L, int index, const bind_type *type); /* NULL when it is something else */
void *bind_check(lua_State *L, int index, const bind_type *type);
/* "tensor", "generator", ... or the Lua type: what messages call the value. */
const char *bind_type_name(lua_State *L, int index);

/* ---- errors (types.c) ---- */

/* Raise the pending engine error as a Lua error with the position of the calling Lua code; a cancelled operation raises
 * exactly "interrupted". Clears the error. Does not return; the int is for `return bind_raise(L)`. */
int bind_raise(lua_State *L);
/* Raise unless `status` is SYZ_OK. */
void bind_try(lua_State *L, syz_status status);
/* Raise "interrupted" and forget the request. */
int bind_interrupted(lua_State *L);
/* Called by the host's SIGINT handler: stop the running operation, or the next Lua instruction. */
void bind_interrupt(lua_State *L);
bool bind_interrupt_pending(void);
/* While deferred, the first request waits, so that a training step can be finished and saved; a second one stops as
 * usual. Ending the deferral delivers what waits. */
void bind_interrupt_defer(lua_State *L, bool defer);
bool bind_interrupt_wanted(void);        /* pending or waiting */
void bind_interrupt_clear(lua_State *L); /* forget all requests */
/* Called by the host's SIGTERM handler; core.terminating() tells. Stops what runs, unless interruption is deferred:
 * then whoever deferred it asks. */
void bind_terminate(lua_State *L);
bool bind_terminating(void);

/* ---- tensors (tensor.c) ---- */

extern const bind_type bind_tensor_type;

/* Always a handle on `t`; `strong` adds a reference that __gc releases. Without it the scope holds the values. */
typedef struct {
    syz_tensor *t;
    size_t bytes; /* counted as strong */
    bool strong;
} bind_tensor;

syz_tensor *bind_check_tensor(lua_State *L, int index); /* raises for anything but a living tensor */
syz_tensor *bind_opt_tensor(lua_State *L, int index);   /* NULL for nil */
/* Raise the error that names the fix, for a tensor that is not alive. */
int bind_dead(lua_State *L, const bind_tensor *tensor);
/* Run `make` inside a scope (a passing one when the script has none), again after a collection if memory ran out, and
 * push the tensor it returns. */
typedef syz_tensor *(*bind_maker)(void *context);
int bind_make(lua_State *L, bind_maker make, void *context);
/* The same for `count` tensors: `make` sets out[0..count-1]; where it leaves NULL, nil is pushed. */
typedef syz_status (*bind_many_maker)(void *context, syz_tensor *out[]);
int bind_make_many(lua_State *L, bind_many_maker make, void *context, int count);
/* Push a tensor that something else owns (a model's parameter): a strong reference. */
void bind_push_strong(lua_State *L, syz_tensor *t);
/* Run a function that makes temporary tensors, where there may be no scope. */
syz_status bind_run(syz_status (*run)(void *context), void *context);
/* Let a userdata's tensor outlive the current scope. */
void bind_survive(bind_tensor *tensor);
/* Take note of strong tensor bytes; collects when they have doubled since the last collection. */
void bind_account(lua_State *L);
void bind_open_tensor(lua_State *L); /* adds to the table on top of the stack, as every bind_open_* */

/* ---- tensor values (values.c) ---- */

double bind_value(const syz_tensor *t, int64_t i);                              /* element i as a number */
syz_tensor *bind_host_from(syz_dtype dtype, syz_shape shape, const void *data); /* on the CPU; copies */
int bind_tensor_text(lua_State *L);                                             /* __tostring */
int bind_tensor_table(lua_State *L);                                            /* t:totable() */
void bind_open_values(lua_State *L);

/* ---- devices (device.c) ---- */

bool bind_is_device(const char *name); /* "cpu", "cuda", "cuda:1", whether or not there is one */
int bind_tensor_to_device(lua_State *L);
/* Replace the tensor at `index` by a copy on the CPU, unless it lies there. */
void bind_to_host(lua_State *L, int index);
int bind_model_to(lua_State *L);
int bind_model_device(lua_State *L);
void bind_open_device(lua_State *L);

/* ---- arguments (check.c) ---- */

#define BIND_EXACT 9007199254740992.0 /* 2^53: integers up to here are exact in a Lua number */

/* An integral number within +-2^53 at `index`; false otherwise. */
bool bind_to_integer(lua_State *L, int index, int64_t *value);
int64_t bind_check_integer(lua_State *L, int index);
int64_t bind_opt_integer(lua_State *L, int index, int64_t missing);
/* A table of integers, or one integer; false with the reason in *why. */
bool bind_to_shape(lua_State *L, int index, syz_shape *shape, const char **why);
syz_shape bind_check_shape(lua_State *L, int index);
syz_dtype bind_check_dtype(lua_State *L, int index);
syz_dtype bind_opt_dtype(lua_State *L, int index, syz_dtype missing);
bool bind_check_boolean(lua_State *L, int index);
void bind_push_shape(lua_State *L, syz_shape shape);
/* A whole number of 64 bits: a Lua number, or a decimal string beyond 2^53. */
void bind_push_u64(lua_State *L, uint64_t value);
uint64_t bind_check_u64(lua_State *L, int index);
/* The array of tensors at `index` as a C array in a userdata pushed on the stack. */
syz_tensor **bind_check_list(lua_State *L, int index, int64_t *count);

/* ---- the other files ---- */

/* A userdata that holds one malloc()ed pointer and frees it: for bytes that must not leak when copying them raises. */
extern const bind_type bind_bytes_type;

/* Push the value of a JSON text (2: nil and a message), or the JSON text of a value. */
int bind_json_decode(lua_State *L, const char *text, size_t size);
int bind_json_encode(lua_State *L, int index, bool pretty);

syz_model *bind_check_model(lua_State *L, int index); /* model.c */
extern const luaL_Reg bind_lora_methods[];            /* lora.c: of models */

void bind_open_ops(lua_State *L);       /* core.ops, and the methods and operators of tensors */
void bind_open_scope(lua_State *L);     /* scope, no_grad */
void bind_open_rng(lua_State *L);       /* generator */
void bind_open_json(lua_State *L);      /* json, null, array */
void bind_open_file(lua_State *L);      /* file, sha256, base64 */
void bind_open_io(lua_State *L);        /* safetensors, image */
void bind_open_tokenizer(lua_State *L); /* tokenizer */
void bind_open_model(lua_State *L);     /* model */
void bind_open_optim(lua_State *L);     /* adamw, ema */
void bind_open_data(lua_State *L);      /* webdataset, tfevents, yaml */
void bind_open_comm(lua_State *L);      /* comm */
void bind_open_machine(lua_State *L);   /* clocks, memory, threads, machine, terminal */

#endif
