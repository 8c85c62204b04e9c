/*
 * Preloaded into user-mode Linux (linux.uml): lets kernels before 6.12 run on CPUs whose XSAVE
 * area is larger than the buffer those kernels keep for it (AMX: 11008 against 2696 bytes).
 *
 * The host demands a whole area in PTRACE_SETREGSET and answers EFAULT otherwise, upon which
 * user-mode Linux panics. Reading needs no help: a short read is allowed, and a prefix of the
 * standard format is valid. Writing: the prefix that user-mode Linux holds is padded to the host's
 * size, and the components outside the prefix are dropped from XSTATE_BV, which puts them into
 * their initial state. Guests can't have used those: they were never offered them.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

#define XSTATE_BV_OFFSET 512 /* the header follows the legacy area */
#define LEGACY_COMPONENTS 3  /* x87 and SSE lie in the legacy area, always inside the prefix */
#define LAST_COMPONENT 62

static unsigned char area[65536] __attribute__((aligned(64)));
static size_t host_size;
static uint64_t components_inside;

static long sys_ptrace(long request, long pid, void *addr, void *data)
{
    return syscall(SYS_ptrace, request, pid, addr, data);
}

/* Which components lie wholly inside the first `size` bytes of a standard-format area. */
static uint64_t components_within(size_t size)
{
    uint64_t inside = LEGACY_COMPONENTS;

    for (int i = 2; i <= LAST_COMPONENT; i++) {
        unsigned length = 0, offset = 0, flags = 0, unused = 0;

        __cpuid_count(0xd, i, length, offset, flags, unused);
        /* Bit 0 of flags: a supervisor component, which has no place in this format. */
        if (length && offset && !(flags & 1) && (size_t)offset + length <= size)
            inside |= UINT64_C(1) << i;
    }
    return inside;
}

static long set_xstate(pid_t pid, void *type, struct iovec *given)
{
    struct iovec whole = { .iov_base = area, .iov_len = sizeof area };
    uint64_t *xstate_bv = (uint64_t *)(area + XSTATE_BV_OFFSET);

    if (!host_size) {
        if (sys_ptrace(PTRACE_GETREGSET, pid, type, &whole) < 0)
            return -1;
        host_size = whole.iov_len;
        components_inside = components_within(given->iov_len);
    }
    if (given->iov_len >= host_size)
        return sys_ptrace(PTRACE_SETREGSET, pid, type, given);

    memset(area, 0, host_size);
    memcpy(area, given->iov_base, given->iov_len);
    *xstate_bv &= components_inside;
    whole.iov_len = host_size;
    return sys_ptrace(PTRACE_SETREGSET, pid, type, &whole);
}

/* glibc's prototype names an enum; the ABI is the same. */
long ptrace(enum __ptrace_request request, ...)
{
    va_list ap;
    va_start(ap, request);
    pid_t pid = va_arg(ap, pid_t);
    void *addr = va_arg(ap, void *);
    void *data = va_arg(ap, void *);
    va_end(ap);

    if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE)
        return set_xstate(pid, addr, data);

    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* The system call stores the word; the C library's function returns it. */
        long word = 0;

        if (sys_ptrace(request, pid, addr, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    return sys_ptrace(request, pid, addr, data);
}
