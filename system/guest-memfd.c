/*
 * Private memory of a VM: its RAM blocks, and who may look at it
 *
 * guest-memfd-convert.c cuts a request into pieces; guest-memfd-map.c changes
 * their state, with the operations of this file: RAM discard listeners, the
 * accelerator, and the half whose contents have no meaning any more.
 *
 * The state changes with the BQL held.  Readers need guest_memfd_lock() alone.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd.h"
#include "system/kvm_gmem.h"
#include "system/physmem.h"
#include "system/ram-block-holes.h"
#include "trace.h"

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(GuestMemfdBlock, guest_memfd_block,
                                          GUEST_MEMFD_BLOCK, OBJECT,
                                          { TYPE_RAM_DISCARD_MANAGER }, { })

static GuestMemfdBlock *block_of_map(GuestMemfdMap *map)
{
    return container_of(map, GuestMemfdBlock, map);
}

/* Operations of the map */

static void block_discard(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = block_of_map(map);
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
    GuestMemfdBlock *block = block_of_map(map);
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
    return guest_memfd_shared_acquire(block_of_map(map), offset, size);
}

static int block_set_private(GuestMemfdMap *map, uint64_t offset,
                             uint64_t size, bool private)
{
    return kvm_gmem_set_private(block_of_map(map)->rb, offset, size, private);
}

/* Unlike ram_block_discard_guest_memfd_range(), this reports no error. */
static int drop_private(RAMBlock *rb, uint64_t offset, uint64_t size)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    return fallocate(rb->guest_memfd, FALLOC_FL_PUNCH_HOLE |
                     FALLOC_FL_KEEP_SIZE, offset, size) ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

static int block_drop(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                      bool private)
{
    GuestMemfdBlock *block = block_of_map(map);
    int ret = private ? drop_private(block->rb, offset, size)
                      : guest_memfd_shared_drop(block, offset, size);

    trace_guest_memfd_drop(block->rb->idstr, offset, size, private, ret);
    return ret;
}

static const GuestMemfdMapOps guest_memfd_block_ops = {
    .discard = block_discard,
    .populate = block_populate,
    .acquire = block_acquire,
    .set_private = block_set_private,
    .drop = block_drop,
};

/* RamDiscardManager: shared memory is populated */

static uint64_t block_get_min_granularity(const RamDiscardManager *rdm,
                                          const MemoryRegion *mr)
{
    return GUEST_MEMFD_BLOCK(rdm)->map.page_size;
}

static bool block_is_private(GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size)
{
    const uint64_t end = QEMU_ALIGN_UP(offset + size, block->map.page_size);
    bool private;

    offset = QEMU_ALIGN_DOWN(offset, block->map.page_size);
    guest_memfd_lock();
    private = guest_memfd_map_next_run(&block->map, &offset, end, true);
    guest_memfd_unlock();
    return private;
}

static bool block_is_populated(const RamDiscardManager *rdm,
                               const MemoryRegionSection *section)
{
    return !block_is_private(GUEST_MEMFD_BLOCK(rdm), section->offset_within_region,
                             int128_get64(section->size));
}

/* With guest_memfd_lock() held */
static int block_for_each(const GuestMemfdBlock *block,
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
    ret = block_for_each(GUEST_MEMFD_BLOCK(rdm), section, private, fn, opaque);
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

static int notify_populate(MemoryRegionSection *section, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, section);
}

static int notify_discard(MemoryRegionSection *section, void *opaque)
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
    ret = block_for_each(block, section, false, notify_populate, rdl);
    guest_memfd_unlock();
    if (ret) {
        /* Once: the guest can have its memory mapped anew at will. */
        error_report_once_cond(&block->told, "Not all shared memory of %s could "
                               "be mapped for a device, which cannot access "
                               "the rest: %s", block->rb->idstr,
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
        block_for_each(block, rdl->section, false, notify_discard, rdl);
    }
    QLIST_REMOVE(rdl, next);
    guest_memfd_unlock();
    memory_region_section_free_copy(rdl->section);
    rdl->section = NULL;
}

/* Blocks */

static bool guards_access;      /* once set, it stays */

bool guest_memfd_initially_private(void)
{
    return current_machine->cgs && !current_machine->cgs->initially_shared;
}

bool guest_memfd_required(MachineState *machine)
{
    return (machine->cgs && machine->cgs->initially_shared) ||
           machine_require_guest_memfd(machine);
}

GuestMemfdBlock *guest_memfd_block_create(RAMBlock *rb, Error **errp)
{
    GuestMemfdBlock *block;

    if (!guest_memfd_shared_init(rb, errp)) {
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
    guest_memfd_stats_init();
    block->rb = rb;
    guest_memfd_map_init(&block->map, &guest_memfd_block_ops,
                         ROUND_UP(rb->max_length, qemu_real_host_page_size()),
                         qemu_real_host_page_size(),
                         guest_memfd_initially_private());
    block->map.free_size = guest_memfd_shared_free_size(rb);
    if (!block->map.initially_private) {
        qatomic_set(&guards_access, true);
    }
    return block;
}

void guest_memfd_block_destroy(GuestMemfdBlock *block)
{
    /* The memory region, whose RamDiscardManager it was, is gone already. */
    object_unref(OBJECT(block));
}

GuestMemfdBlock *guest_memfd_of(const RAMBlock *rb)
{
    return rb ? rb->guest_memfd_block : NULL;
}

static NotifierWithReturnList plug_notifiers =
    NOTIFIER_WITH_RETURN_LIST_INITIALIZER(plug_notifiers);

void guest_memfd_add_plug_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_list_add(&plug_notifiers, notifier);
}

bool guest_memfd_check_plug(MemoryRegion *mr, Error **errp)
{
    return !guest_memfd_of(mr->ram_block) ||
           !notifier_with_return_list_notify(&plug_notifiers, mr, errp);
}

/* QEMU's own access */

bool guest_memfd_guards_access(void)
{
    return qatomic_read(&guards_access);
}

/* Is the memory at @offset private?  Sets @size to how far the answer holds. */
static bool block_private_run(const GuestMemfdBlock *block, uint64_t offset,
                              uint64_t *size)
{
    uint64_t from, run, left;
    bool private;

    from = QEMU_ALIGN_DOWN(offset, block->map.page_size);
    left = block->map.nr_pages * block->map.page_size;
    left = QEMU_ALIGN_UP(MIN(offset + *size, left), block->map.page_size);
    guest_memfd_lock();
    run = from;
    private = guest_memfd_map_next_run(&block->map, &run, from +
                                       block->map.page_size, true);
    run = from;
    run = guest_memfd_map_next_run(&block->map, &run, left, private);
    guest_memfd_unlock();
    *size = MIN(*size, from + run - offset);
    return private;
}

bool guest_memfd_is_private(const RAMBlock *rb, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);

    return block && block_is_private(block, offset, size);
}

bool guest_memfd_may_access(const MemoryRegion *mr, hwaddr offset,
                            hwaddr *size)
{
    GuestMemfdBlock *block = guest_memfd_of(mr->ram_block);

    /*
     * Where all is private at first, QEMU loads the guest into shared halves.
     * Who gives no size accesses nothing.
     */
    if (likely(!block) || block->map.initially_private || !size) {
        return true;
    }
    return !block_private_run(block, offset, size);
}

/* What the dump that is being made knows about pages that do not exist */
static RAMBlockHoles dump_holes;

void guest_memfd_dump_begin(void)
{
    ram_block_holes_forget(&dump_holes);
}

bool guest_memfd_dumps_private(const MemoryRegion *mr)
{
    GuestMemfdBlock *block = guest_memfd_of(mr->ram_block);

    return block && !block->map.initially_private;
}

void *guest_memfd_dump(const MemoryRegion *mr, void *host, size_t *size,
                       uint64_t *private)
{
    static const uint8_t zeros[4 * KiB];
    const RAMBlock *rb = mr->ram_block;
    GuestMemfdBlock *block = guest_memfd_of(rb);
    const uint64_t offset = rb ? (uint8_t *)host - rb->host : 0;
    uint64_t run = *size;
    bool is_zero = false;

    if (block && block_private_run(block, offset, &run)) {
        is_zero = true;
        if (private) {
            *private += MIN(run, sizeof(zeros));
        }
    } else if (rb) {
        run = ram_block_holes_run(&dump_holes, rb, offset, run, &is_zero);
    }
    *size = is_zero ? MIN(run, sizeof(zeros)) : run;
    return is_zero ? (void *)zeros : host;
}

bool guest_memfd_balloon(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    uint64_t start, end, run;

    if (!block) {
        return false;
    }
    guest_memfd_lock();
    start = QEMU_ALIGN_UP(offset, rb->page_size);
    end = QEMU_ALIGN_DOWN(offset + size, rb->page_size);
    if (start < end) {
        guest_memfd_shared_balloon(rb, start, end - start);
    }
    end = QEMU_ALIGN_DOWN(offset + size, block->map.page_size);
    offset = QEMU_ALIGN_UP(offset, block->map.page_size);
    /* Where all is private at first, the guest has to accept what it gets. */
    for (; !block->map.initially_private &&
         (run = guest_memfd_map_next_run(&block->map, &offset, end, true));
         offset += run) {
        drop_private(rb, offset, run);
    }
    guest_memfd_unlock();
    return true;
}

/* All of the VM */

static int add_private_size(RAMBlock *rb, void *opaque)
{
    uint64_t *size = opaque;
    GuestMemfdBlock *block = guest_memfd_of(rb);

    if (block) {
        *size += guest_memfd_map_private_size(&block->map);
    }
    return 0;
}

static GuestMemfdFailureList *query_failures(const GuestMemfdMapStats *stats)
{
    GuestMemfdFailureList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < ARRAY_SIZE(stats->failures); i++) {
        GuestMemfdFailure *failure;

        if (stats->failures[i]) {
            failure = g_new0(GuestMemfdFailure, 1);
            failure->q_errno = i;
            failure->error = g_strdup(strerror(i));
            failure->count = stats->failures[i];
            QAPI_LIST_APPEND(tail, failure);
        }
    }
    return list;
}

GuestMemfdConversion *guest_memfd_query_conversion(GuestMemfdBlock *block)
{
    GuestMemfdConversion *info = g_new0(GuestMemfdConversion, 1);
    const GuestMemfdMapStats *stats = &block->map.stats;

    guest_memfd_lock();
    info->q_private = guest_memfd_map_private_size(&block->map);
    info->shared = block->map.nr_pages * block->map.page_size -
                   info->q_private;
    info->to_private = stats->conversions[true];
    info->to_shared = stats->conversions[false];
    info->pages_to_private = stats->pages[true];
    info->pages_to_shared = stats->pages[false];
    info->failures = query_failures(stats);
    info->time_ns = stats->ns;
    guest_memfd_unlock();
    return info;
}

/* Bytes of all blocks that are private now */
static uint64_t guest_memfd_private_size(void)
{
    uint64_t size = 0;

    guest_memfd_lock();
    qemu_ram_foreach_block(add_private_size, &size);
    guest_memfd_unlock();
    return size;
}

bool guest_memfd_blocks_migration(Error **errp)
{
    uint64_t size = guest_memfd_private_size();

    if (size) {
        error_setg(errp, "%" PRIu64 " bytes of the guest's memory are private "
                   "and cannot be read to be migrated", size);
        return true;
    }
    kvm_gmem_begin_dirty_log();
    return false;
}

/* Set *@opaque, an int, to -errno if that fails; the others are still reset. */
static int reset_block(RAMBlock *rb, void *opaque)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    int *error = opaque;
    int64_t ret = 0;

    if (block) {
        const bool private = block->map.initially_private;
        const uint64_t size = block->map.nr_pages * block->map.page_size;
        GuestMemfdPiece piece = { .map = &block->map, .size = size };

        ret = guest_memfd_map_convert(&piece, 1, private, NULL);
    }
    if (ret < 0) {
        error_report("The private memory of %s could not be reset: %s",
                     rb->idstr, strerror(-ret));
        *error = ret;
    }
    return 0;
}

/* The error of the last reset */
static int reset_error;

int guest_memfd_reset(void)
{
    reset_error = 0;
    guest_memfd_forget_requests();
    guest_memfd_lock();
    qemu_ram_foreach_block(reset_block, &reset_error);
    guest_memfd_unlock();
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
    guest_memfd_forget_block(block);
    guest_memfd_lock();
    reset_block(rb, &ret);
    if (!ret) {
        /* A request that was forgotten may have left old contents there. */
        ram_block_discard_guest_memfd_range(rb, 0, block->map.nr_pages *
                                                   block->map.page_size);
    }
    guest_memfd_unlock();
}

static void guest_memfd_block_init(Object *obj)
{
    QLIST_INIT(&GUEST_MEMFD_BLOCK(obj)->listeners);
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
