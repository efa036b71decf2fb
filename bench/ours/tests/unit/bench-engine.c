/*
 * Our engine for bench-tracking.c: the map, and listeners told as
 * system/guest-memfd.c tells them
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/queue.h"
#include "system/guest-memfd-map.h"
#include "system/memory.h"
#include "bench-tracking.h"

static GuestMemfdMap engine_map;
static MemoryRegion region;
static MemoryRegionSection all;
static QLIST_HEAD(, RamDiscardListener) listeners;

static void tell(uint64_t offset, uint64_t size, bool populate)
{
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &listeners, next) {
        MemoryRegionSection section = *rdl->section;

        if (!memory_region_section_intersect_range(&section, offset, size)) {
            continue;
        }
        if (populate) {
            rdl->notify_populate(rdl, &section);
        } else {
            rdl->notify_discard(rdl, &section);
        }
    }
}

static void engine_discard(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    tell(offset, size, false);
}

static int engine_populate(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    tell(offset, size, true);
    return 0;
}

static int engine_set_private(GuestMemfdMap *map, uint64_t offset,
                              uint64_t size, bool private, uint64_t *done)
{
    return 0;
}

static int engine_drop(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                       bool private)
{
    return 0;
}

static const GuestMemfdMapOps engine_ops = {
    .discard = engine_discard,
    .populate = engine_populate,
    .set_private = engine_set_private,
    .drop = engine_drop,
};

void bench_engine_init(uint64_t size, int n)
{
    all.mr = &region;
    all.size = int128_make64(size);
    QLIST_INIT(&listeners);
    while (n--) {
        RamDiscardListener *rdl = g_new0(RamDiscardListener, 1);

        bench_listener_init(rdl);
        rdl->section = &all;
        QLIST_INSERT_HEAD(&listeners, rdl, next);
    }
    memset(&engine_map, 0, sizeof(engine_map));
    guest_memfd_map_init(&engine_map, &engine_ops, size, 4096, false);
}

void bench_engine_destroy(void)
{
    RamDiscardListener *rdl, *next;

    QLIST_FOREACH_SAFE(rdl, &listeners, next, next) {
        g_free(rdl);
    }
    guest_memfd_map_destroy(&engine_map);
}

void bench_engine_convert(uint64_t offset, uint64_t size, bool to_private)
{
    GuestMemfdPiece piece = {
        .map = &engine_map, .offset = offset, .size = size,
    };

    guest_memfd_lock();
    guest_memfd_map_convert(&piece, 1, to_private, NULL);
    guest_memfd_unlock();
}
