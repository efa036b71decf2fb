/*
 * Private memory of a VM: bringing pages back into their initial state
 *
 * A reset of the VM does that for all RAM blocks, the end of a device for its
 * own.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "system/guest-memfd-block.h"
#include "system/kvm-gmem.h"

/* The error of the last reset */
static int reset_error;

/*
 * What is private is freed before it becomes shared: nobody sees its contents,
 * and nobody maps pages that are about to be freed.
 */
static void reset_drop_private(GuestMemfdBlock *block)
{
    const uint64_t end = guest_memfd_map_size(&block->map);
    uint64_t offset = 0, size;

    while ((size = guest_memfd_map_next_run(&block->map, &offset, end, true))) {
        block->ops->drop_private(block->rb, offset, size);
        offset += size;
    }
}

/* Set *@opaque, an int, to -errno if that fails; the others are still reset. */
static int reset_block(RAMBlock *rb, void *opaque)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    int *error = opaque;
    GuestMemfdPiece piece;
    int64_t ret;

    if (!block) {
        return 0;
    }
    piece.map = &block->map;
    piece.offset = 0;
    piece.size = guest_memfd_map_size(&block->map);
    guest_memfd_lock();
    reset_drop_private(block);
    ret = guest_memfd_map_convert(&piece, 1, block->map.initially_private,
                                  NULL);
    if (ret >= 0) {
        guest_memfd_block_count(block, block->map.initially_private, ret, 0, 0);
    }
    guest_memfd_unlock();
    if (ret < 0) {
        error_report("The private memory of %s could not be reset: %s",
                     rb->idstr, strerror(-ret));
        *error = ret;
    }
    return 0;
}

int guest_memfd_reset(void)
{
    reset_error = 0;
    guest_memfd_forget_requests();
    qemu_ram_foreach_block(reset_block, &reset_error);
    return reset_error;
}

bool guest_memfd_reset_failed(void)
{
    return reset_error || kvm_gmem_slots_lost();
}

void guest_memfd_unmapped(RAMBlock *rb)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    int ret = 0;

    if (!block) {
        return;
    }
    guest_memfd_lock();
    guest_memfd_forget_block(block);
    guest_memfd_unlock();
    reset_block(rb, &ret);
    if (!ret && block->ops->forget) {
        guest_memfd_lock();
        block->ops->forget(rb);
        guest_memfd_unlock();
    }
}
