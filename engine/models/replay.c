#include "models/replay.h"
#include "core/alloc.h"
#include "core/flops.h"
#include "core/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an input must be for a recording to fit; the values too if they lie on the CPU. */
typedef struct {
    bool given;
    int device;
    syz_dtype dtype;
    syz_shape shape;
    void *values;
} input_key;

typedef struct {
    const void *what; /* NULL: this place is free */
    uint64_t state, used;
    int device, nin, nout;
    input_key key[SYZ_REPLAY_MAX_INPUTS];
    syz_tensor *in[SYZ_REPLAY_MAX_INPUTS], *out[SYZ_REPLAY_MAX_OUTPUTS]; /* retained; what the recording works on */
    void *recording;                                                     /* NULL before the second call */
    double flops;                                                        /* of one run */
    bool refused;
} entry;

struct syz_replays {
    entry entries[SYZ_REPLAYS_KEPT];
    uint64_t clock;
    syz_graph_counts counts;
};

/* ---- entries ---- */

static void drop_recording(entry *e) {
    syz_device_forget(e->device, e->recording);
    e->recording = NULL;
    for (int k = 0; k < SYZ_REPLAY_MAX_INPUTS; k++) {
        syz_release(e->in[k]);
        e->in[k] = NULL;
    }
    for (int k = 0; k < SYZ_REPLAY_MAX_OUTPUTS; k++) {
        syz_release(e->out[k]);
        e->out[k] = NULL;
    }
}

static void clear(entry *e) {
    drop_recording(e);
    for (int k = 0; k < SYZ_REPLAY_MAX_INPUTS; k++)
        free(e->key[k].values);
    *e = (entry){0};
}

static bool input_fits(const input_key *key, const syz_tensor *t) {
    if (!key->given || !t) return key->given == (t != NULL);
    return key->device == t->device && key->dtype == t->dtype && syz_shape_equal(key->shape, t->shape) &&
           (!key->values || memcmp(key->values, syz_data(t), syz_nbytes(t)) == 0);
}

static bool fits(const entry *e, const syz_replay_call *call) {
    if (e->what != call->what || e->state != call->state || e->device != call->device || e->nin != call->nin)
        return false;
    for (int k = 0; k < call->nin; k++)
        if (!input_fits(&e->key[k], call->in[k])) return false;
    return true;
}

static syz_status note_input(input_key *key, const syz_tensor *t) {
    if (!t) return SYZ_OK;
    *key = (input_key){.given = true, .device = t->device, .dtype = t->dtype, .shape = t->shape};
    if (t->device != 0) return SYZ_OK;
    key->values = syz_alloc(syz_nbytes(t) + 1, 1);
    if (!key->values) return SYZ_ENOMEM;
    memcpy(key->values, syz_data(t), syz_nbytes(t));
    return SYZ_OK;
}

/* The call's place; the one that was used longest ago makes room for a new one. */
static entry *find(syz_replays *r, const syz_replay_call *call) {
    entry *oldest = &r->entries[0];
    for (int k = 0; k < SYZ_REPLAYS_KEPT; k++) {
        entry *e = &r->entries[k];
        if (e->what && fits(e, call)) return e;
        if (e->used < oldest->used) oldest = e;
    }
    clear(oldest);
    for (int k = 0; k < call->nin; k++)
        if (note_input(&oldest->key[k], call->in[k]) != SYZ_OK) return NULL;
    oldest->what = call->what;
    oldest->state = call->state;
    oldest->device = call->device;
    oldest->nin = call->nin;
    return oldest;
}

/* ---- recording ---- */

static syz_status copy_values(syz_tensor *to, const syz_tensor *from) {
    return syz_device_copy(syz_data(to), to->device, syz_data(from), from->device, syz_nbytes(to));
}

static syz_status copy_inputs(entry *e, const syz_replay_call *call) {
    for (int k = 0; k < call->nin; k++)
        if (e->in[k] && e->in[k]->device != 0) SYZ_TRY(copy_values(e->in[k], call->in[k]));
    return SYZ_OK;
}

/* Tensors like the call's inputs, and like the outputs that its first run had. */
static syz_status make_places(entry *e, const syz_replay_call *call, syz_tensor *const out[]) {
    SYZ_TRY(syz_scope_push());
    int device = syz_device_swap(call->device);
    for (int k = 0; k < call->nout; k++)
        e->out[k] = syz_retain(syz_empty_like(out[k]));
    for (int k = 0; k < call->nin; k++)
        if (call->in[k])
            e->in[k] = syz_retain(call->in[k]->device ? syz_empty_like(call->in[k]) : syz_copy(call->in[k]));
    syz_device_swap(device);
    syz_scope_pop();
    return syz_error_status();
}

/* Outputs go to their places before the recording ends, and what else was made in it is freed. */
static void run_recorded(entry *e, const syz_replay_call *call) {
    syz_tensor *out[SYZ_REPLAY_MAX_OUTPUTS] = {0};
    if (syz_scope_push() != SYZ_OK) return;
    call->run(call->context, e->in, out);
    for (int k = 0; k < call->nout && !syz_failed(); k++)
        copy_values(e->out[k], out[k]);
    syz_scope_pop();
}

static syz_status record(entry *e, const syz_replay_call *call) {
    SYZ_TRY(syz_device_record(call->device));
    double before = syz_meter_read(syz_meter_current());
    run_recorded(e, call);
    e->recording = syz_device_recorded(call->device);
    e->flops = syz_meter_read(syz_meter_current()) - before;
    syz_flops_count(-e->flops); /* nothing was computed yet */
    return syz_error_status();
}

/* Being interrupted says nothing about the work. */
static void refuse(syz_replays *r, entry *e) {
    drop_recording(e);
    if (syz_error_status() == SYZ_ECANCELED) return;
    snprintf(r->counts.reason, sizeof r->counts.reason, "%s", syz_error_message());
    r->counts.refused++;
    e->refused = true;
    syz_error_clear();
}

/* ---- running ---- */

static syz_status replay(syz_replays *r, entry *e, const syz_replay_call *call, syz_tensor *out[]) {
    SYZ_TRY(syz_check_cancel());
    SYZ_TRY(copy_inputs(e, call));
    SYZ_TRY(syz_device_replay(e->device, e->recording));
    syz_flops_count(e->flops);
    r->counts.replayed++;
    for (int k = 0; k < call->nout; k++)
        if (!(out[k] = syz_copy(e->out[k]))) return syz_error_status();
    return SYZ_OK;
}

/* The first run, or one that will never be recorded: its outputs' shapes are what a recording needs to know. */
static syz_status run_plainly(entry *e, const syz_replay_call *call, syz_tensor *out[]) {
    call->run(call->context, call->in, out);
    if (syz_failed() || e->refused) return syz_error_status();
    return make_places(e, call, out);
}

syz_status syz_replays_run(syz_replays **replays, const syz_replay_call *call, syz_tensor *out[]) {
    if (syz_failed()) return syz_error_status();
    if (!*replays) *replays = syz_alloc(1, sizeof **replays);
    entry *e = *replays ? find(*replays, call) : NULL;
    if (!e) return syz_error_status();
    syz_replays *r = *replays;
    e->used = ++r->clock;
    if (e->out[0] && !e->recording) {
        if (record(e, call) != SYZ_OK)
            refuse(r, e);
        else
            r->counts.recorded++;
        if (syz_failed()) return syz_error_status();
    }
    return e->recording ? replay(r, e, call, out) : run_plainly(e, call, out);
}

syz_graph_counts syz_replays_counts(const syz_replays *replays) {
    return replays ? replays->counts : (syz_graph_counts){0};
}

void syz_replays_free(syz_replays *replays) {
    for (int k = 0; replays && k < SYZ_REPLAYS_KEPT; k++)
        clear(&replays->entries[k]);
    free(replays);
}
