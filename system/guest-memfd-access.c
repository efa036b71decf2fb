/*
 * Private memory of a VM: what QEMU itself may do with it
 *
 * QEMU and its emulated devices must not access private pages, except in VMs
 * that it loads through the shared half of their memory (SEV-SNP, TDX), and,
 * where these convert in place, until they are launched.  A dump has zeros for
 * private pages, and the balloon frees them.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-block.h"
#include "system/ram-block-holes.h"

/*
 * Is the memory at @offset private?  Sets @size, which the caller has set to
 * how much it is interested in, to how far the answer holds.
 */
static bool access_private_run(const GuestMemfdBlock *block, uint64_t offset,
                               uint64_t *size)
{
    const uint64_t page_size = block->map.page_size;
    const uint64_t from = QEMU_ALIGN_DOWN(offset, page_size);
    uint64_t end = MIN(offset + *size, guest_memfd_map_size(&block->map));
    uint64_t run = from;
    bool private;

    guest_memfd_lock();
    private = guest_memfd_map_next_run(&block->map, &run, from + page_size,
                                       true);
    run = from;
    end = guest_memfd_map_next_run(&block->map, &run,
                                   QEMU_ALIGN_UP(end, page_size), private);
    guest_memfd_unlock();
    *size = MIN(*size, from + end - offset);
    return private;
}

bool guest_memfd_is_private(const RAMBlock *rb, uint64_t offset, uint64_t size)
{
    const GuestMemfdBlock *block = guest_memfd_of(rb);

    return block && guest_memfd_map_has_private(&block->map, offset, size);
}

bool guest_memfd_block_may_access(const GuestMemfdBlock *block, hwaddr offset,
                                  hwaddr *size)
{
    /*
     * VMs that start all private (SNP, TDX) are loaded through their shared
     * half, so QEMU must be able to write there; in place, through their pages,
     * until guest_memfd_launch().  A caller that passes no @size
     * (address_space_is_io(), MTE tags) only looks the region up.
     */
    if (!qatomic_read(&block->guards_access) || !size) {
        return true;
    }
    return !access_private_run(block, offset, size);
}

/* Dumps */

/* What the current dump knows about pages that do not exist */
static RAMBlockHoles access_dump_holes;

void guest_memfd_dump_begin(void)
{
    ram_block_holes_forget(&access_dump_holes);
}

bool guest_memfd_dumps_private(const MemoryRegion *mr)
{
    const GuestMemfdBlock *block = guest_memfd_of(mr->ram_block);

    return block && !block->map.initially_private;
}

void *guest_memfd_dump(const MemoryRegion *mr, void *host, size_t *size,
                       uint64_t *private)
{
    static const uint8_t zeros[4 * KiB];
    const RAMBlock *rb = mr->ram_block;
    const GuestMemfdBlock *block = guest_memfd_of(rb);
    const uint64_t offset = rb ? (uint8_t *)host - rb->host : 0;
    uint64_t run = *size;
    bool is_zero = false;

    if (block && access_private_run(block, offset, &run)) {
        is_zero = true;
        if (private) {
            *private += MIN(run, sizeof(zeros));
        }
    } else if (rb) {
        run = ram_block_holes_run(&access_dump_holes, rb, offset, run,
                                  &is_zero);
    }
    *size = is_zero ? MIN(run, sizeof(zeros)) : run;
    return is_zero ? (void *)zeros : host;
}

/* The balloon */

bool guest_memfd_balloon(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    uint64_t start, end, run;

    if (!block) {
        return false;
    }
    guest_memfd_lock();
    start = QEMU_ALIGN_UP(offset, rb->page_size);
    end = QEMU_ALIGN_DOWN(offset + size, rb->page_size);
    if (start < end) {
        block->ops->balloon(rb, start, end - start);
    }
    start = QEMU_ALIGN_UP(offset, block->map.page_size);
    end = QEMU_ALIGN_DOWN(offset + size, block->map.page_size);
    if (!current_machine->cgs->guest_accepts_pages) {
        while ((run = guest_memfd_map_next_run(&block->map, &start, end,
                                               true))) {
            block->ops->drop_private(rb, start, run);
            start += run;
        }
    }
    guest_memfd_unlock();
    return true;
}
