/* Calls whose work on a GPU is recorded once and then repeated (a CUDA graph): one launch in place of some thousand,
 * and nothing for the CPU to do.
 *
 * A recording reads and writes fixed memory. Its inputs and outputs are tensors of its own, that a call's are copied to
 * and from. What else it reads (weights, adapters, tables) must lie where it lay, which the caller's `state` says: a
 * recording is used only in the state in which it was made. */
#ifndef SYZ_MODELS_REPLAY_H
#define SYZ_MODELS_REPLAY_H

#include "tensor/tensor.h"

enum { SYZ_REPLAY_MAX_INPUTS = 8, SYZ_REPLAY_MAX_OUTPUTS = 4, SYZ_REPLAYS_KEPT = 8 };

/* What is run: sets all outputs, or leaves an error. */
typedef void (*syz_replay_run)(void *context, syz_tensor *const in[], syz_tensor *out[]);

typedef struct {
    syz_replay_run run;
    void *context;
    const void *what; /* which work this is: a method's address */
    uint64_t state;   /* of all that the work depends on besides its inputs */
    int device;
    syz_tensor *const *in; /* NULLs allowed; those on the CPU count with their values */
    int nin, nout;
} syz_replay_call;

typedef struct syz_replays syz_replays;

/* Run the call: as it is the first time, recorded the second, repeated from then on. Work that cannot be recorded is
 * run as it is, ever after. Outputs are new tensors. */
syz_status syz_replays_run(syz_replays **replays, const syz_replay_call *call, syz_tensor *out[]);
syz_graph_counts syz_replays_counts(const syz_replays *replays); /* NULL: zeros */
void syz_replays_free(syz_replays *replays);                     /* NULL is allowed */

#endif
