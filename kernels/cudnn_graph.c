#include "kernels/cudnn_graph.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void syz_cudnn_check(syz_cudnn_graph *g, cudnnStatus_t status) {
    if (g->status != CUDNN_STATUS_SUCCESS || status == CUDNN_STATUS_SUCCESS) return;
    char detail[400] = "";
    cudnnGetLastErrorString(detail, sizeof detail);
    detail[strcspn(detail, "\n")] = 0;
    g->status = status;
    snprintf(g->error, sizeof g->error, "%s: %s", cudnnGetErrorString(status), detail);
}

void syz_cudnn_free(syz_cudnn_graph *g) {
    while (g->count > 0)
        cudnnBackendDestroyDescriptor(g->made[--g->count]);
}

/* ---- descriptors ---- */

syz_descriptor syz_cudnn_create(syz_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    syz_descriptor d = NULL;
    if (g->count == SYZ_CUDNN_DESCRIPTORS) syz_cudnn_check(g, CUDNN_STATUS_ALLOC_FAILED);
    if (g->status != CUDNN_STATUS_SUCCESS) return NULL;
    syz_cudnn_check(g, cudnnBackendCreateDescriptor(type, &d));
    if (g->status != CUDNN_STATUS_SUCCESS) return NULL;
    return g->made[g->count++] = d;
}

void syz_cudnn_set(syz_cudnn_graph *g, syz_descriptor d, cudnnBackendAttributeName_t name,
                   cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (g->status == CUDNN_STATUS_SUCCESS) syz_cudnn_check(g, cudnnBackendSetAttribute(d, name, type, count, values));
}

void syz_cudnn_link(syz_cudnn_graph *g, syz_descriptor d, cudnnBackendAttributeName_t name, syz_descriptor value) {
    syz_cudnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

syz_descriptor syz_cudnn_finalize(syz_cudnn_graph *g, syz_descriptor d) {
    if (g->status == CUDNN_STATUS_SUCCESS) syz_cudnn_check(g, cudnnBackendFinalize(d));
    return g->status == CUDNN_STATUS_SUCCESS ? d : NULL;
}

void syz_cudnn_add_node(syz_cudnn_graph *g, syz_descriptor node) {
    node = syz_cudnn_finalize(g, node);
    if (g->nodes == SYZ_CUDNN_NODES) syz_cudnn_check(g, CUDNN_STATUS_ALLOC_FAILED);
    if (g->status == CUDNN_STATUS_SUCCESS) g->node[g->nodes++] = node;
}

/* ---- tensors ---- */

static syz_descriptor describe(syz_cudnn_graph *g, int64_t id, cudnnDataType_t type, syz_cudnn_layout layout,
                               bool inner, bool by_value) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t alignment = 16;
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, layout.dim);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, layout.step);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inner);
    syz_cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    return syz_cudnn_finalize(g, d);
}

syz_descriptor syz_cudnn_tensor(syz_cudnn_graph *g, int64_t id, cudnnDataType_t type, syz_cudnn_layout layout) {
    return describe(g, id, type, layout, false, false);
}

syz_descriptor syz_cudnn_number(syz_cudnn_graph *g, int64_t id) {
    return describe(g, id, CUDNN_DATA_FLOAT, (syz_cudnn_layout){{1, 1, 1, 1}, {1, 1, 1, 1}}, false, true);
}

syz_descriptor syz_cudnn_inner(syz_cudnn_graph *g, cudnnDataType_t type, syz_cudnn_layout layout) {
    return describe(g, 1000 + g->next++, type, layout, true, false);
}

/* ---- nodes ---- */

static syz_descriptor pointwise_mode(syz_cudnn_graph *g, cudnnPointwiseMode_t mode, int64_t axis) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    syz_cudnn_set(g, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    syz_cudnn_set(g, d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    if (axis >= 0) syz_cudnn_set(g, d, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    return syz_cudnn_finalize(g, d);
}

static void pointwise(syz_cudnn_graph *g, syz_descriptor how, syz_descriptor x, syz_descriptor b, syz_descriptor t,
                      syz_descriptor y) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    if (t) syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    syz_cudnn_add_node(g, d);
}

void syz_cudnn_pointwise(syz_cudnn_graph *g, cudnnPointwiseMode_t mode, syz_descriptor x, syz_descriptor b,
                         syz_descriptor t, syz_descriptor y) {
    pointwise(g, pointwise_mode(g, mode, -1), x, b, t, y);
}

void syz_cudnn_index(syz_cudnn_graph *g, int64_t dim, syz_descriptor x, syz_descriptor y) {
    pointwise(g, pointwise_mode(g, CUDNN_POINTWISE_GEN_INDEX, dim), x, NULL, NULL, y);
}

void syz_cudnn_product(syz_cudnn_graph *g, syz_descriptor a, syz_descriptor b, syz_descriptor y) {
    syz_descriptor how = syz_cudnn_create(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    syz_cudnn_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    how = syz_cudnn_finalize(g, how);
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    syz_cudnn_add_node(g, d);
}

void syz_cudnn_reduce(syz_cudnn_graph *g, cudnnReduceTensorOp_t op, syz_descriptor x, syz_descriptor y) {
    syz_descriptor how = syz_cudnn_create(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    syz_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    syz_cudnn_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op);
    how = syz_cudnn_finalize(g, how);
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    syz_cudnn_add_node(g, d);
}

void syz_cudnn_reshape(syz_cudnn_graph *g, syz_descriptor x, syz_descriptor y) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    syz_cudnn_add_node(g, d);
}

/* ---- plans ---- */

static syz_descriptor device_properties(syz_cudnn_graph *g, const char *json) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    syz_cudnn_set(g, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json);
    return syz_cudnn_finalize(g, d);
}

/* Where the heuristics name none, the graph's status stays good and the number of configurations is 0. */
static int64_t configurations(syz_cudnn_graph *g, syz_descriptor graph, syz_descriptor device,
                              cudnnBackendHeurMode_t mode, syz_descriptor *config, int64_t room) {
    int64_t found = 0;
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    syz_cudnn_link(g, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    syz_cudnn_set(g, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (device) syz_cudnn_link(g, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    if (g->status != CUDNN_STATUS_SUCCESS || cudnnBackendFinalize(d) != CUDNN_STATUS_SUCCESS) return 0;
    for (int64_t n = 0; n < room; n++)
        config[n] = syz_cudnn_create(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->status != CUDNN_STATUS_SUCCESS) return 0;
    syz_cudnn_check(g, cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, room,
                                                &found, config));
    return found < room ? found : room;
}

static bool refused(syz_cudnn_graph *g, syz_descriptor config) {
    cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t found = 0, notes = 0;
    syz_descriptor engine = syz_cudnn_create(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (!engine) return true;
    syz_cudnn_check(g, cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                                &found, &engine));
    syz_cudnn_check(g, cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                                CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &notes, note));
    for (int64_t n = 0; n < notes && n < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; n++)
        if (g->refused >> note[n] & 1) return true;
    return g->status != CUDNN_STATUS_SUCCESS;
}

static syz_descriptor plan_of(syz_cudnn_graph *g, syz_descriptor config, cudnnHandle_t handle, syz_descriptor device) {
    syz_descriptor plan = syz_cudnn_create(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    syz_cudnn_link(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (handle) syz_cudnn_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    if (device) syz_cudnn_link(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device);
    return g->status == CUDNN_STATUS_SUCCESS && cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS ? plan : NULL;
}

syz_descriptor syz_cudnn_plan(syz_cudnn_graph *g, int64_t *workspace, cudnnHandle_t handle, const char *device_json) {
    enum { ROOM = 16 };
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    syz_descriptor device = device_json ? device_properties(g, device_json) : NULL;
    syz_descriptor graph = syz_cudnn_create(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR), config[ROOM], plan = NULL;
    syz_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->nodes, g->node);
    if (handle) syz_cudnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    graph = syz_cudnn_finalize(g, graph);
    for (int m = 0; m < 2 && !plan; m++) {
        int64_t found = configurations(g, graph, device, modes[m], config, ROOM);
        for (int64_t n = 0; n < found && !plan; n++)
            plan = refused(g, config[n]) ? NULL : plan_of(g, config[n], handle, device);
    }
    if (!plan) {
        syz_cudnn_check(g, CUDNN_STATUS_NOT_SUPPORTED);
        return NULL;
    }
    syz_cudnn_check(g, cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                                NULL, workspace));
    return g->status == CUDNN_STATUS_SUCCESS ? plan : NULL;
}
