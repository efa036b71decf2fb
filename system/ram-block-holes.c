/*
 * Pages of RAM blocks for which the host holds no memory
 *
 * A RAMBlockHoles is a window on a RAM block: up to 512 pages, with a bit for
 * each one that the block's file holds.  It is filled by cachestat(2), which
 * counts pages in a range: none and all of them are answers at once, others
 * are found by halving the range.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "system/address-spaces.h"
#include "system/memory.h"
#include "system/ram-block-holes.h"
#include "system/ramblock.h"

/* Half as many pages as ram_block_is_hole() looks up at first */
#define RAM_BLOCK_HOLES_FIRST 16

#ifdef CONFIG_LINUX
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

/* cachestat(2), since Linux 6.5: asm-generic/unistd.h and linux/mman.h */
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
struct ram_file_cachestat_range {
    uint64_t off;
    uint64_t len;
};
struct ram_file_cachestat {
    uint64_t nr_cache;
    uint64_t nr_dirty;
    uint64_t nr_writeback;
    uint64_t nr_evicted;
    uint64_t nr_recently_evicted;
};

/*
 * Neither st_blocks nor SEEK_DATA can be asked: guest_memfd has none of them.
 * SEEK_HOLE would go on to the next hole, however far that is, with the file
 * locked.
 */
int64_t ram_file_count_pages(int fd, uint64_t offset, uint64_t size,
                             bool swapped)
{
    struct ram_file_cachestat_range range = { offset, size };
    struct ram_file_cachestat stat;

    if (syscall(__NR_cachestat, fd, &range, &stat, 0)) {
        return -errno;
    }
    return stat.nr_cache + (swapped ? stat.nr_evicted : 0);
}

/* Does the file alone know what is in it? */
static bool ram_block_holes_probe(const RAMBlock *rb)
{
    struct statfs fs;

    if (rb->fd < 0 || rb->page_size != qemu_real_host_page_size()) {
        return false;
    }
    if (!(rb->flags & RAM_GUEST_MEMFD_MMAP) &&
        (!(rb->flags & RAM_SHARED) || fstatfs(rb->fd, &fs) ||
         fs.f_type != TMPFS_MAGIC)) {
        return false;
    }
    return ram_file_count_pages(rb->fd, 0, 1, true) >= 0;
}
#else
int64_t ram_file_count_pages(int fd, uint64_t offset, uint64_t size,
                             bool swapped)
{
    return -ENOSYS;
}

static bool ram_block_holes_probe(const RAMBlock *rb)
{
    return false;
}
#endif

/* The answer is the same whenever it is asked for, so threads may race. */
static bool ram_block_has_holes(const RAMBlock *rb)
{
    int8_t *known = &((RAMBlock *)rb)->holes_known;

    if (!qatomic_read(known)) {
        qatomic_set(known, ram_block_holes_probe(rb) ? 1 : -1);
    }
    return qatomic_read(known) > 0;
}

/* Set the bits of the pages in [@from, @to) that the file holds. */
static void ram_block_holes_find(RAMBlockHoles *holes, uint64_t from,
                                 uint64_t to)
{
    const uint64_t page_size = qemu_real_host_page_size();
    int64_t held = ram_file_count_pages(holes->rb->fd, holes->rb->fd_offset +
                                        holes->start + from * page_size,
                                        (to - from) * page_size, true);

    if (held < 0 || held >= to - from) {
        bitmap_set(holes->held, from, to - from);
    } else if (held) {
        const uint64_t middle = from + (to - from) / 2;

        /* Not by a difference: a page may have come since. */
        ram_block_holes_find(holes, from, middle);
        ram_block_holes_find(holes, middle, to);
    }
}

/* Look up @pages pages, or less, that begin at or right before @offset. */
static void ram_block_holes_fill(RAMBlockHoles *holes, const RAMBlock *rb,
                                 uint64_t offset, uint64_t pages)
{
    const uint64_t page_size = qemu_real_host_page_size();

    assert(pages <= RAM_BLOCK_HOLES_PAGES);
    holes->rb = rb;
    holes->start = QEMU_ALIGN_DOWN(offset, page_size);
    holes->end = MIN(holes->start + pages * page_size,
                     QEMU_ALIGN_UP(rb->used_length, page_size));
    bitmap_zero(holes->held, RAM_BLOCK_HOLES_PAGES);
    ram_block_holes_find(holes, 0, (holes->end - holes->start) / page_size);
}

static bool ram_block_holes_known(const RAMBlockHoles *holes,
                                  const RAMBlock *rb, uint64_t offset,
                                  uint64_t size)
{
    return holes->rb == rb && offset >= holes->start &&
           offset + size <= holes->end;
}

static bool ram_block_holes_test(const RAMBlockHoles *holes, uint64_t offset,
                                 uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    const uint64_t from = (offset - holes->start) / page_size;
    const uint64_t to = DIV_ROUND_UP(offset + size - holes->start, page_size);

    return find_next_bit(holes->held, to, from) >= to;
}

void ram_block_holes_forget(RAMBlockHoles *holes)
{
    holes->rb = NULL;
}

uint64_t ram_block_holes_run(RAMBlockHoles *holes, const RAMBlock *rb,
                             uint64_t offset, uint64_t size, bool *hole)
{
    const uint64_t page_size = qemu_real_host_page_size();
    uint64_t page, end, last;

    *hole = false;
    if (offset >= rb->used_length || !ram_block_has_holes(rb)) {
        return size;
    }
    if (!ram_block_holes_known(holes, rb, offset, 1)) {
        ram_block_holes_fill(holes, rb, offset, RAM_BLOCK_HOLES_PAGES);
    }
    page = (offset - holes->start) / page_size;
    last = (holes->end - holes->start) / page_size;
    *hole = !test_bit(page, holes->held);
    end = *hole ? find_next_bit(holes->held, last, page) :
                  find_next_zero_bit(holes->held, last, page);
    return MIN(size, holes->start + MIN(end, last) * page_size - offset);
}

bool ram_block_is_hole(RAMBlockHoles *holes, const RAMBlock *rb,
                       uint64_t offset, uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    const bool jump = holes->rb == rb && holes->next != offset;
    uint64_t pages;

    if (!ram_block_has_holes(rb)) {
        return false;
    }
    if (holes->rb != rb) {
        holes->ahead = RAM_BLOCK_HOLES_FIRST;
    }
    holes->next = offset + size;
    if (ram_block_holes_known(holes, rb, offset, size)) {
        return ram_block_holes_test(holes, offset, size);
    }
    if (jump) {
        holes->ahead = 1;
        return false;
    }
    holes->ahead = MIN(holes->ahead * 2, RAM_BLOCK_HOLES_PAGES);
    pages = holes->ahead;
    if (rb->clear_bmap) {
        /* The dirty log is cleared by chunks: see RAMBlockHoles */
        uint64_t chunk = (uint64_t)qemu_target_page_size() <<
                         rb->clear_bmap_shift;

        pages = MIN(pages, (QEMU_ALIGN_UP(offset + 1, chunk) -
                            QEMU_ALIGN_DOWN(offset, page_size)) / page_size);
    }
    ram_block_holes_fill(holes, rb, offset, pages);
    return ram_block_holes_known(holes, rb, offset, size) &&
           ram_block_holes_test(holes, offset, size);
}

void ram_block_holes_look(RAMBlockHoles *holes, const RAMBlock *rb,
                          const ram_addr_t *offsets, uint32_t num,
                          uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    uint64_t pages;

    ram_block_holes_forget(holes);
    if (!num || !ram_block_has_holes(rb) || offsets[num - 1] < offsets[0]) {
        return;
    }
    pages = (QEMU_ALIGN_UP(offsets[num - 1] + size, page_size) -
             QEMU_ALIGN_DOWN(offsets[0], page_size)) / page_size;
    if (pages <= RAM_BLOCK_HOLES_PAGES) {
        ram_block_holes_fill(holes, rb, offsets[0], pages);
    }
}

bool ram_block_holes_has(const RAMBlockHoles *holes, const RAMBlock *rb,
                         uint64_t offset, uint64_t size)
{
    return ram_block_holes_known(holes, rb, offset, size) &&
           ram_block_holes_test(holes, offset, size);
}

bool ram_block_all_holes(RAMBlockHoles *holes, const RAMBlock *rb,
                         uint64_t offset, uint64_t size)
{
    uint64_t run;
    bool hole;

    do {
        run = ram_block_holes_run(holes, rb, offset, size, &hole);
        offset += run;
        size -= run;
    } while (hole && size);
    return hole;
}

void ram_block_holes_read(RAMBlockHoles *holes, hwaddr addr, void *buf,
                          hwaddr size)
{
    hwaddr offset, len;

    for (; size; addr += len, buf += len, size -= len) {
        bool hole = false;

        WITH_RCU_READ_LOCK_GUARD() {
            MemoryRegion *mr;

            len = size;
            mr = address_space_translate(&address_space_memory, addr, &offset,
                                         &len, false, MEMTXATTRS_UNSPECIFIED);
            if (memory_region_is_ram(mr) && mr->ram_block) {
                len = ram_block_holes_run(holes, mr->ram_block, offset, len,
                                          &hole);
            }
        }
        if (hole) {
            memset(buf, 0, len);
        } else {
            cpu_physical_memory_read(addr, buf, len);
        }
    }
}
