#ifndef SYZ_CORE_THREADS_H
#define SYZ_CORE_THREADS_H

#include "syzygy.h"

/* SYZ_ECANCELED when syz_cancel() was called since the last syz_cancel_clear(). */
syz_status syz_check_cancel(void);

#endif
