/*
 * Free memory that a guest reports or hints to virtio-balloon
 *
 * The buffers of the two queues are the free pages themselves.  The device
 * needs only their addresses, so that the guest can name private pages as well:
 * the queues are marked by virtio_queue_set_in_addr_only().  Buffers are mapped
 * only if the device is behind a vIOMMU.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-balloon-free.h"
#include "migration/misc.h"
#include "system/address-spaces.h"
#include "system/guest-memfd.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "trace.h"

static void balloon_free_discard(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    /* Parts of pages, as at the end of a block, are ignored. */
    if (!guest_memfd_balloon(rb, offset, size) &&
        QEMU_IS_ALIGNED(offset | size, qemu_ram_pagesize(rb)) &&
        offset + size <= qemu_ram_get_used_length(rb)) {
        ram_block_discard_range(rb, offset, size);
    }
}

static void balloon_free_discard_mapped(const struct iovec *iov, hwaddr addr)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);

    if (rb) {
        balloon_free_discard(rb, offset, iov->iov_len);
    } else {
        trace_virtio_balloon_bad_addr(addr);    /* it is a bounce buffer */
    }
}

static bool balloon_free_can_discard(const MemoryRegionSection *section)
{
    return memory_region_is_ram(section->mr) && !section->readonly &&
           !memory_region_is_ram_device(section->mr);
}

static void balloon_free_discard_gpa(hwaddr addr, uint64_t size)
{
    const Int128 end = int128_add(int128_make64(addr), int128_make64(size));
    Int128 at = int128_make64(addr);

    while (int128_lt(at, end) && int128_lt(at, int128_2_64())) {
        hwaddr from = int128_get64(at);
        MemoryRegionSection section = memory_region_find(
            get_system_memory(), from, int128_get64(int128_sub(end, at)));

        if (!section.mr) {
            trace_virtio_balloon_bad_addr(from);
            break;
        }
        if (balloon_free_can_discard(&section)) {
            balloon_free_discard(section.mr->ram_block,
                                 section.offset_within_region,
                                 int128_get64(section.size));
        } else {
            trace_virtio_balloon_bad_addr(from);
        }
        /* Int128: the range can wrap around, and then it has no memory. */
        at = int128_add(int128_make64(section.offset_within_address_space),
                        section.size);
        memory_region_unref(section.mr);
    }
}

void virtio_balloon_report(const VirtQueueElement *elem)
{
    unsigned i;

    for (i = 0; i < elem->in_num; i++) {
        if (elem->in_sg[i].iov_base) {
            balloon_free_discard_mapped(&elem->in_sg[i], elem->in_addr[i]);
        } else {
            balloon_free_discard_gpa(elem->in_addr[i], elem->in_sg[i].iov_len);
        }
    }
}

static void balloon_free_hint_gpa(hwaddr addr, hwaddr size)
{
    hwaddr len, xlat;

    for (; size; addr += len, size -= len) {
        MemoryRegion *mr = NULL;

        len = size;
        WITH_RCU_READ_LOCK_GUARD() {
            /* For private memory, @mr is not RAM, and @len ends with that. */
            mr = address_space_translate(&address_space_memory, addr, &xlat,
                                         &len, false, MEMTXATTRS_UNSPECIFIED);
            memory_region_ref(mr);
        }
        /* This waits for the migration, whose peer may not read on. */
        if (memory_region_is_ram(mr)) {
            qemu_guest_free_page_hint(memory_region_get_ram_ptr(mr) + xlat,
                                      len);
        }
        memory_region_unref(mr);
    }
}

void virtio_balloon_hint(const VirtQueueElement *elem)
{
    unsigned i;

    for (i = 0; i < elem->in_num; i++) {
        if (elem->in_sg[i].iov_base) {
            qemu_guest_free_page_hint(elem->in_sg[i].iov_base,
                                      elem->in_sg[i].iov_len);
        } else {
            balloon_free_hint_gpa(elem->in_addr[i], elem->in_sg[i].iov_len);
        }
    }
}
