/* The tables of CUDA kernels, for f32 and for bf16 tensors. A slot calls the template of its name on the thread's
 * stream, inside an NVTX range of that name. */
#include "kernels/cuda.cuh"
#include "kernels/device.h"
#include "kernels/stream.cuh"

#include <type_traits>

namespace {

/* A slot's parameter as the template has it: what is syz_real in the table has a type here. */
template <typename REAL, typename P>
struct typed {
    typedef P type;
};
template <typename REAL>
struct typed<REAL, syz_real *> {
    typedef REAL *type;
};
template <typename REAL>
struct typed<REAL, const syz_real *> {
    typedef const REAL *type;
};

template <typename To, typename From>
To as(From argument) {
    if constexpr (std::is_same_v<To, From>)
        return argument;
    else
        return reinterpret_cast<To>(argument);
}

template <typename REAL, typename Slot>
struct slot;
template <typename REAL, typename... P>
struct slot<REAL, int (*)(P...)> {
    /* Kernels without a REAL parameter exist once. */
    static constexpr bool has_real = ((std::is_same_v<P, syz_real *> || std::is_same_v<P, const syz_real *>) || ...);
    typedef std::conditional_t<has_real, REAL, float> storage;

    template <auto kernel, const char *name>
    static int call(P... arguments) {
        syz_cuda::range range(name);
        return kernel(as<typename typed<REAL, P>::type>(arguments)..., syz_cuda::current_stream());
    }
};

#define KERNEL(name, params) constexpr char name_of_##name[] = #name;
#include "kernels/kernels.def"
#undef KERNEL

template <typename REAL>
syz_backend table() {
    syz_backend made = {};
#define KERNEL(name, params)                                                                                           \
    made.name = slot<REAL, decltype(made.name)>::template call<                                                        \
        &syz_cuda::name<typename slot<REAL, decltype(made.name)>::storage>, name_of_##name>;
#include "kernels/kernels.def"
#undef KERNEL
    return made;
}

} // namespace

extern const syz_backend syz_cuda_f32, syz_cuda_bf16;
const syz_backend syz_cuda_f32 = table<float>(), syz_cuda_bf16 = table<syz_bf16>();
