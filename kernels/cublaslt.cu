#include "kernels/cublaslt.cuh"

#include <algorithm>
#include <map>
#include <mutex>
#include <string.h>

namespace {

using namespace syz_cuda;

enum { PROPOSALS = 8, REPEATS = 5, MOST = 2048, ALIGNMENTS = 5 };

struct device {
    cublasLtHandle_t handle;
    std::string name; /* one word, with the version of cuBLASLt */
    size_t room;      /* bytes of workspace for each stream */
};

struct plan_key {
    lt_product product;
    int32_t device, alignment[ALIGNMENTS]; /* of a, b, d, bias, aux */
    int64_t room;
};

struct plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algo;
    bool exists = false, timed = false; /* exists: there is an algorithm */

    plan() = default;
    plan(const plan &) = delete;
    plan &operator=(const plan &) = delete;
    ~plan() {
        if (operation) cublasLtMatmulDescDestroy(operation);
        for (cublasLtMatrixLayout_t layout : {a, b, d})
            if (layout) cublasLtMatrixLayoutDestroy(layout);
    }
};

struct bytewise {
    bool operator()(const plan_key &x, const plan_key &y) const { return memcmp(&x, &y, sizeof x) < 0; }
};

struct state {
    std::mutex mutex; /* of all the rest: operands are written into the plans' descriptors */
    std::map<int, device> devices;
    std::map<std::pair<int, cudaStream_t>, void *> workspaces;
    std::map<plan_key, plan, bytewise> plans;
};

/* Never destroyed: when a process ends, the driver may be gone before it. */
state &kept() {
    static state *s = new state;
    return *s;
}

bool good(cublasStatus_t status) {
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    cudaGetLastError();
    failed("cuBLASLt: %s", cublasLtGetStatusString(status));
    return false;
}

device *device_of(int number) {
    auto found = kept().devices.find(number);
    if (found != kept().devices.end()) return &found->second;
    cudaDeviceProp properties;
    device made;
    if (status(cudaGetDeviceProperties(&properties, number)) != 0 || !good(cublasLtCreate(&made.handle)))
        return nullptr;
    made.name = std::string(properties.name) + "/" + std::to_string(cublasLtGetVersion());
    std::replace(made.name.begin(), made.name.end(), ' ', '_');
    made.room = std::min((size_t)(properties.major >= 9 ? 64 : 32) << 20, properties.totalGlobalMem / 512);
    return &(kept().devices[number] = made);
}

bool capturing(cudaStream_t stream) {
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    return status(cudaStreamIsCapturing(stream, &state)) != 0 || state != cudaStreamCaptureStatusNone;
}

/* Memory that a stream keeps; NULL when there is none, or when the stream is being captured into a graph, which would
 * own it. */
void *workspace_of(const device &d, int number, cudaStream_t stream) {
    auto found = kept().workspaces.find({number, stream});
    if (found != kept().workspaces.end()) return found->second;
    void *made = capturing(stream) ? nullptr : acquire(d.room, stream);
    if (made) kept().workspaces[{number, stream}] = made;
    return made;
}

/* The largest power of two up to 256, which is all that cuBLASLt asks about, that divides the address. */
int32_t alignment_of(const void *pointer) {
    uintptr_t address = (uintptr_t)pointer | 256;
    return (int32_t)(address & (~address + 1));
}

plan_key key_of(const lt_product &product, const lt_operands &o, int number, size_t room) {
    plan_key key;
    memset(&key, 0, sizeof key);
    key.product = product;
    key.device = number;
    key.room = (int64_t)room;
    const void *pointers[ALIGNMENTS] = {o.a, o.b, o.d, o.bias, o.aux};
    for (int k = 0; k < ALIGNMENTS; k++)
        key.alignment[k] = alignment_of(pointers[k]);
    return key;
}

/* The key as it stands in the file of what was timed. */
std::string text_of(const plan_key &key, const device &d) {
    const lt_product &p = key.product;
    std::string text = d.name;
    for (int64_t number :
         {p.rows, p.cols, p.depth, p.batch, p.lda, p.ldb, p.a_step, p.b_step, (int64_t)p.a_flip, (int64_t)p.b_flip,
          (int64_t)p.type, (int64_t)p.result_type, (int64_t)p.epilogue, (int64_t)p.add, key.room})
        text += "/" + std::to_string(number);
    for (int32_t alignment : key.alignment)
        text += "/" + std::to_string(alignment);
    return text;
}

/* ---- descriptors ---- */

template <typename T>
bool set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, T value) {
    return good(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value));
}
template <typename T>
bool set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, T value) {
    return good(cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, sizeof value));
}
template <typename T>
bool set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    return good(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

bool describe(cublasLtMatrixLayout_t *layout, int32_t type, int64_t rows, int64_t cols, bool flip, int64_t ld,
              int64_t batch, int64_t step) {
    if (flip) std::swap(rows, cols);
    return good(cublasLtMatrixLayoutCreate(layout, (cudaDataType_t)type, (uint64_t)rows, (uint64_t)cols, ld)) &&
           (batch == 1 || (set(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, (int32_t)batch) &&
                           set(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, step)));
}

bool describe(plan &made, const lt_product &p) {
    cublasOperation_t a = p.a_flip ? CUBLAS_OP_T : CUBLAS_OP_N, b = p.b_flip ? CUBLAS_OP_T : CUBLAS_OP_N;
    return good(cublasLtMatmulDescCreate(&made.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           set(made.operation, CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)a) &&
           set(made.operation, CUBLASLT_MATMUL_DESC_TRANSB, (int32_t)b) &&
           set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)p.epilogue) &&
           describe(&made.a, p.type, p.rows, p.depth, p.a_flip, p.lda, p.batch, p.a_step) &&
           describe(&made.b, p.type, p.depth, p.cols, p.b_flip, p.ldb, p.batch, p.b_step) &&
           describe(&made.d, p.result_type, p.rows, p.cols, false, p.rows, p.batch, p.rows * p.cols);
}

/* The pointers of the epilogue, whose alignment cuBLASLt reads here too. */
bool attach(const plan &made, const lt_product &p, const lt_operands &o) {
    if (o.scale_a && (!set(made.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, o.scale_a) ||
                      !set(made.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, o.scale_b)))
        return false;
    if (o.bias && !set(made.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias)) return false;
    if (!o.aux) return true;
    return set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, o.aux) &&
           set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.rows) &&
           (p.batch == 1 || set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, p.rows * p.cols));
}

/* ---- algorithms ---- */

struct run_arguments {
    const device &d;
    const plan &made;
    const lt_operands &o;
    float beta; /* of what d holds */
    void *workspace;
    size_t room;
    cudaStream_t stream;
};

bool run(const run_arguments &r, const cublasLtMatmulAlgo_t &algo, void *to) {
    const float one = 1;
    return good(cublasLtMatmul(r.d.handle, r.made.operation, &one, r.o.a, r.made.a, r.o.b, r.made.b, &r.beta, r.o.d,
                               r.made.d, to, r.made.d, &algo, r.workspace, r.room, r.stream));
}

/* Proposals, the one that should be fastest first; how many, -1 on failure. */
int propose(const device &d, const plan &made, const plan_key &key, cublasLtMatmulHeuristicResult_t *results,
            int most) {
    cublasLtMatmulPreference_t preference;
    if (!good(cublasLtMatmulPreferenceCreate(&preference))) return -1;
    int count = -1;
    if (set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)key.room) &&
        set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key.alignment[0]) &&
        set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key.alignment[1]) &&
        set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key.alignment[2]) &&
        set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key.alignment[2])) {
        cublasStatus_t found = cublasLtMatmulAlgoGetHeuristic(d.handle, made.operation, made.a, made.b, made.d, made.d,
                                                              preference, most, results, &count);
        if (!good(found)) count = found == CUBLAS_STATUS_NOT_SUPPORTED ? 0 : -1;
        auto runs = [](const cublasLtMatmulHeuristicResult_t &r) { return r.state == CUBLAS_STATUS_SUCCESS; };
        if (count > 0) count = (int)(std::stable_partition(results, results + count, runs) - results);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    return count;
}

/* Milliseconds of REPEATS runs, on a warm cache; negative when it does not run. */
float time_of(const run_arguments &r, const cublasLtMatmulAlgo_t &algo, void *to, cudaEvent_t begin, cudaEvent_t end) {
    float time = -1;
    if (!run(r, algo, to) || cudaEventRecord(begin, r.stream) != cudaSuccess) return -1;
    for (int k = 0; k < REPEATS; k++)
        if (!run(r, algo, to)) return -1;
    if (cudaEventRecord(end, r.stream) != cudaSuccess || cudaEventSynchronize(end) != cudaSuccess ||
        cudaEventElapsedTime(&time, begin, end) != cudaSuccess)
        return -1;
    return time;
}

/* The fastest of the proposals; the first where nothing can be timed. What is added to d must not be added again and
 * again: such products are timed into memory aside. */
int fastest(const run_arguments &r, const plan_key &key, const cublasLtMatmulHeuristicResult_t *results, int count) {
    const lt_product &p = key.product;
    int64_t size = p.result_type == CUDA_R_32F ? 4 : 2;
    scratch<char> aside(p.add ? p.batch * p.rows * p.cols * size : 1, r.stream);
    void *to = p.add ? aside.data : r.o.d;
    cudaEvent_t begin = nullptr, end = nullptr;
    int best = 0;
    float least = -1;
    if (to && status(cudaEventCreate(&begin)) == 0 && status(cudaEventCreate(&end)) == 0)
        for (int k = 0; k < count; k++) {
            float time = time_of(r, results[k].algo, to, begin, end);
            if (time < 0 || (least >= 0 && time >= least)) continue;
            least = time;
            best = k;
        }
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    cudaGetLastError();
    return best;
}

/* An algorithm of the file is data of unknown origin: cuBLASLt says whether it fits. */
bool usable(const device &d, const plan &made, const cublasLtMatmulAlgo_t &algo, size_t room) {
    cublasLtMatmulHeuristicResult_t result;
    return good(cublasLtMatmulAlgoCheck(d.handle, made.operation, made.a, made.b, made.d, made.d, &algo, &result)) &&
           result.workspaceSize <= room;
}

bool choose(plan &made, const plan_key &key, const run_arguments &r, bool tune) {
    std::string text = tune ? text_of(key, r.d) : std::string();
    made.timed = tune;
    if (tune && autotune_find(text, &made.algo) && usable(r.d, made, made.algo, r.room)) {
        made.exists = true;
        return true;
    }
    cublasLtMatmulHeuristicResult_t results[PROPOSALS];
    int count = propose(r.d, made, key, results, tune ? (int)PROPOSALS : 1);
    made.exists = count > 0;
    if (count <= 0) return count == 0;
    int best = tune ? fastest(r, key, results, count) : 0;
    made.algo = results[best].algo;
    if (tune) autotune_keep(text, made.algo);
    return true;
}

} // namespace

int syz_cuda::lt_run(const lt_product &product, const lt_operands &operands, cudaStream_t stream) {
    std::lock_guard<std::mutex> lock(kept().mutex);
    auto &plans = kept().plans;
    int number = 0;
    if (product.batch > INT32_MAX)
        return failed("%lld products are more than a batch may have", (long long)product.batch);
    if (status(cudaGetDevice(&number)) != 0) return -1;
    const device *d = device_of(number);
    if (!d) return -1;
    void *workspace = workspace_of(*d, number, stream);
    size_t room = workspace ? d->room : 0;
    plan_key key = key_of(product, operands, number, room);
    auto found = plans.find(key);
    bool tune = autotune_on() && (found == plans.end() || !found->second.timed) && !capturing(stream);
    bool known = found != plans.end();
    if (!known) {
        if (plans.size() >= MOST) plans.clear(); /* shapes that never repeat must not fill the memory */
        found = plans.try_emplace(key).first;
    }
    plan &p = found->second;
    run_arguments arguments = {*d, p, operands, product.add ? 1.0f : 0.0f, workspace, room, stream};
    bool ready = (known || describe(p, product)) && attach(p, product, operands) &&
                 ((known && !tune) || choose(p, key, arguments, tune));
    if (!ready) {
        plans.erase(found);
        return -1;
    }
    if (!p.exists) {
        failed("cuBLASLt has no algorithm for this product");
        return LT_NONE;
    }
    return run(arguments, p.algo, operands.d) ? 0 : -1;
}
