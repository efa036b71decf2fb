/*
 * Private memory of a VM: QEMU threads that touch a private page
 *
 * Where memory is converted in place, QEMU has private pages mapped, and an
 * access to one ends in SIGBUS.  Whoever asks guest_memfd_may_access() first
 * is told that it may not.  But the guest can convert a page after the answer,
 * while a device has it mapped or a thread is about to copy from it.  A correct
 * guest does not; a hostile one must not be able to end QEMU.
 *
 * A thread that touches such a page gets a *scratch page* in its place: new
 * memory of QEMU's own, in which it finds zeros, and which nobody reads what it
 * writes into.  Scratch pages lie over the mapping of the file until the page
 * is shared again, or until so many others have come that it has to give way.
 * (System calls that touch a private page fail with EFAULT, which those who
 * make them handle as any error of theirs.)
 *
 * The handler touches nothing but this file's data and the mapping.  Its lock
 * is a spin lock: no thread accesses guest memory while it holds the lock.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib-unix.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "system/guest-memfd-block.h"
#include "system/kvm.h"
#include "system/qtest.h"

#ifdef CONFIG_LINUX
#include <sys/mman.h>

/* Linux 5.14: the headers may be older than the kernel. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/*
 * So many scratch pages at most, in the whole VM.  Each one splits a mapping,
 * of which a process has 65530 (vm.max_map_count); more than this many pages
 * are in use at once only if as many threads access private memory.  Can be
 * changed at any time.
 */
#define SIGBUS_PAGES 1024

typedef struct SigbusPage {
    RAMBlock *rb;               /* NULL: there is none */
    uint64_t offset;            /* in @rb, in bytes */
} SigbusPage;

/* What a thread has to tell the main loop, through a pipe */
typedef struct SigbusMessage {
    int code;                   /* of a memory error; 0: a scratch page */
    void *addr;
} SigbusMessage;

/* With the lock */
static SigbusPage sigbus_pages[SIGBUS_PAGES];
static unsigned sigbus_next;    /* the page to be used next, the oldest one */
static unsigned sigbus_used;
static QLIST_HEAD(, GuestMemfdBlock) sigbus_blocks =
    QLIST_HEAD_INITIALIZER(sigbus_blocks);

static bool sigbus_locked;
static int sigbus_pipe[2] = { -1, -1 };

/* A handler cannot sleep on a mutex; who has the lock may have to run first. */
void guest_memfd_sigbus_lock(void)
{
    while (qatomic_xchg(&sigbus_locked, true)) {
        sched_yield();
    }
}

void guest_memfd_sigbus_unlock(void)
{
    qatomic_store_release(&sigbus_locked, false);
}

/* Map the file again.  The mapping must be as its neighbours, to join them. */
static int sigbus_page_end(SigbusPage *page)
{
    const size_t size = qemu_real_host_page_size();
    void *host = page->rb->host + page->offset;

    if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             page->rb->fd, page->offset) == MAP_FAILED) {
        return -errno;
    }
    madvise(host, size, MADV_HUGEPAGE);
    if (!qtest_enabled()) {
        madvise(host, size, MADV_DONTFORK);
    }
    if (!machine_dump_guest_core(current_machine)) {
        madvise(host, size, MADV_DONTDUMP);
    }
    page->rb = NULL;
    sigbus_used--;
    return 0;
}

int guest_memfd_sigbus_end(const RAMBlock *rb, uint64_t offset, uint64_t size)
{
    int i, ret;

    for (i = 0; sigbus_used && i < SIGBUS_PAGES; i++) {
        SigbusPage *page = &sigbus_pages[i];

        if (page->rb == rb && page->offset >= offset &&
            page->offset - offset < size) {
            ret = sigbus_page_end(page);
            if (ret) {
                return ret;
            }
        }
    }
    return 0;
}

static bool sigbus_page_begin(RAMBlock *rb, uint64_t offset)
{
    const size_t size = qemu_real_host_page_size();
    SigbusPage *page = &sigbus_pages[sigbus_next];
    void *host = rb->host + offset;

    /* Has the page been shared meanwhile?  Then try to access it again. */
    if (!madvise(host, size, MADV_POPULATE_READ)) {
        return true;
    }
    if (page->rb && sigbus_page_end(page)) {
        return false;
    }
    if (mmap(host, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
        return false;
    }
    page->rb = rb;
    page->offset = offset;
    sigbus_used++;
    sigbus_next = (sigbus_next + 1) % SIGBUS_PAGES;
    return true;
}

static void sigbus_tell(int code, void *addr)
{
    const SigbusMessage message = { .code = code, .addr = addr };

    /* Less than PIPE_BUF, so all of it or nothing; a full pipe says enough. */
    if (write(sigbus_pipe[1], &message, sizeof(message)) < 0) {
        return;
    }
}

bool guest_memfd_sigbus(const siginfo_t *info)
{
    const int saved_errno = errno;
    uint8_t *addr = info->si_addr;
    GuestMemfdBlock *block;
    bool done = false;

    if (sigbus_pipe[1] < 0) {
        return false;
    }
    if (info->si_code == BUS_MCEERR_AO && !current_cpu) {
        sigbus_tell(info->si_code, addr);
        done = true;
    } else if (info->si_code == BUS_ADRERR) {
        guest_memfd_sigbus_lock();
        QLIST_FOREACH(block, &sigbus_blocks, next_sigbus) {
            uint8_t *host = block->rb->host;

            if (addr >= host && addr < host + block->rb->max_length) {
                done = sigbus_page_begin(
                    block->rb, QEMU_ALIGN_DOWN(addr - host,
                                               qemu_real_host_page_size()));
                break;
            }
        }
        guest_memfd_sigbus_unlock();
        if (done) {
            sigbus_tell(0, addr);
        }
    }
    errno = saved_errno;
    return done;
}

static void sigbus_handle_message(void *opaque)
{
    SigbusMessage message;

    while (read(sigbus_pipe[0], &message, sizeof(message)) ==
           sizeof(message)) {
        if (message.code) {
            /* What main-loop.c does with a SIGBUS that is blocked */
            kvm_on_sigbus(message.code, message.addr);
        } else {
            warn_report_once("The guest has made memory private that QEMU or a "
                             "device was using; they get zeros instead");
        }
    }
}

/* Threads other than the main one do not block SIGBUS. */
static void sigbus_init(void)
{
    sigset_t set;

    if (!g_unix_open_pipe(sigbus_pipe, FD_CLOEXEC, NULL)) {
        error_report("Cannot make a pipe for SIGBUS: %s", strerror(errno));
        exit(1);
    }
    qemu_set_blocking(sigbus_pipe[0], false, &error_abort);
    qemu_set_blocking(sigbus_pipe[1], false, &error_abort);
    qemu_set_fd_handler(sigbus_pipe[0], sigbus_handle_message, NULL, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void guest_memfd_sigbus_add(GuestMemfdBlock *block)
{
    if (sigbus_pipe[1] < 0) {
        sigbus_init();
    }
    guest_memfd_sigbus_lock();
    QLIST_INSERT_HEAD(&sigbus_blocks, block, next_sigbus);
    guest_memfd_sigbus_unlock();
}

void guest_memfd_sigbus_remove(GuestMemfdBlock *block)
{
    int i;

    guest_memfd_sigbus_lock();
    QLIST_REMOVE(block, next_sigbus);
    for (i = 0; i < SIGBUS_PAGES; i++) {
        if (sigbus_pages[i].rb == block->rb) {
            sigbus_pages[i].rb = NULL;
            sigbus_used--;
        }
    }
    guest_memfd_sigbus_unlock();
}
#else
void guest_memfd_sigbus_lock(void)
{
}

void guest_memfd_sigbus_unlock(void)
{
}

int guest_memfd_sigbus_end(const RAMBlock *rb, uint64_t offset, uint64_t size)
{
    return 0;
}

void guest_memfd_sigbus_add(GuestMemfdBlock *block)
{
}

void guest_memfd_sigbus_remove(GuestMemfdBlock *block)
{
}
#endif
