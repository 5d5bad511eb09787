/* syz.core: the Lua module. */
#include "bind/bind.h"

int luaopen_syz_core(lua_State *L) {
    lua_newtable(L);
    bind_open_tensor(L);
    bind_open_values(L);
    bind_open_ops(L); /* after the tensor's own methods, which win over operations of the same name */
    bind_open_scope(L);
    bind_open_rng(L);
    bind_open_json(L);
    bind_open_file(L);
    bind_open_io(L);
    bind_open_tokenizer(L);
    bind_open_model(L);
    bind_open_optim(L);
    bind_open_data(L);
    bind_open_machine(L);
    return 1;
}
