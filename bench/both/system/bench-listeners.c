/*
 * bench-listeners: users of the main memory's shared pages, as VFIO is one,
 * that do nothing but count what they are told
 *
 * With syscall=on each call makes a system call as well, as any user that
 * follows with an IOMMU has to.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "system/hostmem.h"
#include "system/memory.h"

#define TYPE_BENCH_LISTENERS "bench-listeners"
OBJECT_DECLARE_SIMPLE_TYPE(BenchListeners, BENCH_LISTENERS)

typedef struct BenchListener {
    RamDiscardListener listener;
    BenchListeners *owner;
} BenchListener;

struct BenchListeners {
    DeviceState parent;

    uint32_t count;
    bool syscall;
    BenchListener *listeners;
    uint64_t calls;             /* of all listeners together */
};

static int bench_call(RamDiscardListener *rdl)
{
    BenchListeners *owner = container_of(rdl, BenchListener, listener)->owner;

    owner->calls++;
    if (owner->syscall) {
        ioctl(-1, 0);
    }
    return 0;
}

static int bench_populate(RamDiscardListener *rdl, MemoryRegionSection *section)
{
    return bench_call(rdl);
}

static void bench_discard(RamDiscardListener *rdl, MemoryRegionSection *section)
{
    bench_call(rdl);
}

static void bench_listeners_realize(DeviceState *dev, Error **errp)
{
    BenchListeners *s = BENCH_LISTENERS(dev);
    MemoryRegion *mr = current_machine->ram;
    RamDiscardManager *rdm = memory_region_get_ram_discard_manager(mr);
    MemoryRegionSection section = {
        .mr = mr,
        .size = int128_make64(memory_region_size(mr)),
    };
    int i;

    if (!rdm) {
        error_setg(errp, "the machine's memory has no private pages");
        return;
    }
    s->listeners = g_new0(BenchListener, s->count);
    for (i = 0; i < s->count; i++) {
        s->listeners[i].owner = s;
        ram_discard_listener_init(&s->listeners[i].listener, bench_populate,
                                  bench_discard, true);
        ram_discard_manager_register_listener(rdm, &s->listeners[i].listener,
                                              &section);
    }
    s->calls = 0;
}

static const Property bench_listeners_properties[] = {
    DEFINE_PROP_UINT32("count", BenchListeners, count, 1),
    DEFINE_PROP_BOOL("syscall", BenchListeners, syscall, false),
};

static void bench_listeners_init(Object *obj)
{
    object_property_add_uint64_ptr(obj, "calls", &BENCH_LISTENERS(obj)->calls,
                                   OBJ_PROP_FLAG_READ);
}

static void bench_listeners_class_init(ObjectClass *oc, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(oc);

    dc->realize = bench_listeners_realize;
    dc->hotpluggable = false;
    device_class_set_props(dc, bench_listeners_properties);
}

static const TypeInfo bench_listeners_info = {
    .name = TYPE_BENCH_LISTENERS,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(BenchListeners),
    .instance_init = bench_listeners_init,
    .class_init = bench_listeners_class_init,
};

static void bench_listeners_register_types(void)
{
    type_register_static(&bench_listeners_info);
}

type_init(bench_listeners_register_types)
