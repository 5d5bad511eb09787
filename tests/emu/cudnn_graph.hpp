/* What the emulated cuDNN's two halves share: cudnn.cpp keeps and checks descriptors, cudnn_run.cpp runs their graphs.
 */
#ifndef SYZ_EMU_CUDNN_GRAPH_HPP
#define SYZ_EMU_CUDNN_GRAPH_HPP

#include "cudnn.h"

#include <cstring>
#include <map>
#include <vector>

namespace emu_cudnn {

struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<int, std::vector<char>> attribute; /* values as they were set, byte by byte */
    std::vector<int> notes;                     /* of an engine and of what names it */
    descriptor *graph = nullptr;

    bool has(int name) const { return attribute.count(name) != 0; }
    template <typename T>
    std::vector<T> all(int name) const {
        const std::vector<char> &bytes = attribute.at(name);
        std::vector<T> values(bytes.size() / sizeof(T));
        if (!bytes.empty()) memcpy((void *)values.data(), bytes.data(), bytes.size());
        return values;
    }
    template <typename T>
    T one(int name) const {
        return all<T>(name)[0];
    }
    bool flag(int name) const { return has(name) && attribute.at(name)[0] != 0; }
    descriptor *link(int name) const { return has(name) ? one<descriptor *>(name) : nullptr; }
    bool noted(int note) const {
        for (int n : notes)
            if (n == note) return true;
        return false;
    }
};

struct tensor {
    int64_t id, dim[4], step[4], alignment;
    cudnnDataType_t type;
    bool inner, number;

    explicit tensor(const descriptor *d);
    int64_t size() const { return dim[0] * dim[1] * dim[2] * dim[3]; }
    bool operator==(const tensor &other) const;
};

/* Which attributes of a node are tensors: what it reads, then what it writes. Attributes that are not set are left out.
 */
std::vector<tensor> reads(const descriptor *node);
tensor writes(const descriptor *node);
bool is_convolution(const descriptor *node);
/* A convolution node's image, filter and product, whichever of them it writes. */
struct convolution {
    tensor x, w, y;
    std::vector<int64_t> stride, before, after, dilation;
    explicit convolution(const descriptor *node);
};

extern int plans, executions; /* how many were made, how often they ran */

/* Runs the graph of a plan's engine on the arrays of a variant pack, by id; false when an array is missing. */
bool execute(const descriptor *engine, const std::map<int64_t, void *> &data);

} // namespace emu_cudnn

#endif
