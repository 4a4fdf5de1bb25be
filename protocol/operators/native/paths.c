/* The paths of this build. */

#include "binary.h"

extern const Path binary_portable;
#ifdef __x86_64__
extern const Path binary_avx2;
#endif
#ifdef __aarch64__
extern const Path binary_neon;
#endif

const Path *const binary_paths[] = {
#ifdef __x86_64__
    &binary_avx2,
#endif
#ifdef __aarch64__
    &binary_neon,
#endif
    &binary_portable,
    NULL,
};
