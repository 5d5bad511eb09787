#include "kernels/cudnn_plans.cuh"

#include <map>
#include <mutex>
#include <stdlib.h>
#include <string>

struct syz_cuda::cudnn_plan {
    cudnnHandle_t handle;
    syz_cudnn_graph *graph; /* owns all descriptors of the plan */
    syz_descriptor plan;
    int64_t workspace;
};

namespace {

using namespace syz_cuda;

struct found_plan {
    cudnn_plan *plan;    /* NULL: cuDNN has none */
    std::string problem; /* as cuDNN says it */
};

/* Never destroyed: when the process ends, the driver may have ended before. Executions and the handles' streams are set
 * under the lock. */
struct plan_cache {
    std::mutex lock;
    std::map<int, cudnnHandle_t> handles;
    std::map<std::string, found_plan> plans;
};

plan_cache &the_cache() {
    static plan_cache *cache = new plan_cache();
    return *cache;
}

cudnnHandle_t handle_of(plan_cache &cache, int device) {
    cudnnHandle_t &handle = cache.handles[device];
    if (handle) return handle;
    cudnnStatus_t made = cudnnCreate(&handle);
    if (made == CUDNN_STATUS_SUCCESS) return handle;
    failed("cuDNN: %s", cudnnGetErrorString(made));
    return handle = nullptr;
}

found_plan make_plan(cudnnHandle_t handle, void (*describe)(syz_cudnn_graph *, const void *), const void *key) {
    syz_cudnn_graph *graph = (syz_cudnn_graph *)calloc(1, sizeof *graph);
    if (!graph) return {nullptr, "out of memory"};
    int64_t workspace = 0;
    describe(graph, key);
    syz_descriptor plan = syz_cudnn_plan(graph, &workspace, handle, nullptr);
    if (plan) return {new cudnn_plan{handle, graph, plan, workspace}, ""};
    std::string problem = graph->error;
    syz_cudnn_free(graph);
    free(graph);
    return {nullptr, problem};
}

} // namespace

const syz_cuda::cudnn_plan *syz_cuda::find_plan(void (*describe)(syz_cudnn_graph *, const void *), const void *key,
                                                size_t size) {
    plan_cache &cache = the_cache();
    int device = 0;
    if (status(cudaGetDevice(&device)) != 0) return nullptr;
    std::string name((const char *)&device, sizeof device);
    name.append((const char *)&describe, sizeof describe).append((const char *)key, size);
    std::lock_guard<std::mutex> hold(cache.lock);
    auto found = cache.plans.find(name);
    if (found == cache.plans.end()) {
        cudnnHandle_t handle = handle_of(cache, device);
        if (!handle) return nullptr;
        found = cache.plans.emplace(name, make_plan(handle, describe, key)).first;
    }
    if (!found->second.plan) failed("cuDNN: %s", found->second.problem.c_str());
    return found->second.plan;
}

/* The arrays of one run; destroyed when it has been queued. */
static syz_descriptor pack_of(syz_cudnn_graph *g, const syz_cuda::cudnn_array *arrays, int count, void *workspace) {
    int64_t id[syz_cuda::CUDNN_ARRAYS];
    const void *data[syz_cuda::CUDNN_ARRAYS];
    for (int n = 0; n < count; n++) {
        id[n] = arrays[n].id;
        data[n] = arrays[n].data;
    }
    syz_descriptor pack = syz_cudnn_create(g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    syz_cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data);
    syz_cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, id);
    syz_cudnn_set(g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    return syz_cudnn_finalize(g, pack);
}

int syz_cuda::run_plan(const cudnn_plan *plan, const cudnn_array *arrays, int count, cudaStream_t stream) {
    scratch<char> workspace(plan->workspace > 0 ? plan->workspace : 16, stream);
    syz_cudnn_graph g = {};
    if (!workspace.data) return -1;
    if (count > CUDNN_ARRAYS) return failed("a plan of %d arrays, %d are allowed", count, (int)CUDNN_ARRAYS);
    syz_descriptor pack = pack_of(&g, arrays, count, workspace.data);
    if (pack) {
        std::lock_guard<std::mutex> hold(the_cache().lock);
        syz_cudnn_check(&g, cudnnSetStream(plan->handle, stream));
        if (g.status == CUDNN_STATUS_SUCCESS) syz_cudnn_check(&g, cudnnBackendExecute(plan->handle, plan->plan, pack));
    }
    syz_cudnn_free(&g);
    return g.status == CUDNN_STATUS_SUCCESS ? 0 : failed("cuDNN: %s", g.error);
}
