/* The interpreter: one node after the other, on dense f32 copies of its tensors, rounded to bf16 where they are stored
 * so. */
#include "cudnn_graph.hpp"

#include "cuda_runtime.h"

#include "cuda_bf16.h"

#include <cmath>

namespace emu_cudnn {

/* ---- what a node reads and writes ---- */

tensor::tensor(const descriptor *d) {
    auto dims = d->all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS), steps = d->all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    for (int k = 0; k < 4; k++) {
        dim[k] = dims[k];
        step[k] = steps[k];
    }
    id = d->one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    alignment = d->one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    type = d->one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    inner = d->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    number = d->flag(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
}

bool tensor::operator==(const tensor &other) const {
    return id == other.id && type == other.type && inner == other.inner && number == other.number &&
           memcmp(dim, other.dim, sizeof dim) == 0 && memcmp(step, other.step, sizeof step) == 0;
}

namespace {

struct node_tensors {
    cudnnBackendDescriptorType_t type;
    std::vector<int> reads;
    std::vector<int> writes;
};

const node_tensors &tensors_of(const descriptor *node) {
    static const node_tensors table[] = {
        {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
          CUDNN_ATTR_OPERATION_POINTWISE_TDESC},
         {CUDNN_ATTR_OPERATION_POINTWISE_YDESC}},
        {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC},
         {CUDNN_ATTR_OPERATION_MATMUL_CDESC}},
        {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_REDUCTION_XDESC},
         {CUDNN_ATTR_OPERATION_REDUCTION_YDESC}},
        {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_RESHAPE_XDESC},
         {CUDNN_ATTR_OPERATION_RESHAPE_YDESC}},
        {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,
          CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W},
         {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W},
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW}},
    };
    for (const node_tensors &t : table)
        if (t.type == node->type) return t;
    static const node_tensors nothing = {};
    return nothing;
}

} // namespace

std::vector<tensor> reads(const descriptor *node) {
    std::vector<tensor> found;
    for (int name : tensors_of(node).reads)
        if (node->has(name)) found.emplace_back(node->link(name));
    return found;
}

tensor writes(const descriptor *node) {
    return tensor(node->link(tensors_of(node).writes[0]));
}

bool is_convolution(const descriptor *node) {
    return node->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
           node->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ||
           node->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
}

/* In the order x, weight, y, description. */
static const int *convolution_names(const descriptor *node) {
    static const int names[3][4] = {
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC},
    };
    return names[node->type - CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR];
}

convolution::convolution(const descriptor *node)
    : x(node->link(convolution_names(node)[0])), w(node->link(convolution_names(node)[1])),
      y(node->link(convolution_names(node)[2])) {
    const descriptor *how = node->link(convolution_names(node)[3]);
    stride = how->all<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    before = how->all<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    after = how->all<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    dilation = how->all<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS);
}

/* ---- values ---- */

namespace {

typedef std::vector<float> values; /* row by row, whatever the steps */
struct position {
    int64_t at[4];
};

template <typename F>
void each(const int64_t dim[4], F f) {
    position p;
    for (p.at[0] = 0; p.at[0] < dim[0]; p.at[0]++)
        for (p.at[1] = 0; p.at[1] < dim[1]; p.at[1]++)
            for (p.at[2] = 0; p.at[2] < dim[2]; p.at[2]++)
                for (p.at[3] = 0; p.at[3] < dim[3]; p.at[3]++)
                    f(p);
}

/* A size of 1 is repeated. */
size_t index(const tensor &t, const position &p) {
    int64_t i = 0;
    for (int k = 0; k < 4; k++)
        i = i * t.dim[k] + (t.dim[k] == 1 ? 0 : p.at[k]);
    return (size_t)i;
}

int64_t offset(const tensor &t, const position &p) {
    int64_t i = 0;
    for (int k = 0; k < 4; k++)
        i += p.at[k] * t.step[k];
    return i;
}

float rounded(const tensor &t, float x) {
    return t.type == CUDNN_DATA_BFLOAT16 ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

/* As tensor cores read f32: ten bits after the point. */
float tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

struct interpreter {
    const descriptor *engine;
    const std::map<int64_t, void *> &data;
    std::map<int64_t, values> inner;
    bool good = true;

    void *array(const tensor &t) {
        auto found = data.find(t.id);
        bool usable = found != data.end() && (t.number || (uintptr_t)found->second % (uintptr_t)t.alignment == 0);
        good = good && usable;
        return usable ? found->second : nullptr;
    }

    values load(const tensor &t) {
        if (t.inner) return inner[t.id];
        values x((size_t)t.size());
        const void *from = array(t);
        if (!from) return x;
        each(t.dim, [&](const position &p) {
            int64_t i = t.number ? 0 : offset(t, p);
            x[index(t, p)] = t.type == CUDNN_DATA_BFLOAT16 ? __bfloat162float(((const __nv_bfloat16 *)from)[i])
                                                           : ((const float *)from)[i];
        });
        return x;
    }

    void keep(const tensor &t, values x) {
        for (float &value : x)
            value = rounded(t, value);
        if (t.inner) {
            inner[t.id] = std::move(x);
            return;
        }
        void *to = array(t);
        if (!to) return;
        each(t.dim, [&](const position &p) {
            int64_t i = offset(t, p);
            if (t.type == CUDNN_DATA_BFLOAT16)
                ((__nv_bfloat16 *)to)[i] = __float2bfloat16_rn(x[index(t, p)]);
            else
                ((float *)to)[i] = x[index(t, p)];
        });
    }

    void pointwise(const descriptor *node);
    void product(const descriptor *node);
    void reduce(const descriptor *node);
    void reshape(const descriptor *node);
    void attention(const descriptor *node);
    void convolve(const descriptor *node);
    void run(const descriptor *node);
};

/* ---- nodes ---- */

float apply(cudnnPointwiseMode_t mode, float x, float b, float t) {
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_EXP:
        return expf(x);
    case CUDNN_POINTWISE_LOG:
        return logf(x);
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    default:
        return x;
    }
}

void interpreter::pointwise(const descriptor *node) {
    const descriptor *how = node->link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    auto mode = how->one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    std::vector<tensor> in = reads(node);
    tensor y = writes(node);
    values out((size_t)y.size()), x[3];
    for (size_t k = 0; k < in.size() && mode != CUDNN_POINTWISE_GEN_INDEX; k++)
        x[k] = load(in[k]);
    each(y.dim, [&](const position &p) {
        float operand[3] = {0, 0, 0};
        for (size_t k = 0; k < in.size() && mode != CUDNN_POINTWISE_GEN_INDEX; k++)
            operand[k] = x[k][index(in[k], p)];
        if (mode == CUDNN_POINTWISE_GEN_INDEX) operand[0] = (float)p.at[how->one<int64_t>(CUDNN_ATTR_POINTWISE_AXIS)];
        out[index(y, p)] = apply(mode, operand[0], operand[1], operand[2]);
    });
    keep(y, out);
}

void interpreter::product(const descriptor *node) {
    std::vector<tensor> in = reads(node);
    tensor y = writes(node);
    values a = load(in[0]), b = load(in[1]), out((size_t)y.size());
    each(y.dim, [&](const position &p) {
        float sum = 0;
        for (int64_t k = 0; k < in[0].dim[3]; k++)
            sum +=
                a[index(in[0], {{p.at[0], p.at[1], p.at[2], k}})] * b[index(in[1], {{p.at[0], p.at[1], k, p.at[3]}})];
        out[index(y, p)] = sum;
    });
    keep(y, out);
}

void interpreter::reduce(const descriptor *node) {
    auto op =
        node->link(CUDNN_ATTR_OPERATION_REDUCTION_DESC)->one<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
    tensor in = reads(node)[0], y = writes(node);
    bool most = op == CUDNN_REDUCE_TENSOR_MAX;
    values x = load(in), out((size_t)y.size(), most ? -INFINITY : 0.0f);
    each(in.dim, [&](const position &p) {
        float &to = out[index(y, p)], value = x[index(in, p)];
        to = most ? fmaxf(to, value) : to + value;
    });
    keep(y, out);
}

/* The same memory under other sizes and steps: values move by their offset. */
void interpreter::reshape(const descriptor *node) {
    tensor in = reads(node)[0], y = writes(node);
    values x = load(in), out((size_t)y.size());
    std::map<int64_t, float> at;
    each(in.dim, [&](const position &p) { at[offset(in, p)] = x[index(in, p)]; });
    each(y.dim, [&](const position &p) { out[index(y, p)] = at.at(offset(y, p)); });
    keep(y, out);
}

void interpreter::attention(const descriptor *node) {
    std::vector<tensor> in = reads(node);
    tensor y = writes(node), stats(node->link(CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC));
    values q = load(in[0]), k = load(in[1]), v = load(in[2]), scale = load(in[3]);
    values out((size_t)y.size()), lse((size_t)stats.size()), score((size_t)in[1].dim[2]);
    int64_t keys = in[1].dim[2], width = in[0].dim[3];
    each(stats.dim, [&](const position &row) {
        float top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < keys; j++) {
            float s = 0;
            for (int64_t c = 0; c < width; c++)
                s += q[index(in[0], {{row.at[0], row.at[1], row.at[2], c}})] *
                     k[index(in[1], {{row.at[0], row.at[1], j, c}})];
            score[(size_t)j] = s * scale[0];
            top = fmaxf(top, score[(size_t)j]);
        }
        for (float &s : score)
            sum += s = expf(s - top);
        lse[index(stats, row)] = top + logf(sum);
        for (int64_t c = 0; c < width; c++) {
            float value = 0;
            for (int64_t j = 0; j < keys; j++)
                value += score[(size_t)j] / sum * v[index(in[2], {{row.at[0], row.at[1], j, c}})];
            out[index(y, {{row.at[0], row.at[1], row.at[2], c}})] = value;
        }
    });
    keep(y, out);
    keep(stats, lse);
}

/* The window of x that one pixel of y sees, in the order of the filter's values: f(place in the window, place in x). */
template <typename F>
void window(const convolution &c, int64_t image, int64_t row, int64_t column, F f) {
    int64_t at = 0;
    for (int64_t channel = 0; channel < c.w.dim[1]; channel++)
        for (int64_t i = 0; i < c.w.dim[2]; i++)
            for (int64_t j = 0; j < c.w.dim[3]; j++, at++) {
                int64_t y = row * c.stride[0] + i * c.dilation[0] - c.before[0];
                int64_t x = column * c.stride[1] + j * c.dilation[1] - c.before[1];
                if (y < 0 || y >= c.x.dim[2] || x < 0 || x >= c.x.dim[3]) continue;
                f((size_t)at, index(c.x, {{image, channel, y, x}}));
            }
}

float dot(const float *a, const float *b, size_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t k = 0; k < n; k++)
        sum += a[k] * b[k];
    return sum;
}

void add_scaled(float *to, const float *from, float factor, size_t n) {
    for (size_t k = 0; k < n; k++)
        to[k] += factor * from[k];
}

/* One pixel of y with everything that it is multiplied with: filters are rows of window values. */
void convolve_pixel(const convolution &c, const position &at, values &x, values &w, values &y, int wanted) {
    size_t count = (size_t)(c.w.dim[1] * c.w.dim[2] * c.w.dim[3]);
    values seen(count);
    if (wanted != 0) window(c, at.at[0], at.at[2], at.at[3], [&](size_t k, size_t from) { seen[k] = x[from]; });
    for (int64_t o = 0; o < c.w.dim[0]; o++) {
        float &value = y[index(c.y, {{at.at[0], o, at.at[2], at.at[3]}})], *filter = &w[(size_t)o * count];
        if (wanted == 0)
            add_scaled(seen.data(), filter, value, count);
        else if (wanted == 1)
            add_scaled(filter, seen.data(), value, count);
        else
            value = dot(seen.data(), filter, count);
    }
    if (wanted == 0) window(c, at.at[0], at.at[2], at.at[3], [&](size_t k, size_t to) { x[to] += seen[k]; });
}

/* An engine that is noted as nondeterministic adds in the order of the emulated machine's schedule. */
void interpreter::convolve(const descriptor *node) {
    convolution c(node);
    const tensor result = writes(node);
    bool coarse = c.x.type == CUDNN_DATA_FLOAT && engine->noted(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    bool backwards = engine->noted(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) && emu::the().schedule == emu::REVERSE;
    const tensor *all[] = {&c.x, &c.w, &c.y};
    values of[3];
    int wanted = 0;
    for (int k = 0; k < 3; k++) {
        if (all[k]->id == result.id) {
            wanted = k;
            of[k].resize((size_t)result.size());
            continue;
        }
        of[k] = load(*all[k]);
        for (float &value : of[k])
            value = coarse ? tf32(value) : value;
    }
    const int64_t pixels[] = {c.y.dim[0], 1, c.y.dim[2], c.y.dim[3]};
    each(pixels, [&](position at) {
        for (int k = 0; backwards && k < 4; k++)
            at.at[k] = pixels[k] - 1 - at.at[k];
        convolve_pixel(c, at, of[0], of[1], of[2], wanted);
    });
    keep(result, of[wanted]);
}

void interpreter::run(const descriptor *node) {
    switch (node->type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return pointwise(node);
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        return product(node);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return reduce(node);
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return reshape(node);
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
        return attention(node);
    default:
        return convolve(node);
    }
}

} // namespace

int plans = 0, executions = 0;

bool execute(const descriptor *plan, const std::map<int64_t, void *> &data) {
    interpreter it = {plan, data, {}, true};
    executions++;
    for (const descriptor *node : plan->graph->all<descriptor *>(CUDNN_ATTR_OPERATIONGRAPH_OPS))
        it.run(node);
    return it.good;
}

} // namespace emu_cudnn
