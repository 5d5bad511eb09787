/* Scopes: a stack of lists of tensors. One growing array holds all of them; a scope is a mark in it. */
#include "tensor/scope.h"
#include "core/alloc.h"
#include "core/error.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 256 };

static _Thread_local struct {
    syz_tensor **items;
    size_t count, capacity;
    size_t mark[MAX_DEPTH];
    int depth;
} scopes;

static syz_status reserve_one(void) {
    if (scopes.count < scopes.capacity) return SYZ_OK;
    size_t capacity = scopes.capacity ? scopes.capacity * 2 : 256;
    syz_tensor **items = syz_alloc(capacity, sizeof *items);
    if (!items) return SYZ_ENOMEM;
    if (scopes.count) memcpy(items, scopes.items, scopes.count * sizeof *items);
    free(scopes.items);
    scopes.items = items;
    scopes.capacity = capacity;
    return SYZ_OK;
}

syz_status syz_scope_adopt(syz_tensor *t) {
    if (scopes.depth == 0)
        return syz_fail(SYZ_EINVAL, "a tensor was made outside any scope: call syz_scope_push() first");
    SYZ_TRY(reserve_one());
    scopes.items[scopes.count++] = syz_retain(t);
    return SYZ_OK;
}

syz_status syz_scope_push(void) {
    if (scopes.depth == MAX_DEPTH) return syz_fail(SYZ_EINVAL, "scopes are nested more than %d deep", MAX_DEPTH);
    scopes.mark[scopes.depth++] = scopes.count;
    return SYZ_OK;
}

void syz_scope_pop(void) {
    if (scopes.depth == 0) return;
    size_t mark = scopes.mark[--scopes.depth];
    while (scopes.count > mark)
        syz_release(scopes.items[--scopes.count]);
    if (scopes.depth > 0) return;
    free(scopes.items);
    scopes.items = NULL;
    scopes.capacity = 0;
}

int syz_scope_depth(void) {
    return scopes.depth;
}

syz_tensor *syz_scope_return(syz_tensor *t) {
    if (!t || scopes.depth < 2) return t;
    size_t mark = scopes.mark[scopes.depth - 1];
    for (size_t i = scopes.count; i-- > mark;) {
        if (scopes.items[i] != t) continue;
        /* Swap it to the front of this scope and move the mark over it: the enclosing scope now holds the reference. */
        scopes.items[i] = scopes.items[mark];
        scopes.items[mark] = t;
        scopes.mark[scopes.depth - 1]++;
        return t;
    }
    return t;
}
