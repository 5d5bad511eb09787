/* Graphs of cuDNN's backend API, written down node by node.
 *
 * As everywhere in the engine the first failure stays: after it every function does nothing and returns NULL, so that
 * only the end of a description is checked. Tensors are four-dimensional, [batch,head,token,feature]. */
#ifndef SYZ_CUDNN_GRAPH_H
#define SYZ_CUDNN_GRAPH_H

#include <cudnn.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef cudnnBackendDescriptor_t syz_descriptor;

enum { SYZ_CUDNN_DESCRIPTORS = 192, SYZ_CUDNN_NODES = 32 };

typedef struct {
    syz_descriptor made[SYZ_CUDNN_DESCRIPTORS]; /* all of them, to be destroyed */
    syz_descriptor node[SYZ_CUDNN_NODES];
    int count, nodes;
    int64_t next;     /* unique id of the next inner tensor */
    unsigned refused; /* engines with any of these notes are passed over: bits 1 << cudnnBackendNumericalNote_t */
    cudnnStatus_t status;
    char error[512];
} syz_cudnn_graph;

typedef struct {
    int64_t dim[4], step[4];
} syz_cudnn_layout;

void syz_cudnn_free(syz_cudnn_graph *g);

/* Keeps the first failure and what cuDNN says of it. */
void syz_cudnn_check(syz_cudnn_graph *g, cudnnStatus_t status);

/* A tensor that the caller passes by its id when the plan runs; an f32 number, passed from the host; one that exists
 * inside the plan only. */
syz_descriptor syz_cudnn_tensor(syz_cudnn_graph *g, int64_t id, cudnnDataType_t type, syz_cudnn_layout layout);
syz_descriptor syz_cudnn_number(syz_cudnn_graph *g, int64_t id);
syz_descriptor syz_cudnn_inner(syz_cudnn_graph *g, cudnnDataType_t type, syz_cudnn_layout layout);

/* Nodes: y = x (op) b, computed in f32 (b NULL: of one operand; t: of three, where t selects x or b); y = a b; y = x
 * reduced where y's size is 1; y = x in another order of dimensions; y = x's index along a dimension. */
void syz_cudnn_pointwise(syz_cudnn_graph *g, cudnnPointwiseMode_t mode, syz_descriptor x, syz_descriptor b,
                         syz_descriptor t, syz_descriptor y);
void syz_cudnn_index(syz_cudnn_graph *g, int64_t dim, syz_descriptor x, syz_descriptor y);
void syz_cudnn_product(syz_cudnn_graph *g, syz_descriptor a, syz_descriptor b, syz_descriptor y);
void syz_cudnn_reduce(syz_cudnn_graph *g, cudnnReduceTensorOp_t op, syz_descriptor x, syz_descriptor y);
void syz_cudnn_reshape(syz_cudnn_graph *g, syz_descriptor x, syz_descriptor y);

/* Building blocks for other nodes. */
syz_descriptor syz_cudnn_create(syz_cudnn_graph *g, cudnnBackendDescriptorType_t type);
void syz_cudnn_set(syz_cudnn_graph *g, syz_descriptor d, cudnnBackendAttributeName_t name,
                   cudnnBackendAttributeType_t type, int64_t count, const void *values);
void syz_cudnn_link(syz_cudnn_graph *g, syz_descriptor d, cudnnBackendAttributeName_t name, syz_descriptor value);
syz_descriptor syz_cudnn_finalize(syz_cudnn_graph *g, syz_descriptor d);
void syz_cudnn_add_node(syz_cudnn_graph *g, syz_descriptor node);

/* The first engine that the heuristics name, that is not refused and that can be made into a plan, with its workspace
 * in bytes; NULL when there is none. Either `handle` of a device, or `device`, a device's properties as JSON, with
 * which plans are made where there is none. The graph must outlive the plan. */
syz_descriptor syz_cudnn_plan(syz_cudnn_graph *g, int64_t *workspace, cudnnHandle_t handle, const char *device);

#ifdef __cplusplus
}
#endif

#endif
