/* Lets User Mode Linux run on a processor whose registers it does not know.

   It sets a process's floating point registers with as many bytes of XSAVE state as it knows of. A
   kernel takes all that the processor has, or fails with EFAULT: with AMX there are 8 KB more. Here
   the rest is filled in with what is there already. To be preloaded. */

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char registers[1 << 16]; /* not on the stack, which is a small one of its kernel's */

static long set_registers(pid_t pid, void *kind, const struct iovec *known)
{
    struct iovec all = {registers, sizeof registers};

    if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, kind, &all) < 0)
        return -1;
    memcpy(registers, known->iov_base, known->iov_len < all.iov_len ? known->iov_len : all.iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, kind, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list args;
    pid_t pid;
    void *address, *data;
    long word, result;

    va_start(args, request);
    pid = va_arg(args, pid_t);
    address = va_arg(args, void *);
    data = va_arg(args, void *);
    va_end(args);

    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_registers(pid, address, data);
    if (request != PTRACE_PEEKTEXT && request != PTRACE_PEEKDATA && request != PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, address, data);
    result = syscall(SYS_ptrace, request, pid, address, &word);
    if (result < 0)
        return result;
    errno = 0;
    return word;
}
