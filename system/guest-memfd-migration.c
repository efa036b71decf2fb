/*
 * Private memory of a VM: migration
 *
 * Private memory cannot be read, so it cannot be migrated.  A migration, in
 * either direction, and a snapshot begin only when no memory is private or can
 * become so by an undo, and no memory becomes private while they run.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/guest-memfd-block.h"
#include "system/kvm-gmem.h"

static int migration_add_private_size(RAMBlock *rb, void *opaque)
{
    const GuestMemfdBlock *block = guest_memfd_of(rb);
    uint64_t *size = opaque;

    if (block) {
        *size += guest_memfd_map_private_size(&block->map);
    }
    return 0;
}

bool guest_memfd_blocks_migration(Error **errp)
{
    uint64_t size = guest_memfd_undo_size();

    guest_memfd_lock();
    qemu_ram_foreach_block(migration_add_private_size, &size);
    guest_memfd_unlock();
    if (size) {
        error_setg(errp, "%" PRIu64 " bytes of the guest's memory are private "
                   "and cannot be read to be migrated", size);
        return true;
    }
    return false;
}

bool guest_memfd_begin_migration(Error **errp)
{
    if (guest_memfd_blocks_migration(errp)) {
        return false;
    }
    kvm_gmem_begin_dirty_log();
    return true;
}
