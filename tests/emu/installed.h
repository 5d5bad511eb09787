/* The machine that is emulated; tests of what is refused change it. Plain C. */
#ifndef SYZ_EMU_INSTALLED_H
#define SYZ_EMU_INSTALLED_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int driver, compute, cudnn; /* versions as the libraries give them; the driver's 0: none is loaded */
    size_t memory;              /* bytes of each GPU */
} emu_machine;

extern emu_machine emu_installed;

#ifdef __cplusplus
}
#endif

#endif
