/* cuBLAS and cuDNN: what gives out a handle gives one; all else does nothing and says that it went well. */
#include <stdlib.h>

static int made(void **handle) { *handle = calloc(1, 4096); return 0; }
int cublasCreate_v2(void **handle) { return made(handle); }
int cublasLtCreate(void **handle) { return made(handle); }
int cudnnCreate(void **handle) { return made(handle); }
size_t cudnnGetVersion(void) { return 91900; }
const char *cudnnGetErrorString(int error) { return "an error of the stub"; }
const char *cublasGetStatusName(int status) { return "stub"; }
const char *cublasGetStatusString(int status) { return "stub"; }
void cudnnGetLastErrorString(char *text, size_t length) { if (length) text[0] = 0; }
int cudnnCreateTensorDescriptor(void **handle) { return made(handle); }
int cudnnCreateFilterDescriptor(void **handle) { return made(handle); }
int cudnnCreateConvolutionDescriptor(void **handle) { return made(handle); }
int cudnnCreateActivationDescriptor(void **handle) { return made(handle); }
int cudnnCreatePoolingDescriptor(void **handle) { return made(handle); }
int cudnnCreateReduceTensorDescriptor(void **handle) { return made(handle); }
int cudnnCreateDropoutDescriptor(void **handle) { return made(handle); }
int cudnnBackendCreateDescriptor(int type, void **handle) { return made(handle); }
