/*
 * The shared half of private memory: give its pages back
 *
 * A RAM block with private memory has two halves: a guest_memfd for private
 * pages, and the block's own memory, of any backend, for shared ones.  While a
 * page is private, its shared half has lost its contents.  This file frees that
 * memory, or clears it if it must not be freed, so that it always reads as
 * zeros when the page is shared again.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/guest-memfd-block.h"
#include "system/hostmem.h"
#include "system/system.h"

#ifdef CONFIG_LINUX
#include <sys/mman.h>

/* Linux 5.14 and 5.18: the headers may be older than the kernel. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

static bool shared_is_huge(const RAMBlock *rb)
{
    return rb->page_size != qemu_real_host_page_size();
}

/* Has the administrator asked for the memory to be there at any time? */
static bool shared_is_preallocated(RAMBlock *rb)
{
    Object *owner = memory_region_owner(rb->mr);

    return object_dynamic_cast(owner, TYPE_MEMORY_BACKEND) &&
           MEMORY_BACKEND(owner)->prealloc &&
           guest_memfd_shared_has_prealloc(rb);
}

/*
 * Must the memory stay allocated?  A huge page that is freed loses its
 * reservation, too, and a page of a file its place in the file system: others
 * could take it, and the guest's next access would end in SIGBUS.  Pages of
 * other memory can be freed even if they are preallocated, because the host
 * can make room for them at any time.
 *
 * Huge pages are reserved unless reserve=off, which excludes prealloc=on.
 */
static bool shared_must_keep(RAMBlock *rb)
{
    if (shared_is_huge(rb)) {
        return !qemu_ram_is_noreserve(rb);
    }
    return rb->flags & RAM_NAMED_FILE && shared_is_preallocated(rb);
}

static int shared_advise(RAMBlock *rb, uint64_t offset, uint64_t size,
                         int advice)
{
    return madvise(rb->host + offset, size, advice) ? -errno : 0;
}

static int shared_punch_hole(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    return fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     rb->fd_offset + offset, size) ? -errno : 0;
}

/*
 * Frees memory.  Unlike ram_block_discard_range(), this reports no error, as
 * the guest could then fill the log, and can free memory of -overcommit
 * mem-lock.
 */
static int shared_discard(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    const bool shared = qemu_ram_is_shared(rb);
    int ret = 0;

    /*
     * A hole takes the pages from all who map the file.  A private mapping
     * reads small pages from the file; but huge ones are always its own.
     */
    if (rb->fd >= 0 && (shared || !shared_is_huge(rb))) {
        ret = shared_punch_hole(rb, offset, size);
    } else if (shared) {
        ret = shared_advise(rb, offset, size, MADV_REMOVE);
    }
    if (!ret && !shared) {
        ret = shared_advise(rb, offset, size, MADV_DONTNEED_LOCKED);
    }
    return ret;
}

/*
 * Makes sure first that the memory is there, for memset() could only end in
 * SIGBUS where it is not, or where it is poisoned.
 */
static int shared_clear_mapped(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    uint64_t start = QEMU_ALIGN_DOWN(offset, rb->page_size);
    uint64_t end = QEMU_ALIGN_UP(offset + size, rb->page_size);
    int ret = shared_advise(rb, start, end - start, MADV_POPULATE_WRITE);

    if (!ret) {
        memset(rb->host + offset, 0, size);
    }
    return ret;
}

/* Clears a part of a huge page. */
static int shared_clear_huge(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    const uint64_t half = rb->page_size / 2;
    unsigned char resident;
    int ret;

    if (qemu_ram_is_shared(rb)) {
        /* A hole clears what is less than a huge page; does not allocate it. */
        if (size <= half) {
            return shared_punch_hole(rb, offset, size);
        }
        ret = shared_punch_hole(rb, offset, half);
        return ret ?: shared_punch_hole(rb, offset + half, size - half);
    }
    if (mincore(rb->host + QEMU_ALIGN_DOWN(offset, rb->page_size),
                qemu_real_host_page_size(), &resident)) {
        return -errno;
    }
    return resident & 1 ? shared_clear_mapped(rb, offset, size) : 0;
}

/* Clears memory that stays allocated. */
static int shared_clear(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    const uint64_t end = offset + size;
    uint64_t next;
    int ret = 0;

    if (!shared_is_huge(rb)) {
        return shared_clear_mapped(rb, offset, size);
    }
    for (; offset < end && !ret; offset = next) {
        next = MIN(QEMU_ALIGN_UP(offset + 1, rb->page_size), end);
        ret = shared_clear_huge(rb, offset, next - offset);
    }
    return ret;
}

/*
 * Huge pages are freed whole: for those at the ends of the range, all other
 * small pages have to be private, too.  Until then small ones are cleared.
 */
static int shared_drop_huge(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    const uint64_t huge = block->rb->page_size;
    const uint64_t end = offset + size;
    uint64_t start = QEMU_ALIGN_DOWN(offset, huge);
    uint64_t last = QEMU_ALIGN_UP(end, huge);
    uint64_t shared;
    int ret;

    shared = start;
    if (guest_memfd_map_next_run(&block->map, &shared, MIN(start + huge, last),
                                 false)) {
        start += huge;
        ret = shared_clear(block->rb, offset, MIN(start, end) - offset);
        if (ret) {
            return ret;
        }
    }
    shared = last - huge;
    if (start < last &&
        guest_memfd_map_next_run(&block->map, &shared, last, false)) {
        last -= huge;
        ret = shared_clear(block->rb, last, end - last);
        if (ret) {
            return ret;
        }
    }
    return start < last ? shared_discard(block->rb, start, last - start) : 0;
}

int guest_memfd_shared_drop(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    RAMBlock *rb = block->rb;

    if (shared_must_keep(rb)) {
        return shared_clear(rb, offset, size);
    }
    return shared_is_huge(rb) ? shared_drop_huge(block, offset, size)
                              : shared_discard(rb, offset, size);
}

int guest_memfd_shared_acquire(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size)
{
    RAMBlock *rb = block->rb;
    uint64_t start = QEMU_ALIGN_DOWN(offset, rb->page_size);
    uint64_t end = QEMU_ALIGN_UP(offset + size, rb->page_size);
    int ret;

    if (!shared_is_huge(rb) || shared_must_keep(rb)) {
        return 0;
    }
    ret = shared_advise(rb, start, end - start, MADV_POPULATE_WRITE);
    return ret == -EFAULT ? -ENOMEM : ret;      /* it means SIGBUS */
}

void guest_memfd_shared_balloon(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    if (!shared_must_keep(rb)) {
        shared_discard(rb, offset, size);
    }
}

/* Has the file of a private mapping contents?  They would shine through. */
static bool shared_file_has_data(const RAMBlock *rb, const struct stat *st)
{
    off_t data;

    if (shared_is_huge(rb)) {
        return st->st_blocks;       /* hugetlbfs does not know SEEK_DATA */
    }
    data = lseek(rb->fd, rb->fd_offset, SEEK_DATA);
    return data >= 0 ? data < rb->fd_offset + rb->max_length : errno != ENXIO;
}

/* Tries what shared_discard() does, but leaves the contents of a file alone. */
static int shared_try_discard(RAMBlock *rb, const struct stat *st)
{
    const bool shared = qemu_ram_is_shared(rb);
    uint64_t behind = MAX(st->st_size, rb->fd_offset + rb->max_length);
    int ret = 0;

    if (rb->fd >= 0 && (shared || !shared_is_huge(rb))) {
        behind = ROUND_UP(behind, rb->page_size) - rb->fd_offset;
        ret = shared_punch_hole(rb, behind, rb->page_size);
    } else if (shared) {
        ret = shared_advise(rb, 0, rb->page_size, MADV_REMOVE);
    }
    if (!ret && !shared) {
        ret = shared_advise(rb, 0, rb->page_size, MADV_DONTNEED_LOCKED);
    }
    return ret;
}

bool guest_memfd_shared_init(RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    const char *name = memory_region_name(rb->mr);
    const bool private_file = rb->fd >= 0 && !qemu_ram_is_shared(rb);
    struct stat st = { 0 };
    int ret = 0;

    /* The guest cannot make ROM private. */
    if (rb->flags & RAM_READONLY) {
        return true;
    }
    if (rb->fd >= 0 && fstat(rb->fd, &st)) {
        error_setg_errno(errp, errno, "cannot look at the file of '%s'", name);
        return false;
    }
    if (rb->flags & RAM_READONLY_FD) {
        error_setg(errp, "'%s' cannot have private memory: with readonly=on, "
                   "memory that becomes private cannot be freed", name);
        error_append_hint(errp, "Set readonly=off and share=on, or use "
                          "memory-backend-memfd.\n");
        return false;
    }
    if (rb->fd < 0 && qemu_ram_is_shared(rb) && should_mlock(mlock_state)) {
        error_setg(errp, "'%s' cannot have private memory: with -overcommit "
                   "mem-lock, anonymous shared memory cannot be freed", name);
        error_append_hint(errp, "Use memory-backend-memfd.\n");
        return false;
    }
    if (!private_file || !st.st_nlink) {
        ret = shared_try_discard(rb, &st);
    }
    if (ret) {
        error_setg_errno(errp, -ret, "'%s' cannot have private memory: memory "
                         "that becomes private cannot be freed", name);
        error_append_hint(errp, "Use %smemory-backend-memfd.\n",
                          rb->flags & RAM_NAMED_FILE ?
                          "a mem-path whose file system can punch holes, as "
                          "tmpfs, ext4 and XFS can, or " : "");
        return false;
    }
    if (private_file && (st.st_nlink || shared_file_has_data(rb, &st))) {
        error_setg(errp, "'%s' cannot have private memory: with share=off, the "
                   "contents of its file would appear when memory is shared "
                   "again", name);
        error_append_hint(errp, "Set share=on, give a directory as mem-path, "
                          "or use memory-backend-memfd.\n");
        return false;
    }
    return true;
}

uint64_t guest_memfd_shared_free_size(RAMBlock *rb)
{
    return shared_is_huge(rb) && !shared_must_keep(rb)
           ? rb->page_size : qemu_real_host_page_size();
}

bool guest_memfd_shared_has_prealloc(const RAMBlock *rb)
{
    const GuestMemfdBlock *block = guest_memfd_of(rb);

    return !block || !block->map.initially_private || shared_is_huge(rb) ||
           guest_memfd_in_place_is_open();
}
#else
int guest_memfd_shared_drop(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    return -ENOSYS;
}

int guest_memfd_shared_acquire(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size)
{
    return -ENOSYS;
}

void guest_memfd_shared_balloon(RAMBlock *rb, uint64_t offset, uint64_t size)
{
}

bool guest_memfd_shared_init(RAMBlock *rb, Error **errp)
{
    error_setg(errp, "private memory needs Linux");
    return false;
}

uint64_t guest_memfd_shared_free_size(RAMBlock *rb)
{
    return rb->page_size;
}

bool guest_memfd_shared_has_prealloc(const RAMBlock *rb)
{
    return true;
}
#endif
