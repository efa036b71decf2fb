/*
 * Private memory of a VM: its RAM blocks
 *
 * A GuestMemfdBlock has the map of its pages (guest-memfd-map.c), the listeners
 * of its RamDiscardManager, and the accelerator's views of it.  This file has
 * what happens to a block when its map changes: listeners are told, the
 * accelerator maps the other half, and the half whose contents are no longer
 * needed is freed.
 *
 * The state changes with the BQL held.  Readers need guest_memfd_lock() alone.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-block.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "trace.h"

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(GuestMemfdBlock, guest_memfd_block,
                                          GUEST_MEMFD_BLOCK, OBJECT,
                                          { TYPE_RAM_DISCARD_MANAGER }, { })

static GuestMemfdBlock *block_of(GuestMemfdMap *map)
{
    return container_of(map, GuestMemfdBlock, map);
}

/* What follows a change of the map */

static void block_discard(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = block_of(map);
    RamDiscardListener *rdl;

    trace_guest_memfd_discard(block->rb->idstr, offset, size);
    QLIST_FOREACH(rdl, &block->listeners, next) {
        MemoryRegionSection section = *rdl->section;

        if (memory_region_section_intersect_range(&section, offset, size)) {
            rdl->notify_discard(rdl, &section);
        }
    }
}

static int block_populate(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = block_of(map);
    RamDiscardListener *rdl, *failed = NULL;
    int ret = 0;

    QLIST_FOREACH(rdl, &block->listeners, next) {
        MemoryRegionSection section = *rdl->section;

        if (memory_region_section_intersect_range(&section, offset, size)) {
            ret = rdl->notify_populate(rdl, &section);
            if (ret) {
                failed = rdl;
                break;
            }
        }
    }
    trace_guest_memfd_populate(block->rb->idstr, offset, size, ret);
    if (!failed) {
        return 0;
    }
    /* Those before the one that failed have the memory: take it back. */
    QLIST_FOREACH(rdl, &block->listeners, next) {
        MemoryRegionSection section = *rdl->section;

        if (rdl == failed) {
            break;
        }
        if (memory_region_section_intersect_range(&section, offset, size)) {
            rdl->notify_discard(rdl, &section);
        }
    }
    return ret;
}

static int block_acquire(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    return guest_memfd_shared_acquire(block_of(map), offset, size);
}

static int block_set_private(GuestMemfdMap *map, uint64_t offset,
                             uint64_t size, bool private, uint64_t *done)
{
    return kvm_gmem_set_private(block_of(map), offset, size, private, done);
}

/* Unlike ram_block_discard_guest_memfd_range(), this reports no error. */
static int block_drop_private(RAMBlock *rb, uint64_t offset, uint64_t size)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    return fallocate(guest_memfd_fd(rb), FALLOC_FL_PUNCH_HOLE |
                     FALLOC_FL_KEEP_SIZE, offset, size) ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

static void block_forget(RAMBlock *rb)
{
    block_drop_private(rb, 0, guest_memfd_map_size(&guest_memfd_of(rb)->map));
}

static int block_drop(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                      bool private)
{
    GuestMemfdBlock *block = block_of(map);
    int ret = private ? block_drop_private(block->rb, offset, size)
                      : guest_memfd_shared_drop(block, offset, size);

    trace_guest_memfd_drop(block->rb->idstr, offset, size, private, ret);
    return ret;
}

static const GuestMemfdBlockOps block_ops_split = {
    .mode = GUEST_MEMFD_MODE_SPLIT,
    .map = {
        .discard = block_discard,
        .populate = block_populate,
        .acquire = block_acquire,
        .set_private = block_set_private,
        .drop = block_drop,
    },
    .init = guest_memfd_shared_init,
    .free_size = guest_memfd_shared_free_size,
    .balloon = guest_memfd_shared_balloon,
    .forget = block_forget,
    .drop_private = block_drop_private,
};

static int block_set_private_in_place(GuestMemfdMap *map, uint64_t offset,
                                      uint64_t size, bool private,
                                      uint64_t *done)
{
    return guest_memfd_in_place_set_private(block_of(map), offset, size,
                                            private, done);
}

/* Pages stay where they are: nothing is allocated or freed. */
static const GuestMemfdBlockOps block_ops_in_place = {
    .mode = GUEST_MEMFD_MODE_IN_PLACE,
    .file_has_attributes = true,
    .map = {
        .discard = block_discard,
        .populate = block_populate,
        .set_private = block_set_private_in_place,
    },
    .init = guest_memfd_in_place_init,
    .free_size = guest_memfd_in_place_free_size,
    .balloon = guest_memfd_in_place_balloon,
    .drop_private = block_drop_private,
};

/*
 * RamDiscardManager: shared memory is populated.
 *
 * Listeners and replay callbacks run with guest_memfd_lock() held, which is not
 * recursive: they must not access guest memory through the memory API, because
 * guest_memfd_may_access() takes that lock.
 */

static uint64_t block_get_min_granularity(const RamDiscardManager *rdm,
                                          const MemoryRegion *mr)
{
    return GUEST_MEMFD_BLOCK(rdm)->map.page_size;
}

static bool block_is_populated(const RamDiscardManager *rdm,
                               const MemoryRegionSection *section)
{
    return !guest_memfd_map_has_private(&GUEST_MEMFD_BLOCK(rdm)->map,
                                        section->offset_within_region,
                                        int128_get64(section->size));
}

/* With guest_memfd_lock() held */
static int block_for_each_run(const GuestMemfdBlock *block,
                              const MemoryRegionSection *section, bool private,
                              ReplayRamDiscardState fn, void *opaque)
{
    uint64_t offset = section->offset_within_region, size;
    const uint64_t end = offset + int128_get64(section->size);

    for (; (size = guest_memfd_map_next_run(&block->map, &offset, end,
                                            private)); offset += size) {
        MemoryRegionSection part = *section;
        int ret;

        if (!memory_region_section_intersect_range(&part, offset, size)) {
            break;
        }
        ret = fn(&part, opaque);
        if (ret) {
            return ret;
        }
    }
    return 0;
}

static int block_replay(const RamDiscardManager *rdm,
                        const MemoryRegionSection *section, bool private,
                        ReplayRamDiscardState fn, void *opaque)
{
    int ret;

    guest_memfd_lock();
    ret = block_for_each_run(GUEST_MEMFD_BLOCK(rdm), section, private, fn,
                             opaque);
    guest_memfd_unlock();
    return ret;
}

static int block_replay_populated(const RamDiscardManager *rdm,
                                  MemoryRegionSection *section,
                                  ReplayRamDiscardState fn, void *opaque)
{
    return block_replay(rdm, section, false, fn, opaque);
}

static int block_replay_discarded(const RamDiscardManager *rdm,
                                  MemoryRegionSection *section,
                                  ReplayRamDiscardState fn, void *opaque)
{
    return block_replay(rdm, section, true, fn, opaque);
}

static int block_populate_run(MemoryRegionSection *section, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, section);
}

static int block_discard_run(MemoryRegionSection *section, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    rdl->notify_discard(rdl, section);
    return 0;
}

static void block_register_listener(RamDiscardManager *rdm,
                                    RamDiscardListener *rdl,
                                    MemoryRegionSection *section)
{
    GuestMemfdBlock *block = GUEST_MEMFD_BLOCK(rdm);
    int ret;

    rdl->section = memory_region_section_new_copy(section);
    guest_memfd_lock();
    QLIST_INSERT_HEAD(&block->listeners, rdl, next);
    ret = block_for_each_run(block, section, false, block_populate_run, rdl);
    guest_memfd_unlock();
    if (ret) {
        /* Once: a guest can have its memory mapped anew at any time. */
        error_report_once_cond(&block->told, "Not all shared memory of %s "
                               "could be mapped for a device, which cannot "
                               "access the rest: %s", block->rb->idstr,
                               strerror(-ret));
    }
}

static void block_unregister_listener(RamDiscardManager *rdm,
                                      RamDiscardListener *rdl)
{
    GuestMemfdBlock *block = GUEST_MEMFD_BLOCK(rdm);

    guest_memfd_lock();
    if (rdl->double_discard_supported) {
        rdl->notify_discard(rdl, rdl->section);
    } else {
        block_for_each_run(block, rdl->section, false, block_discard_run, rdl);
    }
    QLIST_REMOVE(rdl, next);
    guest_memfd_unlock();
    memory_region_section_free_copy(rdl->section);
    rdl->section = NULL;
}

/* The life of a block */

/* Is there a block whose private pages QEMU must not access?  Never cleared. */
static bool block_any_guards_access;

bool guest_memfd_guards_access(void)
{
    return qatomic_read(&block_any_guards_access);
}

void guest_memfd_block_guard_access(GuestMemfdBlock *block)
{
    qatomic_set(&block->guards_access, true);
    qatomic_set(&block_any_guards_access, true);
}

bool guest_memfd_machine_has_private(const MachineState *machine)
{
    return machine->cgs && (machine->cgs->ram_has_private ||
                            machine->cgs->require_guest_memfd);
}

bool guest_memfd_create_half(RAMBlock *rb, Error **errp)
{
    if (guest_memfd_in_place()) {
        return true;
    }
    rb->guest_memfd = kvm_create_guest_memfd(rb->max_length, 0, errp);
    return rb->guest_memfd >= 0;
}

GuestMemfdBlock *guest_memfd_block_create(RAMBlock *rb, Error **errp)
{
    const ConfidentialGuestSupport *cgs = current_machine->cgs;
    const GuestMemfdBlockOps *ops = cgs->in_place ? &block_ops_in_place
                                                  : &block_ops_split;
    GuestMemfdBlock *block;

    if (!ops->init(rb, errp)) {
        return NULL;
    }
    block = GUEST_MEMFD_BLOCK(object_new(TYPE_GUEST_MEMFD_BLOCK));
    if (memory_region_set_ram_discard_manager(rb->mr,
                                              RAM_DISCARD_MANAGER(block))) {
        error_setg(errp, "memory '%s' has a RAM discard manager already",
                   memory_region_name(rb->mr));
        object_unref(OBJECT(block));
        return NULL;
    }
    block->rb = rb;
    block->ops = ops;
    guest_memfd_map_init(&block->map, &ops->map,
                         ROUND_UP(rb->max_length, qemu_real_host_page_size()),
                         qemu_real_host_page_size(), !cgs->initially_shared);
    block->map.free_size = ops->free_size(rb);
    if (cgs->in_place ? !guest_memfd_in_place_is_open()
                      : !cgs->loaded_through_shared_half) {
        guest_memfd_block_guard_access(block);
    }
    if (rb->flags & RAM_GUEST_MEMFD_MMAP) {
        guest_memfd_sigbus_add(block);
    }
    return block;
}

void guest_memfd_block_destroy(GuestMemfdBlock *block)
{
    if (block->rb->flags & RAM_GUEST_MEMFD_MMAP) {
        guest_memfd_sigbus_remove(block);
    }
    /* The memory region, whose RamDiscardManager it was, is gone already. */
    object_unref(OBJECT(block));
}

bool guest_memfd_block_check_bound(const GuestMemfdBlock *block, hwaddr start,
                                   uint64_t size)
{
    const hwaddr end = start + size;
    const GuestMemfdView *view;

    QTAILQ_FOREACH(view, &block->views, next) {
        hwaddr from = MAX(start, view->address);
        hwaddr to = MIN(end, view->address + view->size);

        /* kvm_gmem_end_dirty_log() has a slot bound that is logged now. */
        if (from < to && (view->binding == GUEST_MEMFD_BINDING_BOUND ||
                          view->binding == GUEST_MEMFD_BINDING_DIRTY_LOG)) {
            size -= to - from;
        }
    }
    return !size;
}

bool guest_memfd_block_address(const GuestMemfdBlock *block, uint64_t offset,
                               hwaddr *address)
{
    const GuestMemfdView *view;

    QTAILQ_FOREACH(view, &block->views, next) {
        if (offset >= view->offset && offset - view->offset < view->size) {
            *address = view->address + offset - view->offset;
            return true;
        }
    }
    return false;
}

void guest_memfd_block_count(GuestMemfdBlock *block, bool to_private,
                             uint64_t pages, uint64_t ns, int error)
{
    block->stats.conversions[to_private] += pages != 0;
    block->stats.pages[to_private] += pages;
    block->stats.ns += ns;
    if (error) {
        block->stats.failures[MIN(error, GUEST_MEMFD_MAX_ERRNO)]++;
    }
}

static NotifierWithReturnList block_plug_notifiers =
    NOTIFIER_WITH_RETURN_LIST_INITIALIZER(block_plug_notifiers);

void guest_memfd_add_plug_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_list_add(&block_plug_notifiers, notifier);
}

bool guest_memfd_check_plug(MemoryRegion *mr, Error **errp)
{
    return !guest_memfd_of(mr->ram_block) ||
           !notifier_with_return_list_notify(&block_plug_notifiers, mr, errp);
}

static void guest_memfd_block_init(Object *obj)
{
    GuestMemfdBlock *block = GUEST_MEMFD_BLOCK(obj);

    QLIST_INIT(&block->listeners);
    QTAILQ_INIT(&block->views);
}

static void guest_memfd_block_finalize(Object *obj)
{
    guest_memfd_map_destroy(&GUEST_MEMFD_BLOCK(obj)->map);
}

static void guest_memfd_block_class_init(ObjectClass *klass, const void *data)
{
    RamDiscardManagerClass *rdmc = RAM_DISCARD_MANAGER_CLASS(klass);

    rdmc->get_min_granularity = block_get_min_granularity;
    rdmc->register_listener = block_register_listener;
    rdmc->unregister_listener = block_unregister_listener;
    rdmc->is_populated = block_is_populated;
    rdmc->replay_populated = block_replay_populated;
    rdmc->replay_discarded = block_replay_discarded;
}
