/* What older_cpu.py puts in front of a process: the CPUID instruction faults there, and the handler answers in
   its place, without what a newer processor has. It faults by itself where a processor can do that (CPUID
   faulting, arch_prctl(2)). Elsewhere this library is an auditor, too (rtld-audit(7)): in each library that is
   loaded, before its first code runs, NO_CODE is written over the CPUID instructions that objdump finds. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
#define EXTENDED 0x80000000u
#define CPUID "\x0F\xA2"
#define NO_CODE "\x0F\x04" /* as long, and no processor has it: SIGILL */
enum { ARCH_SET_CPUID = 0x1012, LEAVES = 64, SUBLEAVES = 64, EAX = 0, EBX, ECX, EDX };

/* Bits of leaf 7 (Intel's manual, volume 2, CPUID). */
static const uint32_t
    AVX512_EBX = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31),
    AVX512_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14), /* VNNI is 11 */
    AVX512_EDX = BIT(2) | BIT(3) | BIT(8), AVX512_FP16_EDX = BIT(23),
    AMX_EDX = BIT(22) | BIT(24) | BIT(25),
    AVX_VNNI_EAX = BIT(4), AVX512_BF16_EAX = BIT(5), AMX_FP16_EAX = BIT(21), /* of subleaf 1 */
    NEWER_EDX = BIT(4) | BIT(8) | BIT(10) | BIT(19), /* AVX-VNNI-INT8, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    AVX512_STATE = BIT(5) | BIT(6) | BIT(7), AMX_STATE = BIT(17) | BIT(18); /* of leaf 13 */

static uint32_t basic[LEAVES][SUBLEAVES][4], extended[LEAVES][SUBLEAVES][4];
static int fault = SIGSEGV, reason = SI_KERNEL; /* SIGILL and ILL_ILLOPN where NO_CODE is written */
static const char *fault_code = CPUID, *places; /* the folder of what objdump found */
static struct sigaction theirs; /* what the program has asked for `fault` */
typedef int sigaction_function(int, const struct sigaction *, struct sigaction *);
typedef int mask_function(int, const sigset_t *, sigset_t *);
static sigaction_function *real_sigaction;

static void read_all(void) {
    uint32_t r[4];
    __cpuid(EXTENDED, r[0], r[1], r[2], r[3]);
    for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
        for (uint32_t sub = 0; sub < SUBLEAVES; sub++) {
            uint32_t *to = basic[leaf][sub];
            __cpuid_count(leaf, sub, to[EAX], to[EBX], to[ECX], to[EDX]);
        }
        for (uint32_t sub = 0; (EXTENDED | leaf) <= r[EAX] && sub < SUBLEAVES; sub++) {
            uint32_t *to = extended[leaf][sub];
            __cpuid_count(EXTENDED | leaf, sub, to[EAX], to[EBX], to[ECX], to[EDX]);
        }
    }
}

static void hide(int vnni_stays) {
    uint32_t *features = basic[7][0], *more = basic[7][1], *state = basic[13][0];
    features[EDX] &= ~(AMX_EDX | AVX512_FP16_EDX);
    more[EAX] &= ~(AVX512_BF16_EAX | AMX_FP16_EAX);
    more[EDX] &= ~NEWER_EDX;
    state[EAX] &= ~AMX_STATE;
    memset(basic[0x1D], 0, sizeof basic[0x1D]); /* tiles */
    memset(basic[0x1E], 0, sizeof basic[0x1E]);
    memset(basic[0x24], 0, sizeof basic[0x24]); /* AVX10 */
    if (vnni_stays) return;
    features[EBX] &= ~AVX512_EBX;
    features[ECX] &= ~AVX512_ECX;
    features[EDX] &= ~AVX512_EDX;
    more[EAX] &= ~AVX_VNNI_EAX;
    state[EAX] &= ~AVX512_STATE;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (info->si_code == reason && !memcmp((const void *)registers[REG_RIP], fault_code, 2)) {
        static const uint32_t nothing[4];
        uint32_t leaf = (uint32_t)registers[REG_RAX], sub = (uint32_t)registers[REG_RCX];
        const uint32_t *answer = nothing;
        if ((leaf & ~EXTENDED) < LEAVES) /* leaves without subleaves are asked with anything in ECX */
            answer = (leaf & EXTENDED ? extended : basic)[leaf & ~EXTENDED][sub < SUBLEAVES ? sub : 0];
        registers[REG_RAX] = answer[EAX];
        registers[REG_RBX] = answer[EBX];
        registers[REG_RCX] = answer[ECX];
        registers[REG_RDX] = answer[EDX];
        registers[REG_RIP] += 2;
    } else if (theirs.sa_flags & SA_SIGINFO) {
        theirs.sa_sigaction(number, info, context);
    } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
        theirs.sa_handler(number);
    } else {
        const struct sigaction ends = {.sa_handler = SIG_DFL};
        real_sigaction(number, &ends, NULL); /* the instruction runs again, and ends the process ... */
        if (info->si_code <= 0) raise(number); /* ... or another process had sent the signal */
    }
}

/* The program's own handler gets what is not ours. */
int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    if (!real_sigaction) real_sigaction = (sigaction_function *)dlsym(RTLD_NEXT, "sigaction");
    if (number != fault) return real_sigaction(number, new, old);
    if (old) *old = theirs;
    if (new) theirs = *new;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction new = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    return sigaction(number, &new, &old) ? SIG_ERR : old.sa_handler;
}

/* A fault whose signal is blocked ends the process, so it is never blocked. */
int pthread_sigmask(int how, const sigset_t *new, sigset_t *old) {
    static mask_function *real;
    sigset_t without;
    if (!real) real = (mask_function *)dlsym(RTLD_NEXT, "pthread_sigmask");
    if (new && how != SIG_UNBLOCK) {
        without = *new;
        sigdelset(&without, fault);
        new = &without;
    }
    return real(how, new, old);
}

int sigprocmask(int how, const sigset_t *new, sigset_t *old) {
    int error = pthread_sigmask(how, new, old);
    if (error) errno = error;
    return error ? -1 : 0;
}

static void fail(const char *why) {
    fprintf(stderr, "older_cpu: %s\n", why);
    _exit(125);
}

__attribute__((constructor)) static void start(void) {
    const char *kind = getenv("OLDER_CPU");
    /* Not on a signal stack of the program: OpenVINO frees one that is still set. */
    const struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    read_all();
    hide(kind && !strcmp(kind, "vnni"));
    if ((places = getenv("OLDER_CPU_PLACES"))) {
        fault = SIGILL;
        reason = ILL_ILLOPN;
        fault_code = NO_CODE;
    }
    real_sigaction = (sigaction_function *)dlsym(RTLD_NEXT, "sigaction");
    real_sigaction(fault, &ours, NULL);
    if (!places && syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) fail("no CPUID faulting here");
}

unsigned la_version(unsigned version) {
    if (getenv("OLDER_CPU_LOOKING")) return 0; /* no auditor for the sh and the objdump below */
    setenv("OLDER_CPU_LOOKING", "1", 1); /* an auditor has a libc of its own: the program does not see this */
    return version;
}

/* The addresses of a library's CPUID instructions, one a line; objdump reads each library once. Not those of
   CUDA: they are large, and what runs on a processor without a GPU is not in them. */
static FILE *addresses_in(const char *library) {
    static const char look[] = "objdump -dw --no-show-raw-insn \"$LIBRARY\" "
                               "| sed -n 's/^ *\\([0-9a-f]*\\):.*\\<cpuid *$/\\1/p' >\"$KEPT.$$\" "
                               "&& mv \"$KEPT.$$\" \"$KEPT\"";
    char kept[2 * PATH_MAX];
    struct stat is;
    if (stat(library, &is) || strstr(library, "/nvidia/") || strstr(library, "cuda")) return NULL;
    snprintf(kept, sizeof kept, "%s/%s-%lld-%lld", places, strrchr(library, '/') + 1, (long long)is.st_size,
             (long long)is.st_mtime);
    FILE *found = fopen(kept, "r");
    if (found) return found;
    setenv("LIBRARY", library, 1);
    setenv("KEPT", kept, 1);
    if (system(look) || !(found = fopen(kept, "r"))) fail(library);
    return found;
}

unsigned la_objopen(struct link_map *map, Lmid_t space, uintptr_t *cookie) {
    char library[PATH_MAX];
    unsigned long address;
    (void)space, (void)cookie;
    if (!realpath(*map->l_name ? map->l_name : "/proc/self/exe", library)) return 0; /* linux-vdso */
    FILE *found = addresses_in(library);
    while (found && fscanf(found, "%lx", &address) == 1) {
        char *at = (char *)map->l_addr + address, *page = (char *)((uintptr_t)at & ~4095ul);
        size_t size = (size_t)(at + 2 - page);
        if (memcmp(at, CPUID, 2) || mprotect(page, size, PROT_READ | PROT_WRITE | PROT_EXEC)) fail(library);
        memcpy(at, NO_CODE, 2);
        mprotect(page, size, PROT_READ | PROT_EXEC);
    }
    if (found) fclose(found);
    return 0;
}
