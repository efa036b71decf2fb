/*
 * Private memory of a VM: guests that are launched in place
 *
 * The platform measures and encrypts the first memory of an SEV-SNP or TDX
 * guest, before a vCPU runs.  Where memory is converted in place, QEMU writes
 * it where it will be, so the memory is *open* at first:
 *
 *   phase     the map says         for KVM it is   QEMU may access
 *   open      private              shared          all of it
 *   launched  what the guest wants the same        what is shared
 *
 * The map says "private" from the start, so that VFIO maps nothing, and no page
 * is pinned that is to become private.  guest_memfd_launch() ends the phase.
 * Blocks that are created later are private for KVM as well from the start.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-block.h"
#include "system/kvm-gmem.h"
#include "trace.h"

/* Sets @offset to the end, or to where that fails */
static int launch_run(const RAMBlock *rb, uint64_t *offset, uint64_t size)
{
    const uint64_t end = *offset + size;
    int tries = 0, ret;

    do {
        uint64_t done = 0;

        ret = kvm_gmem_file_set_private(rb, *offset, end - *offset, true,
                                        &done);
        *offset = ret ? *offset + done : end;
        if (ret == -EAGAIN) {
            g_usleep(GUEST_MEMFD_BUSY_US);
        }
    } while (ret == -EAGAIN && ++tries < GUEST_MEMFD_BUSY_TRIES);
    return ret;
}

static int launch_block(RAMBlock *rb, void *opaque)
{
    Error **errp = opaque;
    GuestMemfdBlock *block = guest_memfd_of(rb);
    uint64_t offset = 0, end, size;
    int ret = 0;

    if (!block) {
        return 0;
    }
    end = guest_memfd_map_size(&block->map);
    guest_memfd_lock();
    while (!ret && (size = guest_memfd_map_next_run(&block->map, &offset, end,
                                                    true))) {
        ret = launch_run(rb, &offset, size);
    }
    guest_memfd_unlock();
    trace_guest_memfd_launch(rb->idstr, ret);
    if (ret) {
        hwaddr address = offset;
        bool mapped = guest_memfd_block_address(block, offset, &address);

        error_setg_errno(errp, -ret, "the guest's memory cannot become "
                         "private for the launch: %s 0x%" HWADDR_PRIx,
                         mapped ? "page" : rb->idstr, address);
        if (ret == -EAGAIN) {
            error_append_hint(errp, "Something uses that page: a vhost-user "
                              "backend, or another process that has QEMU's "
                              "memory mapped.\n");
        }
        return ret;
    }
    guest_memfd_block_guard_access(block);
    return 0;
}

bool guest_memfd_launch(Error **errp)
{
    ERRP_GUARD();

    if (!guest_memfd_in_place_is_open()) {
        return true;
    }
    if (qemu_ram_foreach_block(launch_block, errp)) {
        return false;
    }
    guest_memfd_in_place_set_launched();
    return true;
}

void *guest_memfd_launch_memory(hwaddr start, uint64_t size,
                                const void *contents, uint64_t len,
                                Error **errp)
{
    ERRP_GUARD();
    MemoryRegionSection section =
        memory_region_find(get_system_memory(), start, size);
    uint8_t *host = NULL;

    assert(guest_memfd_in_place_is_open());
    if (!section.mr || !guest_memfd_of(section.mr->ram_block) ||
        section.offset_within_address_space != start ||
        int128_get64(section.size) < size) {
        error_setg(errp, "the firmware wants memory at 0x%" HWADDR_PRIx ", 0x%"
                   PRIx64 " bytes, where the guest has none that can be "
                   "private", start, size);
        error_append_hint(errp, "Give the guest more memory with -m.\n");
    } else {
        host = memory_region_get_ram_ptr(section.mr);
        host += section.offset_within_region;
        if (host != contents) {
            assert(len <= size);
            if (len) {
                memmove(host, contents, len);
            }
            memset(host + len, 0, size - len);
        }
    }
    memory_region_unref(section.mr);
    return host;
}
