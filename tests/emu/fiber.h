/* Fibers: stacks that take turns on one processor. */
#ifndef SYZ_EMU_FIBER_H
#define SYZ_EMU_FIBER_H

#include <cstddef>
#include <cstring>

namespace emu {

/* The stacks' tops lie a few cache lines further in each than in the one before: at equal distances all of them would
 * compete for the same places of the cache. */
enum { FIBER_STACK = (64 << 10) + 320 };

#ifdef __x86_64__
/* Keeps the registers that a call must preserve on the stack, saves its pointer, and goes on where `next` was left. */
extern "C" void fiber_switch(void **save, void *next);
__asm__(".text\n.weak fiber_switch\n.type fiber_switch, @function\nfiber_switch:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n.size fiber_switch, .-fiber_switch\n");

/* A fiber that begins in `entry`, which must not return. */
inline void *fiber_new(char *stack, void (*entry)()) {
    void **top = (void **)(stack + FIBER_STACK) - 8; /* six registers, the return address, a word for alignment */
    memset(top, 0, 8 * sizeof *top);
    top[6] = (void *)entry;
    return top;
}
#else
}
#include <ucontext.h>
namespace emu {

inline void fiber_switch(void **save, void *next) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, (ucontext_t *)next);
}

inline void *fiber_new(char *stack, void (*entry)()) {
    ucontext_t *context = (ucontext_t *)stack; /* lives at the stack's far end */
    getcontext(context);
    context->uc_stack.ss_sp = stack + sizeof *context;
    context->uc_stack.ss_size = FIBER_STACK - sizeof *context;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}
#endif

} // namespace emu

#endif
