/*
 * Fault injection for the guest_memfd tests, to be preloaded into QEMU
 *
 * The environment variable GUEST_MEMFD_FAULT names a file. While it exists and
 * holds "OP ERRNO [NTH [ADDRESS]]", the calls of kind OP fail with ERRNO, or
 * only the NTH of them if that is not 0, counted since calls of another kind:
 *
 *   create     KVM_CREATE_GUEST_MEMFD
 *   mmap       mmap() of such a file
 *   bind       KVM_SET_USER_MEMORY_REGION2 that binds a memory slot
 *   slot       KVM_SET_USER_MEMORY_REGION2 that adds or changes a memory slot
 *              which could be bound
 *   attribute  KVM_SET_MEMORY_ATTRIBUTES, and KVM_SET_MEMORY_ATTRIBUTES2, which
 *              has the same number
 *   give-way   what a request sleeps to give way becomes ERRNO s, or until a
 *              signal kicks the vCPU; and each part takes so long that this
 *              happens
 *   busy       as give-way, of what a request sleeps that waits for a page
 *   lock       KVM_ENABLE_CAP that locks a memory slot
 *   drop       fallocate() of a guest_memfd
 *   hole       fallocate() of another file
 *   mincore    mincore()
 *   exit       KVM_RUN of the last vCPU, as KVM fails for a memory fault, with
 *              ERRNO for the fault's flags and at the guest address ADDRESS
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "accel/kvm/kvm-lock-uapi.h"

/* More than GUEST_MEMFD_GIVE_WAY_AFTER_NS */
static const struct timespec part_takes = { .tv_nsec = 3000000 };

/* Bit N is set: file descriptor N is a guest_memfd. */
static uint64_t gmem_fds[16];
static int calls;
static int vcpu_fd = -1;
static struct kvm_run *vcpu_run;
static uint64_t fault_address;

static bool is_gmem(int fd)
{
    return fd >= 0 && fd < 64 * (int)ARRAY_SIZE(gmem_fds) &&
           (gmem_fds[fd / 64] >> fd % 64 & 1);
}

/* Returns the errno to fail with, or 0. */
static int fault(const char *op)
{
    const char *path = getenv("GUEST_MEMFD_FAULT");
    static char last_kind[16];
    char kind[16];
    int error, nth = 0, n, saved = errno;
    FILE *f = path ? fopen(path, "r") : NULL;

    errno = saved;
    if (!f) {
        return 0;
    }
    fault_address = 0;
    n = fscanf(f, "%15s %d %d %" SCNu64, kind, &error, &nth, &fault_address);
    fclose(f);
    if (n < 2 || strcmp(kind, op)) {
        return 0;
    }
    if (strcmp(kind, last_kind)) {
        strcpy(last_kind, kind);
        calls = 0;
    }
    if (++calls != nth && nth) {
        return 0;
    }
    return error;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int error = 0, ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    if (request == KVM_CREATE_GUEST_MEMFD) {
        error = fault("create");
    } else if (request == KVM_SET_USER_MEMORY_REGION2) {
        struct kvm_userspace_memory_region2 *region = arg;

        if (region->flags & KVM_MEM_GUEST_MEMFD && region->memory_size) {
            error = fault("bind");
        }
        if (region->memory_size && (int)region->guest_memfd >= 0 && !error) {
            error = fault("slot");
        }
    } else if (request == KVM_ENABLE_CAP) {
        const struct kvm_enable_cap *cap = arg;

        if (cap->cap == KVM_CAP_ARM_LOCK_USER_MEMORY_REGION &&
            cap->flags & KVM_ARM_LOCK_USER_MEMORY_REGION_FLAGS_LOCK) {
            error = fault("lock");
        }
    } else if (_IOC_TYPE(request) == KVMIO &&
               _IOC_NR(request) == _IOC_NR(KVM_SET_MEMORY_ATTRIBUTES)) {
        error = fault("attribute");
        if (!error && fault("give-way")) {
            syscall(SYS_nanosleep, &part_takes, NULL);
        }
    }
    if (error) {
        errno = error;
        return -1;
    }

    ret = syscall(SYS_ioctl, fd, request, arg);
    if (request == KVM_CREATE_GUEST_MEMFD && ret >= 0 &&
        ret < 64 * (int)ARRAY_SIZE(gmem_fds)) {
        gmem_fds[ret / 64] |= UINT64_C(1) << ret % 64;
    } else if (request == KVM_CREATE_VCPU) {
        vcpu_fd = ret;
    } else if (request == KVM_RUN && fd == vcpu_fd) {
        error = fault("exit");
        if (error) {
            vcpu_run->exit_reason = KVM_EXIT_MEMORY_FAULT;
            vcpu_run->memory_fault.flags = error;
            vcpu_run->memory_fault.gpa = fault_address;
            vcpu_run->memory_fault.size = 4096;
            errno = EFAULT;
            return -1;
        }
    }
    return ret;
}

/*
 * What g_usleep() calls; GUEST_MEMFD_GIVE_WAY_US is 100, GUEST_MEMFD_BUSY_US is
 * 1000.
 */
int nanosleep(const struct timespec *request, struct timespec *left)
{
    struct timespec longer = { .tv_sec = 0 };

    if (request->tv_sec == 0 && request->tv_nsec == 100000) {
        longer.tv_sec = fault("give-way");
    } else if (request->tv_sec == 0 && request->tv_nsec == 1000000) {
        longer.tv_sec = fault("busy");
    }
    if (longer.tv_sec) {
        syscall(SYS_nanosleep, &longer, NULL);
        return 0;
    }
    return syscall(SYS_nanosleep, request, left);
}

/* What fallocate() is, with 64 bit file offsets. */
int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    int error = fault(is_gmem(fd) ? "drop" : "hole");

    if (error) {
        errno = error;
        return -1;
    }
    return syscall(SYS_fallocate, fd, mode, offset, len);
}

/* What mmap() is, with 64 bit file offsets. */
void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
{
    int error = is_gmem(fd) && !(flags & MAP_ANONYMOUS) ? fault("mmap") : 0;

    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    addr = (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
    if (fd == vcpu_fd && fd >= 0 && !off) {
        vcpu_run = addr;
    }
    return addr;
}

int mincore(void *addr, size_t len, unsigned char *vec)
{
    int error = fault("mincore");

    if (error) {
        errno = error;
        return -1;
    }
    return syscall(SYS_mincore, addr, len, vec);
}

/* A file descriptor's number may be used again for another file. */
int close(int fd)
{
    if (is_gmem(fd)) {
        gmem_fds[fd / 64] &= ~(UINT64_C(1) << fd % 64);
    }
    return syscall(SYS_close, fd);
}
