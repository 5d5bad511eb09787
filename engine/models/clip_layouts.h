/* The names that other libraries give the parameters of CLIP and SigLIP; lists for syz_model_class_info. */
#ifndef SYZ_MODELS_CLIP_LAYOUTS_H
#define SYZ_MODELS_CLIP_LAYOUTS_H

#include "models/layout.h"

extern const syz_layout syz_clip_layouts[];      /* both towers, as open_clip and OpenAI have them */
extern const syz_layout syz_clip_text_layouts[]; /* a lone text tower as transformers 5 saves it */
extern const syz_layout syz_siglip_layouts[];    /* a lone SigLIP vision tower, likewise */

#endif
