/*
 * The shared half of private memory: give its pages back
 *
 * While a page is private, the block's ordinary memory for it (the shared half)
 * has lost its contents.  This file frees that memory, or clears it where it
 * cannot be freed.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/guest-memfd.h"

static int punch_hole(RAMBlock *rb, uint64_t offset, uint64_t size)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    return fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     rb->fd_offset + offset, size) ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

static int discard(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    /* A hole takes the memory from all who map it; madvise() is not needed. */
    if (rb->fd >= 0 && qemu_ram_is_shared(rb)) {
        return punch_hole(rb, offset, size);
    }
    return ram_block_discard_range(rb, offset, size);
}

/*
 * Shared memory of huge pages is freed by huge pages: of those at the ends of
 * the range, all other small pages have to be private, too.  Until then small
 * ones are cleared, which a hole in a file of huge pages does (Linux 5.18).
 */
int guest_memfd_shared_drop(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    const uint64_t huge = block->rb->page_size;
    uint64_t start = QEMU_ALIGN_DOWN(offset, huge);
    uint64_t end = QEMU_ALIGN_UP(offset + size, huge);
    uint64_t shared;
    int ret;

    if (huge == block->map.page_size) {
        return discard(block->rb, offset, size);
    }
    if (!QEMU_IS_ALIGNED(offset | size, huge)) {
        ret = punch_hole(block->rb, offset, size);
        if (ret) {
            return ret;
        }
    }
    shared = start;
    if (guest_memfd_map_next_run(&block->map, &shared, MIN(start + huge, end),
                                 false)) {
        start += huge;
    }
    shared = end - huge;
    if (start < end &&
        guest_memfd_map_next_run(&block->map, &shared, end, false)) {
        end -= huge;
    }
    return start < end ? discard(block->rb, start, end - start) : 0;
}

bool guest_memfd_shared_init(RAMBlock *rb, Error **errp)
{
    return true;
}
