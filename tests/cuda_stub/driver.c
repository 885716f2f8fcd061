/* libcuda: one H100. STUB_FAIL=old: a driver of CUDA 12.4; =hidden: no device; =broken: it cannot start; =volta: a GPU
   of compute capability 7.0. */
#include <stdlib.h>
#include <string.h>

static int fails(const char *how) {
    const char *asked = getenv("STUB_FAIL");
    return asked && !strcmp(asked, how);
}
int cuInit(unsigned flags) { return fails("hidden") ? 100 : fails("broken") ? 999 : 0; }
int cuDriverGetVersion(int *version) { *version = fails("old") ? 12040 : 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "NVIDIA H100 STUB", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute != 75 ? 0 : fails("volta") ? 7 : 9; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0xc0de; return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x57e0; return 0; }
int cuGetErrorString(int code, const char **text) {
    *text = code == 100 ? "no CUDA-capable device is detected" : "unknown error";
    return 0;
}
