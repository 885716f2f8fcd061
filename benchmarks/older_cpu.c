/* What older_cpu.py puts in front of a process: the CPUID instruction faults there (Intel's and newer AMD's
   CPUID faulting, arch_prctl(2)), and the handler answers in its place, without what a newer processor has. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
#define EXTENDED 0x80000000u
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

static uint32_t basic[LEAVES][SUBLEAVES][4], extended[LEAVES][4];
static struct sigaction theirs; /* what the program has asked for SIGSEGV */
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
        uint32_t *to = extended[leaf];
        if ((EXTENDED | leaf) <= r[EAX]) __cpuid(EXTENDED | leaf, to[EAX], to[EBX], to[ECX], to[EDX]);
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
    const unsigned char *at = (const unsigned char *)registers[REG_RIP];
    if (info->si_code == SI_KERNEL && at[0] == 0x0F && at[1] == 0xA2) { /* CPUID */
        static const uint32_t nothing[4];
        uint32_t leaf = (uint32_t)registers[REG_RAX], sub = (uint32_t)registers[REG_RCX];
        const uint32_t *answer = nothing;
        if ((leaf & ~EXTENDED) < LEAVES) /* leaves without subleaves are asked with anything in ECX */
            answer = leaf & EXTENDED ? extended[leaf & ~EXTENDED] : basic[leaf][sub < SUBLEAVES ? sub : 0];
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
    if (number != SIGSEGV) return real_sigaction(number, new, old);
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
        sigdelset(&without, SIGSEGV);
        new = &without;
    }
    return real(how, new, old);
}

int sigprocmask(int how, const sigset_t *new, sigset_t *old) {
    int error = pthread_sigmask(how, new, old);
    if (error) errno = error;
    return error ? -1 : 0;
}

__attribute__((constructor)) static void start(void) {
    const char *kind = getenv("OLDER_CPU");
    /* Not on a signal stack of the program: OpenVINO frees one that is still set. */
    const struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    read_all();
    hide(kind && !strcmp(kind, "vnni"));
    real_sigaction = (sigaction_function *)dlsym(RTLD_NEXT, "sigaction");
    real_sigaction(SIGSEGV, &ours, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
        static const char why[] = "older_cpu: this processor or kernel has no CPUID faulting\n";
        if (write(2, why, sizeof why - 1)) _exit(125);
    }
}
