/* Names of stretches of time, which nobody looks at here. */
#ifndef SYZ_EMU_NVTX_H
#define SYZ_EMU_NVTX_H

inline int nvtxRangePushA(const char *) {
    return 0;
}
inline int nvtxRangePop() {
    return 0;
}

#endif
