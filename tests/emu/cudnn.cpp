#include "cuda_runtime.h"
#include "cudnn_graph.hpp"
#include "memory.h"

#include <cstdarg>
#include <cstdio>
#include <memory>

using namespace emu_cudnn;

struct cudnnContext {
    cudaStream_t stream;
};

static char last_error[256];

__attribute__((format(printf, 2, 3))) static cudnnStatus_t refuse(cudnnStatus_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

/* ---- which attributes a descriptor has ---- */

namespace {

enum { ANY = 0 }; /* any number of values */

struct rule {
    cudnnBackendDescriptorType_t owner;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    bool needed;
};

size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

#define LINK(owner, name, needed)                                                                                      \
    { CUDNN_BACKEND_##owner##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, needed }
#define VALUE(owner, name, type, count, needed)                                                                        \
    { CUDNN_BACKEND_##owner##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, count, needed }

const rule rules[] = {
    VALUE(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, 1, true),
    VALUE(TENSOR, TENSOR_DIMENSIONS, INT64, 4, true),
    VALUE(TENSOR, TENSOR_STRIDES, INT64, 4, true),
    VALUE(TENSOR, TENSOR_UNIQUE_ID, INT64, 1, true),
    VALUE(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, 1, true),
    VALUE(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, 1, false),
    VALUE(TENSOR, TENSOR_IS_BY_VALUE, BOOLEAN, 1, false),
    VALUE(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, 1, true),
    VALUE(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, 1, true),
    VALUE(POINTWISE, POINTWISE_AXIS, INT64, 1, false),
    VALUE(MATMUL, MATMUL_COMP_TYPE, DATA_TYPE, 1, true),
    VALUE(REDUCTION, REDUCTION_COMP_TYPE, DATA_TYPE, 1, true),
    VALUE(REDUCTION, REDUCTION_OPERATOR, REDUCTION_OPERATOR_TYPE, 1, true),
    VALUE(CONVOLUTION, CONVOLUTION_COMP_TYPE, DATA_TYPE, 1, true),
    VALUE(CONVOLUTION, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, 1, true),
    VALUE(CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, INT64, 1, true),
    VALUE(CONVOLUTION, CONVOLUTION_DILATIONS, INT64, 2, true),
    VALUE(CONVOLUTION, CONVOLUTION_FILTER_STRIDES, INT64, 2, true),
    VALUE(CONVOLUTION, CONVOLUTION_PRE_PADDINGS, INT64, 2, true),
    VALUE(CONVOLUTION, CONVOLUTION_POST_PADDINGS, INT64, 2, true),
    LINK(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, true),
    LINK(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, true),
    LINK(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, false),
    LINK(OPERATION_POINTWISE, OPERATION_POINTWISE_TDESC, false),
    LINK(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, true),
    LINK(OPERATION_MATMUL, OPERATION_MATMUL_ADESC, true),
    LINK(OPERATION_MATMUL, OPERATION_MATMUL_BDESC, true),
    LINK(OPERATION_MATMUL, OPERATION_MATMUL_CDESC, true),
    LINK(OPERATION_MATMUL, OPERATION_MATMUL_DESC, true),
    LINK(OPERATION_REDUCTION, OPERATION_REDUCTION_XDESC, true),
    LINK(OPERATION_REDUCTION, OPERATION_REDUCTION_YDESC, true),
    LINK(OPERATION_REDUCTION, OPERATION_REDUCTION_DESC, true),
    LINK(OPERATION_RESHAPE, OPERATION_RESHAPE_XDESC, true),
    LINK(OPERATION_RESHAPE, OPERATION_RESHAPE_YDESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_QDESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_KDESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_VDESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_ODESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_STATSDESC, true),
    LINK(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_SCALEDESC, true),
    VALUE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_ALPHA, FLOAT, 1, true),
    VALUE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_BETA, FLOAT, 1, true),
    LINK(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_CONV_DESC, true),
    LINK(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_W, true),
    LINK(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_X, true),
    LINK(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_Y, true),
    VALUE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_ALPHA, FLOAT, 1, true),
    VALUE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_BETA, FLOAT, 1, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_W, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_DX, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_DY, true),
    VALUE(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, FLOAT, 1, true),
    VALUE(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_BETA, FLOAT, 1, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_DW, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_X, true),
    LINK(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER_DY, true),
    VALUE(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, ANY, true),
    VALUE(OPERATIONGRAPH, OPERATIONGRAPH_HANDLE, HANDLE, 1, true),
    VALUE(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, 1, true),
    LINK(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, true),
    VALUE(EXECUTION_PLAN, EXECUTION_PLAN_HANDLE, HANDLE, 1, true),
    LINK(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, true),
    VALUE(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, ANY, true),
    VALUE(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, ANY, true),
    VALUE(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, 1, false),
};

const rule *find_rule(const descriptor *d, cudnnBackendAttributeName_t name) {
    for (const rule &r : rules)
        if (r.owner == d->type && r.name == name) return &r;
    return nullptr;
}

/* ---- what must hold when one is finalized ---- */

cudnnStatus_t check_tensor(const descriptor *d) {
    tensor t(d);
    for (int k = 0; k < 4; k++)
        if (t.dim[k] < 1 || t.step[k] < 1)
            return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: size %lld, step %lld", (long long)t.id,
                          (long long)t.dim[k], (long long)t.step[k]);
    if (t.alignment < 4 || (t.alignment & (t.alignment - 1)))
        return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: alignment %lld", (long long)t.id, (long long)t.alignment);
    if (t.inner && t.number)
        return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: virtual and by value", (long long)t.id);
    return CUDNN_STATUS_SUCCESS;
}

bool fits(const tensor &x, const tensor &y) {
    for (int k = 0; k < 4; k++)
        if (x.dim[k] != y.dim[k] && x.dim[k] != 1) return false;
    return true;
}

cudnnStatus_t check_pointwise(const descriptor *d) {
    auto mode =
        d->link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    bool one = mode == CUDNN_POINTWISE_EXP || mode == CUDNN_POINTWISE_LOG || mode == CUDNN_POINTWISE_IDENTITY ||
               mode == CUDNN_POINTWISE_GEN_INDEX;
    size_t operands = mode == CUDNN_POINTWISE_BINARY_SELECT ? 3 : one ? 1 : 2;
    std::vector<tensor> x = reads(d);
    if (x.size() != operands)
        return refuse(CUDNN_STATUS_BAD_PARAM, "pointwise mode %d has %zu operands, not %zu", mode, operands, x.size());
    for (const tensor &t : x)
        if (!fits(t, writes(d)))
            return refuse(CUDNN_STATUS_BAD_PARAM, "pointwise: tensor %lld does not fit", (long long)t.id);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_product(const descriptor *d) {
    std::vector<tensor> x = reads(d);
    tensor y = writes(d);
    bool good = x[0].dim[2] == y.dim[2] && x[0].dim[3] == x[1].dim[2] && x[1].dim[3] == y.dim[3];
    for (int k = 0; k < 2; k++)
        good = good && x[0].dim[k] == y.dim[k] && x[1].dim[k] == y.dim[k];
    return good ? CUDNN_STATUS_SUCCESS : refuse(CUDNN_STATUS_BAD_PARAM, "matmul: sizes differ");
}

cudnnStatus_t check_convolution(const descriptor *d) {
    convolution c(d);
    for (int k = 0; k < 2; k++) {
        int64_t room = c.x.dim[2 + k] + c.before[k] + c.after[k] - c.dilation[k] * (c.w.dim[2 + k] - 1) - 1;
        if (c.before[k] < 0 || c.after[k] < 0 || c.stride[k] < 1 || c.dilation[k] < 1 || room < 0 ||
            room / c.stride[k] + 1 != c.y.dim[2 + k])
            return refuse(CUDNN_STATUS_BAD_PARAM, "convolution: sizes of dimension %d differ", k);
    }
    bool good = c.x.dim[0] == c.y.dim[0] && c.x.dim[1] == c.w.dim[1] && c.w.dim[0] == c.y.dim[1];
    return good ? CUDNN_STATUS_SUCCESS : refuse(CUDNN_STATUS_BAD_PARAM, "convolution: images or channels differ");
}

/* Inner tensors are made by one node before others read them, and every id means one tensor. */
cudnnStatus_t check_graph(const descriptor *d) {
    std::map<int64_t, tensor> known;
    std::map<int64_t, bool> made;
    for (descriptor *node : d->all<descriptor *>(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        std::vector<tensor> all = reads(node);
        for (const tensor &t : all)
            if (t.inner && !made[t.id])
                return refuse(CUDNN_STATUS_BAD_PARAM, "virtual tensor %lld is read before it is made", (long long)t.id);
        all.push_back(writes(node));
        if (all.back().number || made[all.back().id])
            return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld cannot be written here", (long long)all.back().id);
        made[all.back().id] = true;
        for (const tensor &t : all)
            if (!(known.emplace(t.id, t).first->second == t))
                return refuse(CUDNN_STATUS_BAD_PARAM, "two tensors have the id %lld", (long long)t.id);
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_pack(const descriptor *d) {
    auto ids = d->all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto data = d->all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    std::map<int64_t, bool> seen;
    if (ids.size() != data.size())
        return refuse(CUDNN_STATUS_BAD_PARAM, "%zu ids, %zu pointers", ids.size(), data.size());
    for (size_t n = 0; n < ids.size(); n++) {
        if (seen[ids[n]] || !data[n])
            return refuse(CUDNN_STATUS_BAD_PARAM, "id %lld: twice, or NULL", (long long)ids[n]);
        seen[ids[n]] = true;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- engines ---- */

typedef std::vector<std::vector<int>> engines; /* the notes of each */

/* Whether the arrays of a graph are rows of whole 16 bytes, with heads of at most `most` values, in bf16. */
bool attention_fits(const std::vector<descriptor *> &nodes, bool backward) {
    for (descriptor *node : nodes) {
        if (node->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) continue;
        std::vector<tensor> all = reads(node);
        all.push_back(writes(node));
        for (const tensor &t : all) {
            if (t.inner || t.type != CUDNN_DATA_BFLOAT16) continue;
            bool transposed = t.step[3] != 1;
            int64_t d = t.dim[transposed ? 2 : 3], row = t.step[transposed ? 3 : 2];
            if (d % 8 || d > (backward ? 128 : 256) || row % 8 || t.step[1] % 8 || t.step[0] % 8) return false;
        }
    }
    return true;
}

/* As an H200's heuristics name them: in f32 first those that round to TF32, for gradients first one that adds in any
 * order, and for filter gradients of bf16 images in f32 none unless both numbers of channels are multiples of 8. */
engines convolution_engines(const descriptor *node, cudnnBackendHeurMode_t mode) {
    convolution c(node);
    bool f32 = c.x.type == CUDNN_DATA_FLOAT,
         gradient = node->type != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
    bool filter = node->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
    if (filter && !f32 && c.w.type == CUDNN_DATA_FLOAT && (c.x.dim[1] % 8 || c.y.dim[1] % 8)) return {};
    if (mode == CUDNN_HEUR_MODE_FALLBACK) return f32 ? engines{{}} : engines{};
    std::vector<int> usual = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    if (!gradient) return {usual};
    std::vector<int> unordered = f32 ? std::vector<int>{} : usual;
    unordered.push_back(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    return {unordered, usual};
}

engines engines_of(const descriptor *graph, cudnnBackendHeurMode_t mode) {
    auto nodes = graph->all<descriptor *>(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    if (is_convolution(nodes[0])) return convolution_engines(nodes[0], mode);
    bool backward = false;
    for (descriptor *node : nodes)
        backward = backward || node->type == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR;
    bool known = mode == CUDNN_HEUR_MODE_A && attention_fits(nodes, backward);
    return known ? engines{{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}} : engines{};
}

cudnnStatus_t check(descriptor *d) {
    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return check_tensor(d);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return check_pointwise(d);
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        return check_product(d);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return fits(writes(d), reads(d)[0]) ? CUDNN_STATUS_SUCCESS : refuse(CUDNN_STATUS_BAD_PARAM, "reduction: sizes");
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return writes(d).size() == reads(d)[0].size() ? CUDNN_STATUS_SUCCESS
                                                      : refuse(CUDNN_STATUS_BAD_PARAM, "reshape: sizes");
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return check_graph(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        return check_pack(d);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        plans++;
        d->notes = d->link(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->notes;
        d->graph = d->link(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->graph;
        return CUDNN_STATUS_SUCCESS;
    default:
        return is_convolution(d) ? check_convolution(d) : CUDNN_STATUS_SUCCESS;
    }
}

enum { WORKSPACE = 384 };

} // namespace

/* ---- the API ---- */

emu_machine emu_installed = {CUDART_VERSION, 90, CUDNN_VERSION, (size_t)1 << 30};

size_t cudnnGetVersion(void) {
    return (size_t)emu_installed.cudnn;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    static const char *const names[] = {"success",       "not initialized", "allocation failed",
                                        "bad parameter", "not supported",   "execution failed"};
    return names[status];
}

void cudnnGetLastErrorString(char *message, size_t size) {
    snprintf(message, size, "%s", last_error);
    last_error[0] = 0;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = new cudnnContext();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *made) {
    if (type == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
        return refuse(CUDNN_STATUS_NOT_SUPPORTED, "the emulated device has no properties");
    descriptor *d = new descriptor();
    d->type = type;
    *made = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
    delete (descriptor *)d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d_, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    descriptor *d = (descriptor *)d_;
    const rule *r = find_rule(d, name);
    if (d->finalized || !r || r->type != type || (r->count != ANY && r->count != count) || count < 1)
        return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d takes no %lld values of type %d as attribute %d", d->type,
                      (long long)count, type, name);
    for (int64_t n = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && n < count; n++) {
        const descriptor *value = ((descriptor *const *)values)[n];
        if (!value || !value->finalized)
            return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d: the descriptor is not finalized", name);
    }
    d->attribute[name].assign((const char *)values, (const char *)values + (size_t)count * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d_) {
    descriptor *d = (descriptor *)d_;
    for (const rule &r : rules)
        if (r.owner == d->type && r.needed && !d->has(r.name))
            return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d lacks attribute %d", d->type, r.name);
    if (d->finalized) return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d is finalized already", d->type);
    cudnnStatus_t status = check(d);
    d->finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

/* The descriptors to be filled were made by the caller. */
static cudnnStatus_t name_engine(descriptor *to, const std::vector<int> &notes, descriptor *graph,
                                 cudnnBackendDescriptorType_t type) {
    if (to->type != type) return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d is not of type %d", to->type, type);
    to->notes = notes;
    to->graph = graph;
    to->finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d_, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t room, int64_t *count, void *values) {
    descriptor *d = (descriptor *)d_;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    int64_t found = 1;
    if (!d->finalized) return refuse(CUDNN_STATUS_BAD_PARAM, "descriptor %d is not finalized", d->type);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        descriptor *graph = d->link(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        engines all = engines_of(graph, d->one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE));
        found = (int64_t)all.size();
        for (int64_t n = 0; n < found && n < room && status == CUDNN_STATUS_SUCCESS; n++)
            status = name_engine(((descriptor **)values)[n], all[(size_t)n], graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
        status = name_engine(*(descriptor **)values, d->notes, d->graph, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
        found = (int64_t)d->notes.size();
        for (int64_t n = 0; n < found && n < room; n++)
            ((int *)values)[n] = d->notes[(size_t)n];
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        *(int64_t *)values = WORKSPACE;
    } else {
        status = refuse(CUDNN_STATUS_NOT_SUPPORTED, "attribute %d cannot be read", name);
    }
    if (count) *count = found;
    return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_,
                                  cudnnBackendDescriptor_t pack_) {
    const descriptor *plan = (const descriptor *)plan_, *pack = (const descriptor *)pack_;
    if (!plan->finalized || !pack->finalized) return refuse(CUDNN_STATUS_BAD_PARAM, "not finalized");
    auto ids = pack->all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto pointers = pack->all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    void *workspace =
        pack->has(CUDNN_ATTR_VARIANT_PACK_WORKSPACE) ? pack->one<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE) : nullptr;
    if (!workspace) return refuse(CUDNN_STATUS_BAD_PARAM, "there is no workspace");
    cudaStream_t stream = handle ? handle->stream : nullptr;
    bool later = stream && (stream->capture || stream->lazy);
    auto numbers = std::make_shared<std::map<int64_t, float>>(); /* of the caller, read now */
    std::map<int64_t, void *> data;
    for (size_t n = 0; n < ids.size(); n++) {
        data[ids[n]] = pointers[n];
        if (!later || emu::is_device(pointers[n])) continue;
        (*numbers)[ids[n]] = *(const float *)pointers[n];
        data[ids[n]] = &(*numbers)[ids[n]];
    }
    emu_counted.kernels++;
    cudaError_t error = emu::submit(stream, [=, keep = numbers] {
        emu::access writable;
        memset(workspace, 0xff, WORKSPACE);
        return execute(plan, data) ? cudaSuccess : cudaErrorLaunchFailure;
    });
    return error == cudaSuccess ? CUDNN_STATUS_SUCCESS
                                : refuse(CUDNN_STATUS_EXECUTION_FAILED, "an array is missing or not aligned");
}
