/*
 * Stock's engine for bench-tracking.c, system/ram-block-attributes.c, and what
 * that needs of the memory API
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "bench-tracking.h"

static RamBlockAttributes *attributes;
static RamDiscardListener *listeners;
static MemoryRegion region;
static RAMBlock block;

/* Stand-ins of system/memory.c */

int memory_region_set_ram_discard_manager(MemoryRegion *mr,
                                          RamDiscardManager *rdm)
{
    mr->rdm = rdm;
    return 0;
}

uint64_t memory_region_size(MemoryRegion *mr)
{
    return int128_get64(mr->size);
}

MemoryRegionSection *memory_region_section_new_copy(MemoryRegionSection *s)
{
    return g_memdup2(s, sizeof(*s));
}

void memory_region_section_free_copy(MemoryRegionSection *s)
{
    g_free(s);
}

static const TypeInfo manager_info = {
    .parent = TYPE_INTERFACE,
    .name = TYPE_RAM_DISCARD_MANAGER,
    .class_size = sizeof(RamDiscardManagerClass),
};

static void register_types(void)
{
    type_register_static(&manager_info);
}

type_init(register_types)

void bench_engine_init(uint64_t size, int n)
{
    MemoryRegionSection all = { .mr = &region, .size = int128_make64(size) };
    RamDiscardManagerClass *class;
    int i;

    module_call_init(MODULE_INIT_QOM);
    region.size = all.size;
    block.mr = &region;
    attributes = ram_block_attributes_create(&block);
    bitmap_set(attributes->bitmap, 0, attributes->bitmap_size);
    class = RAM_DISCARD_MANAGER_GET_CLASS(attributes);
    listeners = g_new0(RamDiscardListener, n);
    for (i = 0; i < n; i++) {
        bench_listener_init(&listeners[i]);
        class->register_listener(RAM_DISCARD_MANAGER(attributes),
                                 &listeners[i], &all);
    }
}

void bench_engine_destroy(void)
{
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &attributes->rdl_list, next) {
        memory_region_section_free_copy(rdl->section);
    }
    ram_block_attributes_destroy(attributes);
    g_free(listeners);
}

void bench_engine_convert(uint64_t offset, uint64_t size, bool to_private)
{
    ram_block_attributes_state_change(attributes, offset, size, to_private);
}
