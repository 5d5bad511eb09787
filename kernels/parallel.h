/* When a loop is worth the pool: waking two threads costs about as much as 10^4 simple operations. */
#ifndef SYZ_PARALLEL_H
#define SYZ_PARALLEL_H

enum { SYZ_PARALLEL_MIN = 16384 };

#endif
