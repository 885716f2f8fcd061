/* The part of CUDA's runtime that ONNX Runtime's provider needs to load and place a model: an H100 without
   arithmetic. Memory is the host's. STUB_FAIL=driver: the driver is too old; =oom: no memory at all;
   =kernel: the libraries have no kernel for this GPU.
   STUB_LARGEST=BYTES: no piece of memory above that.
   STUB_TRACE=FILE: one line for each copy, stream, launch, mark and wait. STUB_HOLD=N: the first wait for a
   mark ends once N marks were recorded, so N batches must be in flight; after 20 s it ends anyway. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cuda_runtime_api.h>

#define TOO_OLD 35
#define NO_MEMORY 2
#define NO_KERNEL 209

static int fails(const char *how) {
    const char *asked = getenv("STUB_FAIL");
    return asked && !strcmp(asked, how);
}

static FILE *trace_file(void) {
    static FILE *file = 0;
    if (!file && getenv("STUB_TRACE")) {
        file = fopen(getenv("STUB_TRACE"), "a");
        if (file) setvbuf(file, 0, _IOLBF, 0);
    }
    return file;
}

#define TRACE(...) do { FILE *file = trace_file(); if (file) fprintf(file, __VA_ARGS__); } while (0)

static long next_handle = 0x1000;
static void *handle(void) { return (void *)(next_handle += 16); }

static cudaError_t allocate(void **pointer, size_t bytes) {
    *pointer = aligned_alloc(512, (bytes + 511) / 512 * 512);
    return *pointer ? 0 : NO_MEMORY;
}

static int current = 0;
cudaError_t cudaGetDeviceCount(int *count) {
    *count = !fails("driver");
    return fails("driver") ? TOO_OLD : 0;
}
cudaError_t cudaGetDevice(int *device) { *device = current; return 0; }
cudaError_t cudaSetDevice(int device) {
    if (fails("driver")) return TOO_OLD;
    current = device;
    return 0;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "NVIDIA H100 STUB");
    p->totalGlobalMem = 80ull << 30;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = 9;
    p->multiProcessorCount = 132;
    p->l2CacheSize = 50 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerMultiprocessor = 233472;
    p->sharedMemPerBlockOptin = 232448;
    p->regsPerMultiprocessor = 65536;
    p->unifiedAddressing = 1;
    p->concurrentKernels = 1;
    return 0;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        default: *value = 1;
    }
    return 0;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    *left = 78ull << 30;
    *total = 80ull << 30;
    return 0;
}
cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    const char *largest = getenv("STUB_LARGEST");
    if (fails("oom") || (largest && bytes > strtoull(largest, 0, 10))) return NO_MEMORY;
    return allocate(pointer, bytes);
}
cudaError_t cudaFree(void *pointer) { free(pointer); return 0; }
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) { return allocate(pointer, bytes); }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
cudaError_t cudaFreeHost(void *pointer) { free(pointer); return 0; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    TRACE("copy %zu kind %d\n", bytes, kind);
    memcpy(to, from, bytes);
    return 0;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    TRACE("copy-async %zu kind %d stream %p\n", bytes, kind, (void *)stream);
    memcpy(to, from, bytes);
    return 0;
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { memset(to, value, bytes); return 0; }
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    TRACE("clear %zu stream %p\n", bytes, (void *)stream);
    memset(to, value, bytes);
    return 0;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = handle(); return 0; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { *stream = handle(); return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    TRACE("wait stream %p\n", (void *)stream);
    return 0;
}
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
    TRACE("pin %zu\n", bytes);
    return 0;
}
cudaError_t cudaHostUnregister(void *pointer) { TRACE("unpin\n"); return 0; }
static volatile int records = 0;
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    TRACE("mark %p stream %p\n", (void *)event, (void *)stream);
    __sync_fetch_and_add(&records, 1);
    return 0;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const char *held = getenv("STUB_HOLD");
    for (int i = 0; held && records < atoi(held) && i < 20000; i++) usleep(1000);
    TRACE("wait mark %p\n", (void *)event);
    return 0;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = handle(); return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { *event = handle(); return 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) { *status = 0; return 0; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
const char *cudaGetErrorString(cudaError_t error) {
    if (error == TOO_OLD) return "CUDA driver version is insufficient for CUDA runtime version";
    if (error == NO_KERNEL) return "no kernel image is available for execution on the device";
    return error == NO_MEMORY ? "out of memory" : "an error of the stub";
}
const char *cudaGetErrorName(cudaError_t error) { return "stubError"; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeDevice;
    return 0;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                    size_t shared, unsigned flags) {
    *blocks = 2;
    return 0;
}
void **__cudaRegisterFatBinary(void *binary) { static void *handles[4]; return handles; }
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) { *kernel = (cudaKernel_t)function; return 0; }
static __thread struct { struct dim3 grid, block; size_t shared; void *stream; } call;  /* kernel<<<...>>>() */
unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, struct CUstream_st *stream) {
    call.grid = grid;
    call.block = block;
    call.shared = shared;
    call.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared, void *stream) {
    *grid = call.grid;
    *block = call.block;
    *shared = call.shared;
    *(void **)stream = call.stream;
    return 0;
}
static __thread cudaError_t last = 0;
static cudaError_t launched(void) { return last = fails("kernel") ? NO_KERNEL : 0; }
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = 0;
    return error;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, struct dim3 grid, struct dim3 block, void **arguments,
                               size_t shared, cudaStream_t stream) {
    TRACE("launch stream %p\n", (void *)stream);
    return launched();
}
cudaError_t cudaLaunchKernel(const void *function, struct dim3 grid, struct dim3 block, void **arguments,
                             size_t shared, cudaStream_t stream) {
    TRACE("launch stream %p\n", (void *)stream);
    return launched();
}
