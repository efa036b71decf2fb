/*
 * Private memory of a VM: a part of a request to convert guest memory
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/misc.h"
#include "qemu/range.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-block.h"
#include "system/kvm-gmem.h"
#include "guest-memfd-part.h"

void guest_memfd_part_unref(GuestMemfdPart *part)
{
    while (part->n) {
        memory_region_unref(part->regions[--part->n]);
    }
}

/* Add one section of the memory map.  Takes over its reference. */
static int part_add(GuestMemfdPart *part, const MemoryRegionSection *section,
                    uint64_t size, bool to_private)
{
    const hwaddr address = section->offset_within_address_space;
    GuestMemfdBlock *block = guest_memfd_of(section->mr->ram_block);
    GuestMemfdPiece *piece = &part->pieces[part->n];
    int ret = 0;

    if (!block) {
        ret = to_private ? -EINVAL : 0;
        goto unref;
    }
    if (!QEMU_IS_ALIGNED(section->offset_within_region | size | address,
                         block->map.page_size) ||
        (to_private && !guest_memfd_block_check_bound(block, address, size))) {
        ret = -EINVAL;
        goto unref;
    }
    piece->map = &block->map;
    piece->offset = section->offset_within_region;
    piece->size = size;
    part->regions[part->n++] = section->mr;
    return 0;

unref:
    memory_region_unref(section->mr);
    return ret;
}

int guest_memfd_part_find(GuestMemfdPart *part, hwaddr start, hwaddr end,
                          bool to_private, uint64_t most)
{
    int ret = 0;

    part->end = start;
    part->n = 0;
    while (!ret && part->end < end && most &&
           part->n < GUEST_MEMFD_PART_PIECES) {
        MemoryRegionSection section =
            memory_region_find(get_system_memory(), part->end, end - part->end);
        hwaddr address = section.offset_within_address_space;
        uint64_t size = int128_get64(section.size);

        if (to_private && (!section.mr || address > part->end)) {
            /* There is no memory at part->end. */
            memory_region_unref(section.mr);
            return -EINVAL;
        }
        if (!section.mr) {
            part->end = end;
            return 0;
        }
        if (guest_memfd_of(section.mr->ram_block)) {
            size = MIN(size, most);
            most -= size;
        }
        ret = part_add(part, &section, size, to_private);
        part->end = address + size;
    }
    return ret;
}

static bool part_migration_ended;

void guest_memfd_end_migration(void)
{
    part_migration_ended = true;
}

/* Does a migration, in either direction, need all memory to stay shared? */
static bool part_migration_runs(void)
{
    return !part_migration_ended &&
           (migration_is_running() || migration_incoming_while_running());
}

static bool part_is_logged(const GuestMemfdPiece *piece,
                           const GuestMemfdBlock *block)
{
    const GuestMemfdView *view;

    QTAILQ_FOREACH(view, &block->views, next) {
        if (view->binding == GUEST_MEMFD_BINDING_DIRTY_LOG &&
            ranges_overlap(piece->offset, piece->size, view->offset,
                           view->size)) {
            return true;
        }
    }
    return false;
}

int64_t guest_memfd_part_convert(GuestMemfdPart *part, bool to_private,
                                 GuestMemfdPending *pending)
{
    int64_t ret;
    int i;

    if (!part->n) {
        return 0;
    }
    /* A migration may have begun since the part before. */
    if (to_private && part_migration_runs()) {
        return -EBUSY;
    }
    for (i = 0; to_private && i < part->n; i++) {
        const GuestMemfdPiece *piece = &part->pieces[i];
        GuestMemfdBlock *block = guest_memfd_of(part->regions[i]->ram_block);

        if (part_is_logged(piece, block)) {
            ret = kvm_gmem_end_dirty_log(block, piece->offset, piece->size);
            if (ret) {
                return ret;
            }
        }
    }
    guest_memfd_lock();
    ret = guest_memfd_map_convert(part->pieces, part->n, to_private, pending);
    guest_memfd_unlock();
    return ret;
}
