/* The backward pass: collect the nodes that the loss depends on, walk them from the newest, free them on the way. */
#include "autograd/node.h"
#include "core/alloc.h"
#include "core/flops.h"
#include "core/threads.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local int no_grad_depth;

void syz_no_grad_push(void) {
    no_grad_depth++;
}

void syz_no_grad_pop(void) {
    if (no_grad_depth > 0) no_grad_depth--;
}

int syz_no_grad_swap(int depth) {
    int old = no_grad_depth;
    no_grad_depth = depth;
    return old;
}

bool syz_grad_enabled(void) {
    return no_grad_depth == 0;
}

void syz_set_requires_grad(syz_tensor *t, bool on) {
    if (!t->node) t->requires_grad = on;
}

bool syz_requires_grad(const syz_tensor *t) {
    return t->node || t->requires_grad;
}

syz_tensor *syz_grad(const syz_tensor *t) {
    return t->grad;
}

syz_status syz_set_grad(syz_tensor *t, syz_tensor *grad) {
    if (grad && !syz_shape_equal(t->shape, grad->shape))
        return syz_fail(SYZ_ESHAPE, "a gradient of shape %s cannot belong to a tensor of shape %s", syz_dims(grad),
                        syz_dims(t));
    syz_retain(grad);
    syz_release(t->grad);
    t->grad = grad;
    return SYZ_OK;
}

static bool adds_in_place(const syz_tensor *t) {
    return t->dtype == SYZ_F32 || (t->dtype == SYZ_BF16 && t->device);
}

syz_dtype syz_gradient_dtype(const syz_tensor *t) {
    bool half = t->dtype == SYZ_BF16 || t->dtype == SYZ_F16;
    return half && !t->node ? SYZ_F32 : t->dtype;
}

/* A gradient that can be added to in place: nobody else sees it. */
static bool is_ours(const syz_tensor *grad) {
    return grad->refs == 1 && grad->storage->refs == 1 && adds_in_place(grad);
}

syz_tensor *syz_gradient_sum(const syz_call *call, int k, syz_dtype dtype) {
    syz_tensor *sum = call->sum[k];
    return sum && sum->dtype == dtype && sum->device == call->device ? sum : NULL;
}

/* *slot += grad, taking `grad` itself when the slot is empty and adding in place when nobody else sees the slot. */
static syz_status accumulate(syz_tensor **slot, syz_tensor *grad) {
    syz_tensor *old = *slot;
    if (old == grad) return SYZ_OK; /* added already */
    if (!old) {
        *slot = syz_retain(grad);
    } else if (old->dtype == grad->dtype && is_ours(old)) {
        SYZ_TRY(syz_device_select(old->device));
        if (syz_device_kernels(old->device, old->dtype)->axpy(syz_reals(old), syz_reals(grad), 1.0f, syz_numel(old)))
            return syz_fail(SYZ_EINTERNAL, "adding a gradient of %s failed in its kernel", syz_dims(grad));
    } else {
        syz_tensor *sum = syz_add(old, grad);
        if (!sum) return syz_error_status();
        *slot = syz_retain(sum);
        syz_release(old);
    }
    return SYZ_OK;
}

/* ---- collecting ---- */

typedef struct {
    syz_node **items;
    size_t count, capacity;
} node_list;

static syz_status list_add(node_list *list, syz_node *node) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        syz_node **items = syz_alloc(capacity, sizeof *items);
        if (!items) return SYZ_ENOMEM;
        if (list->count) memcpy(items, list->items, list->count * sizeof *items);
        free(list->items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = node;
    return SYZ_OK;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = (*(syz_node *const *)a)->sequence, y = (*(syz_node *const *)b)->sequence;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Every node reachable from `root`. The list doubles as the queue of the search. */
static syz_status reach(node_list *list, syz_node *root) {
    static uint64_t pass;
    pass++;
    root->visited = pass;
    SYZ_TRY(list_add(list, root));
    for (size_t n = 0; n < list->count; n++) {
        syz_call *call = &list->items[n]->call;
        for (int k = 0; k < call->nin; k++) {
            syz_node *next = call->needs[k] && call->in[k] ? call->in[k]->node : NULL;
            if (!next || next->visited == pass) continue;
            next->visited = pass;
            SYZ_TRY(list_add(list, next));
        }
    }
    return SYZ_OK;
}

/* The same, newest first, each retained; an empty list on failure. */
static syz_status collect(node_list *list, syz_node *root) {
    if (reach(list, root) != SYZ_OK) {
        list->count = 0;
        return syz_error_status();
    }
    qsort(list->items, list->count, sizeof *list->items, newest_first);
    for (size_t n = 0; n < list->count; n++)
        syz_node_retain(list->items[n]);
    return SYZ_OK;
}

/* ---- walking ---- */

static void consume(syz_node *node) {
    for (int k = 0; k < node->call.nin; k++) {
        syz_release(node->call.in[k]);
        node->call.in[k] = NULL;
    }
    for (int k = 0; k < SYZ_MAX_SAVED; k++) {
        syz_release(node->call.saved[k]);
        node->call.saved[k] = NULL;
    }
    syz_release(node->grad);
    node->grad = NULL;
    node->freed = true;
}

/* Gradients have the type of what they belong to; only those of leaves are f32 where that is half precision, since they
 * add up over many steps. */
static syz_tensor *as_stored(const syz_tensor *in, syz_tensor *grad) {
    syz_dtype dtype = syz_gradient_dtype(in);
    return grad->dtype == dtype ? grad : syz_cast(grad, dtype);
}

static syz_tensor **slot_of(syz_tensor *in) {
    return in->node ? &in->node->grad : &in->grad;
}

static void offer_sums(syz_call *call) {
    for (int k = 0; k < call->nin; k++) {
        syz_tensor *sum = call->needs[k] && call->in[k] ? *slot_of(call->in[k]) : NULL;
        call->sum[k] = sum && is_ours(sum) ? sum : NULL;
    }
}

static syz_status step_back(syz_node *node) {
    syz_call *call = &node->call;
    if (!node->grad) return SYZ_OK; /* no gradient reached it */
    if (node->freed) return syz_fail(SYZ_EINVAL, "backward: this graph was already used by an earlier backward pass");
    syz_tensor *gin[SYZ_MAX_INPUTS] = {0};
    SYZ_TRY(syz_check_cancel());
    offer_sums(call);
    int meter = syz_meter_swap(node->meter);
    int device = syz_device_swap(call->device);
    syz_status status = syz_device_select(call->device);
    if (status == SYZ_OK) status = syz_ops[call->op].backward(call, node->grad, gin);
    syz_device_swap(device);
    syz_meter_swap(meter);
    SYZ_TRY(status);
    if (syz_failed()) return syz_error_status();
    for (int k = 0; k < call->nin; k++) {
        syz_tensor *in = call->in[k];
        if (!call->needs[k] || !gin[k]) continue;
        if (!syz_shape_equal(in->shape, gin[k]->shape))
            return syz_fail(SYZ_EINTERNAL, "backward of %s: gradient %d has shape %s, not %s", syz_call_name(call), k,
                            syz_dims(gin[k]), syz_dims(in));
        syz_tensor *grad = as_stored(in, gin[k]);
        SYZ_TRY(grad ? accumulate(slot_of(in), grad) : syz_error_status());
        if (!in->node) syz_retag(in->grad, SYZ_MEMORY_GRADIENTS);
    }
    return SYZ_OK;
}

static syz_status seed_gradient(syz_tensor *loss, syz_tensor *seed) {
    if (!seed && syz_numel(loss) != 1)
        return syz_fail(SYZ_ESHAPE, "backward needs a loss with one element, not %s: take its :mean()", syz_dims(loss));
    int device = syz_device_swap(loss->device);
    if (!seed) seed = syz_full(loss->dtype, loss->shape, 1.0);
    syz_device_swap(device);
    if (!seed) return syz_error_status();
    if (!syz_shape_equal(seed->shape, loss->shape))
        return syz_fail(SYZ_ESHAPE, "backward: the seed has shape %s, the output %s", syz_dims(seed), syz_dims(loss));
    return accumulate(loss->node ? &loss->node->grad : &loss->grad, seed);
}

static syz_status walk(node_list *list) {
    syz_status status = SYZ_OK;
    for (size_t n = 0; n < list->count; n++) {
        syz_node *node = list->items[n];
        if (status == SYZ_OK && (status = syz_scope_push()) == SYZ_OK) {
            status = step_back(node);
            syz_scope_pop();
        }
        consume(node);
    }
    return status;
}

syz_status syz_backward(syz_tensor *loss, syz_tensor *seed) {
    if (syz_failed()) return syz_error_status();
    if (!syz_requires_grad(loss))
        return syz_fail(SYZ_EINVAL, "backward: the loss does not depend on anything that requires a gradient");
    if (loss->node && loss->node->freed)
        return syz_fail(SYZ_EINVAL, "backward: this graph was already used by an earlier backward pass");
    SYZ_TRY(syz_scope_push());
    syz_no_grad_push();
    node_list list = {0};
    syz_status status = seed_gradient(loss, seed);
    if (status == SYZ_OK && loss->node) status = collect(&list, loss->node);
    if (status == SYZ_OK) status = walk(&list);
    for (size_t n = 0; n < list.count; n++)
        syz_node_release(list.items[n]);
    free(list.items);
    syz_no_grad_pop();
    syz_scope_pop();
    return status;
}
