/* What the CUDA side of attention lets its tests set. */
#ifndef SYZ_ATTENTION_CUH
#define SYZ_ATTENTION_CUH

#include <stdint.h>

namespace syz_cuda {

/* Where cuDNN has no plan, scores are made for as many queries at once as keep each array of them, in f32, within this
 * many bytes (at least one query of all heads). */
extern int64_t attention_scores;

} // namespace syz_cuda

#endif
