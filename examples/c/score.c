/* Scores WAV files with model.samples.onnx of a bundle (rrtn export --samples):
 *
 *     cc -O2 score.c -o score -ldl
 *     ./score libonnxruntime.so.1 model.samples.onnx a.wav b.wav
 *
 * A line is a file and its scores, in the order of the labels in bundle.json. Files have the sampling rate that
 * the model's metadata name, one channel and 16 bits. All arithmetic is in the model. ONNX Runtime is loaded by
 * its path: no version is bound.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ONNX Runtime's C API is a table of functions whose order never changes; onnxruntime_c_api.h declares all.
 * These are the ones in use, at their places, so that no header is needed. */
typedef void Ort;
typedef Ort Status; /* NULL: all is well */
struct Api {
    void *_0[2];
    const char *(*GetErrorMessage)(const Status *);
    Status *(*CreateEnv)(int level, const char *name, Ort **env);
    void *_4[3]; Status *(*CreateSession)(const Ort *env, const char *path, const Ort *options, Ort **session);
    void *_8[1]; Status *(*Run)(Ort *session, const Ort *options, const char *const *input,
                                const Ort *const *value, size_t inputs, const char *const *output,
                                size_t outputs, Ort **result);
    Status *(*CreateSessionOptions)(Ort **options); void *_11[38];
    Status *(*CreateTensorWithData)(const Ort *memory, void *data, size_t bytes, const int64_t *shape,
                                    size_t dimensions, int type, Ort **value);
    void *_50[1]; Status *(*GetTensorMutableData)(Ort *value, void **data);
    void *_52[12]; Status *(*GetTensorShapeElementCount)(const Ort *info, size_t *count);
    Status *(*GetTensorTypeAndShape)(const Ort *value, Ort **info);
    void *_66[3]; Status *(*CreateCpuMemoryInfo)(int allocator, int memory, Ort **info);
    void *_70[6]; Status *(*AllocatorFree)(Ort *allocator, void *memory);
    void *_77[1]; Status *(*GetDefaultAllocator)(Ort **allocator);
    void *_79[13]; void (*ReleaseEnv)(Ort *);
    void *_93[1]; void (*ReleaseMemoryInfo)(Ort *), (*ReleaseSession)(Ort *), (*ReleaseValue)(Ort *);
    void *_97[2]; void (*ReleaseShape)(Ort *), (*ReleaseSessionOptions)(Ort *);
    void *_101[10]; Status *(*GetModelMetadata)(const Ort *session, Ort **metadata);
    void *_112[4]; Status *(*LookupMetadata)(const Ort *metadata, Ort *allocator, const char *key,
                                             char **value);
    void *_117[1]; void (*ReleaseModelMetadata)(Ort *);
};
_Static_assert(offsetof(struct Api, ReleaseModelMetadata) == 118 * sizeof(void *), "as ONNX Runtime has it");
struct ApiBase {
    const struct Api *(*GetApi)(uint32_t version);
};
enum { API_VERSION = 2, WARNINGS = 2, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0, FLOAT = 1 };
static const struct Api *ort;

static void die(const char *subject, const char *reason) {
    fprintf(stderr, "%s: %s\n", subject, reason);
    exit(1);
}

static void check(Status *status) {
    if (status) die("ONNX Runtime", ort->GetErrorMessage(status));
}

/* -> the model's sampling rate in Hz, from the JSON text that rrtn puts into the file */
static uint32_t model_rate(const char *path, const Ort *session) {
    const char *name = "\"sampling_rate\":";
    char *document = NULL;
    unsigned long rate = 0;
    Ort *metadata, *allocator;
    check(ort->GetDefaultAllocator(&allocator));
    check(ort->GetModelMetadata(session, &metadata));
    check(ort->LookupMetadata(metadata, allocator, "rrtn", &document));
    for (char *at = document; !rate && at && (at = strstr(at, name));) /* behind a label's name is no number */
        at += strlen(name), rate = strtoul(at, NULL, 10);
    if (!rate) die(path, "names no sampling rate: take a file of rrtn export --samples");
    if (document) check(ort->AllocatorFree(allocator, document));
    ort->ReleaseModelMetadata(metadata);
    return (uint32_t)rate;
}

static uint32_t number(const unsigned char *p, int bytes) { /* little-endian */
    return bytes ? *p | number(p + 1, bytes - 1) << 8 : 0;
}

/* -> the samples of a WAV file of this rate in [-1, 1), and how many there are */
static float *read_wav(const char *path, uint32_t rate, int64_t *count) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path, "cannot be read");
    size_t size = (size_t)ftell(file), at = 12, length = 0;
    unsigned char *bytes = malloc(size + 1), *format = NULL, *data = NULL;
    rewind(file);
    if (!bytes || fread(bytes, 1, size, file) != size) die(path, "cannot be read");
    fclose(file);
    if (size < 12 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 8, "WAVE", 4)) die(path, "no WAV file");
    for (; !data && at + 8 <= size; at += length + (length & 1)) {
        unsigned char *chunk = bytes + at;
        length = number(chunk + 4, 4), at += 8;
        if (length > size - at) die(path, "is cut off");
        if (!memcmp(chunk, "fmt ", 4) && length >= 16) format = bytes + at;
        if (!memcmp(chunk, "data", 4)) data = bytes + at;
    }
    if (!format || number(format + 2, 2) != 1 || number(format + 4, 4) != rate || number(format + 14, 2) != 16) {
        char reason[64];
        snprintf(reason, sizeof reason, "is not %u Hz, one channel, 16 bits", (unsigned)rate);
        die(path, reason);
    }
    if (!data || length < 2) die(path, "has no samples");
    for (size_t next = at, more; next + 8 <= size; next += 8 + more + (more & 1)) {
        more = number(bytes + next + 4, 4);
        if (!memcmp(bytes + next, "data", 4) || !memcmp(bytes + next, "RIFF", 4)) die(path, "has several recordings");
    }
    *count = length / 2;
    float *samples = malloc(*count * sizeof *samples);
    for (int64_t i = 0; samples && i < *count; i++) samples[i] = (int16_t)number(data + 2 * i, 2) / 32768.0f;
    free(bytes);
    return samples;
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage", "score libonnxruntime.so model.samples.onnx FILE.wav ...");
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) die(argv[1], dlerror());
    const struct ApiBase *(*base)(void) = (const struct ApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!base || !(ort = base()->GetApi(API_VERSION))) die(argv[1], "is not ONNX Runtime");
    Ort *env, *options, *session, *memory;
    check(ort->CreateEnv(WARNINGS, "rrtn", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->CreateSession(env, argv[2], options, &session));
    check(ort->CreateCpuMemoryInfo(DEVICE_ALLOCATOR, DEFAULT_MEMORY, &memory));
    const char *input = "samples", *output = "scores";
    uint32_t rate = model_rate(argv[2], session);
    for (int i = 3; i < argc; i++) {
        int64_t shape[2] = {1, 0};
        Ort *value, *result = NULL, *info;
        float *samples = read_wav(argv[i], rate, &shape[1]), *scores;
        size_t count;
        check(ort->CreateTensorWithData(memory, samples, shape[1] * sizeof *samples, shape, 2, FLOAT, &value));
        check(ort->Run(session, NULL, &input, (const Ort *const *)&value, 1, &output, 1, &result));
        check(ort->GetTensorMutableData(result, (void **)&scores));
        check(ort->GetTensorTypeAndShape(result, &info));
        check(ort->GetTensorShapeElementCount(info, &count));
        printf("%s", argv[i]);
        for (size_t k = 0; k < count; k++) printf(",%.9g", scores[k]);
        printf("\n");
        ort->ReleaseShape(info), ort->ReleaseValue(result), ort->ReleaseValue(value);
        free(samples);
    }
    ort->ReleaseMemoryInfo(memory), ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options), ort->ReleaseEnv(env);
    return 0;
}
