/*
 * KVM guest_memfd: creating the file, binding memslots to it, private memory
 *
 * KVM lets a range of a guest_memfd be bound by one memslot only, and neither
 * by a read-only nor by a dirty-logged one, while a VM has several views of
 * its RAM: SMM's address space, PC's shadow RAM, migration.  For shared pages
 * QEMU's mapping (of the file, or of the shared half beside it) is as good as
 * the file: a slot that cannot be bound is registered by address over the
 * mapping and bound later, when the reason is gone.
 *
 * Which slots get bound follows from the slots alone (no history): of all that
 * KVM would accept in address space 0, those that kvm-gmem-bind.c chooses.
 * Only address space 0 is considered: it is the one vCPUs run in, and so SMM's
 * copy can never take a range from it.  A slot that KVM refuses to bind in
 * spite of all that stays by address until its flags change.
 *
 * Private memory is where a slot is bound: KVM's attributes are those of the
 * block's map (system/guest-memfd.h) under bound slots, and "shared" elsewhere.
 *
 * A slot that has private memory stays bound, so KVM cannot log it, even if the
 * memory core wants that (to measure the dirty rate, or for a dirty limit).
 * kvm_gmem_slot_set_flags() alone decides, from what is wanted and what is
 * private, and is asked again when either changes: at once when memory becomes
 * private or a migration wants to begin, within a second when the last private
 * page goes.  A migration begins only when nothing is private, and nothing
 * becomes private while it runs: so it never misses a slot.
 *
 * A slot whose binding changes is deleted and added again.  If KVM fails to take
 * it back in whatever way, the slot is *lost*: its memory is all there, but not
 * for vCPUs.  The VM stops, and does not run until a reset has added all slots.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/range.h"
#include "qemu/timer.h"
#include "hw/qdev-core.h"
#include "system/accel-blocker.h"
#include "system/guest-memfd.h"
#include "system/kvm.h"
#include "system/kvm_gmem.h"
#include "system/kvm_int.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "kvm-gmem-bind.h"
#include "trace.h"

/*
 * Flags that KVM refuses together with KVM_MEM_GUEST_MEMFD: see
 * kvm_set_memory_region() in Linux.
 */
#define KVM_GMEM_UNBINDABLE (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)

/*
 * How long a slot without private memory waits for the dirty log that the
 * memory core wants of it, in ms: as long as a measurement of the dirty rate
 * takes at least.  Can be changed at any time.
 */
#define KVM_GMEM_LOG_DELAY 1000

int kvm_gmem_create_mmap(uint64_t size, Error **errp)
{
    const uint64_t flags = GUEST_MEMFD_FLAG_MMAP |
                           GUEST_MEMFD_FLAG_INIT_SHARED;
    struct kvm_create_guest_memfd args = {
        .size = size,
        .flags = flags,
    };
    int fd, ret;

    /*
     * Asked of the VM, not of the system: KVM before 6.18 has guest_memfd for
     * VM types with private memory alone.
     */
    if (kvm_vm_check_extension(kvm_state, KVM_CAP_USER_MEMORY2) <= 0 ||
        kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD) <= 0) {
        error_setg(errp, "the host's KVM has no guest_memfd for this type of "
                   "VM: it takes Linux 6.18 or newer, with guest_memfd "
                   "enabled; use memory-backend-memfd here");
        return -1;
    }

    ret = kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD_FLAGS);
    if (ret < 0 || (ret & flags) != flags) {
        error_setg(errp, "the host's KVM cannot map a guest_memfd (it lacks "
                   "GUEST_MEMFD_FLAG_MMAP or GUEST_MEMFD_FLAG_INIT_SHARED): "
                   "it takes Linux 6.18 or newer; use memory-backend-memfd "
                   "here");
        return -1;
    }

    fd = kvm_vm_ioctl(kvm_state, KVM_CREATE_GUEST_MEMFD, &args);
    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot create a guest_memfd of %" PRIu64
                         " bytes", size);
        return -1;
    }
    qemu_set_cloexec(fd);
    trace_kvm_gmem_create(fd, size, flags);
    return fd;
}

/* The guest_memfd of a RAM block: in place, or of its private half; or -1 */
static int kvm_gmem_block_fd(const RAMBlock *rb)
{
    return rb->flags & RAM_GUEST_MEMFD_MMAP ? rb->fd : rb->guest_memfd;
}

static bool kvm_gmem_slot_bound(const KVMSlot *slot)
{
    return slot->over_guest_memfd && slot->memory_size &&
           !slot->guest_memfd_lost && slot->flags & KVM_MEM_GUEST_MEMFD;
}

static bool kvm_gmem_slot_bindable(const KVMMemoryListener *kml,
                                   const KVMSlot *slot)
{
    return slot->over_guest_memfd && slot->memory_size && kml->as_id == 0 &&
           !slot->guest_memfd_refused && !slot->guest_memfd_lost &&
           !(slot->flags & KVM_GMEM_UNBINDABLE);
}

static KVMGmemView kvm_gmem_slot_view(const KVMSlot *slot)
{
    return (KVMGmemView) {
        .fd = slot->guest_memfd,
        .offset = slot->guest_memfd_offset,
        .size = slot->memory_size,
        .address = slot->start_addr,
    };
}

/* Is any of a slot's memory private? */
static bool kvm_gmem_slot_has_private(const KVMSlot *slot)
{
    GuestMemfdBlock *block = slot->guest_memfd_block;
    uint64_t offset = slot->guest_memfd_offset, size;

    if (!block) {
        return false;
    }
    guest_memfd_lock();
    size = guest_memfd_map_next_run(&block->map, &offset,
                                    offset + slot->memory_size, true);
    guest_memfd_unlock();
    return size;
}

/*
 * Does the memory core want dirty logging of a slot that does not have it?
 * Such slots are counted, as each conversion to shared asks if there is one.
 */
static unsigned kvm_gmem_unlogged;

static void kvm_gmem_slot_set_unlogged(KVMSlot *slot, bool unlogged)
{
    kvm_gmem_unlogged += unlogged - slot->guest_memfd_unlogged;
    slot->guest_memfd_unlogged = unlogged;
}

static void kvm_gmem_slot_choose_flags(KVMMemoryListener *kml, KVMSlot *slot,
                                       bool may_log)
{
    KVMGmemView view = kvm_gmem_slot_view(slot);
    bool log = slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
    int i;

    if (!may_log) {
        slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
    }
    kvm_gmem_slot_set_unlogged(slot, log && !may_log);
    slot->guest_memfd_refused = false;
    if (!kvm_gmem_slot_bindable(kml, slot)) {
        return;
    }
    for (i = 0; i < kml->nr_slots_allocated; i++) {
        const KVMSlot *other = &kml->slots[i];

        if (other != slot && kvm_gmem_slot_bound(other)) {
            KVMGmemView bound = kvm_gmem_slot_view(other);

            if (kvm_gmem_views_alias(&bound, &view)) {
                return;
            }
        }
    }
    slot->flags |= KVM_MEM_GUEST_MEMFD;
}

void kvm_gmem_slot_set_flags(KVMMemoryListener *kml, KVMSlot *slot)
{
    kvm_gmem_slot_choose_flags(kml, slot, !kvm_gmem_slot_has_private(slot));
}

/* The flags that the memory core wants, whatever the slot has */
static int kvm_gmem_slot_wanted_flags(const KVMSlot *slot)
{
    return (slot->flags & ~KVM_MEM_GUEST_MEMFD) |
           (slot->guest_memfd_unlogged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

void kvm_gmem_begin_dirty_log(void)
{
    KVMMemoryListener *kml;
    int i;

    if (!kvm_gmem_unlogged) {
        return;
    }
    kml = kvm_state->as[0].ml;
    kvm_slots_lock();
    for (i = 0; i < kml->nr_slots_allocated; i++) {
        KVMSlot *slot = &kml->slots[i];

        if (slot->memory_size && slot->guest_memfd_unlogged) {
            kvm_slot_update_flags(kml, slot, kvm_gmem_slot_wanted_flags(slot));
        }
    }
    kvm_slots_unlock();
}

static QEMUTimer *kvm_gmem_log_timer;

static void kvm_gmem_log_timer_cb(void *opaque)
{
    kvm_gmem_begin_dirty_log();
}

/*
 * Private memory has become shared.  Not at once: a guest that converts a page
 * back and forth would have its slot deleted and added each time.
 */
static void kvm_gmem_schedule_dirty_log(void)
{
    if (!kvm_gmem_unlogged) {
        return;
    }
    if (!kvm_gmem_log_timer) {
        kvm_gmem_log_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                          kvm_gmem_log_timer_cb, NULL);
    }
    if (!timer_pending(kvm_gmem_log_timer)) {
        timer_mod(kvm_gmem_log_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + KVM_GMEM_LOG_DELAY);
    }
}

int kvm_gmem_end_dirty_log(const GuestMemfdBlock *block, uint64_t offset,
                           uint64_t size)
{
    KVMMemoryListener *kml = kvm_state->as[0].ml;
    g_autoptr(GPtrArray) slots = NULL;
    int ret = 0;
    guint i;

    if (!global_dirty_tracking) {
        return 0;
    }
    slots = g_ptr_array_new();
    kvm_slots_lock();
    for (i = 0; i < kml->nr_slots_allocated; i++) {
        KVMSlot *slot = &kml->slots[i];

        if (slot->memory_size && slot->guest_memfd_block == block &&
            slot->flags & KVM_MEM_LOG_DIRTY_PAGES &&
            ranges_overlap(offset, size, slot->guest_memfd_offset,
                           slot->memory_size)) {
            g_ptr_array_add(slots, slot);
        }
    }
    /* The slots are deleted and added again: no vCPU may see a hole. */
    if (slots->len) {
        accel_ioctl_inhibit_begin();
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        kvm_gmem_slot_choose_flags(kml, slot, false);
        kvm_set_user_memory_region(kml, slot, false);
    }
    if (slots->len) {
        /* An alias may have been bound in the place of a slot. */
        kvm_gmem_commit(kml, true);
        accel_ioctl_inhibit_end();
    }
    for (i = 0; i < slots->len; i++) {
        if (!kvm_gmem_slot_bound(g_ptr_array_index(slots, i))) {
            ret = -EINVAL;
        }
    }
    kvm_slots_unlock();
    /* In case that nothing becomes private in the end */
    kvm_gmem_schedule_dirty_log();
    return ret;
}

bool kvm_gmem_slot_refused(KVMSlot *slot, int error)
{
    if (!(slot->flags & KVM_MEM_GUEST_MEMFD) ||
        kvm_gmem_slot_has_private(slot)) {
        return false;
    }
    warn_report_once("KVM refused to bind a memory slot to its guest_memfd "
                     "(%s): the guest's memory is registered by address "
                     "there; 'query-guest-memfd' lists such slots",
                     strerror(-error));
    trace_kvm_gmem_slot_refused(slot->slot, slot->start_addr,
                                slot->memory_size, error);
    slot->flags &= ~KVM_MEM_GUEST_MEMFD;
    slot->guest_memfd_refused = true;
    return true;
}

static void kvm_gmem_reset(void *opaque);

void kvm_gmem_slot_init(KVMMemoryListener *kml, KVMSlot *slot,
                        const RAMBlock *rb)
{
    static bool has_reset;

    slot->guest_memfd = kvm_gmem_block_fd(rb);
    slot->over_guest_memfd = slot->guest_memfd >= 0;
    slot->guest_memfd_block = guest_memfd_of(rb);
    slot->guest_memfd_refused = false;
    kvm_gmem_slot_set_unlogged(slot, false);
    if (!slot->over_guest_memfd) {
        slot->guest_memfd_offset = 0;
        return;
    }
    if (!has_reset) {
        has_reset = true;
        qemu_register_reset(kvm_gmem_reset, NULL);
    }
    slot->guest_memfd_offset = (uint8_t *)slot->ram - rb->host;
    kvm_gmem_slot_set_flags(kml, slot);
}

bool kvm_gmem_commit_pending(const KVMMemoryListener *kml)
{
    int i;

    for (i = 0; i < kml->nr_slots_allocated; i++) {
        const KVMSlot *slot = &kml->slots[i];

        if (kvm_gmem_slot_bindable(kml, slot) && !kvm_gmem_slot_bound(slot)) {
            return true;
        }
    }
    return false;
}

static void kvm_gmem_slot_rebind(KVMMemoryListener *kml, KVMSlot *slot,
                                 bool bind)
{
    trace_kvm_gmem_slot_rebind(slot->slot, slot->start_addr, slot->memory_size,
                               bind);
    slot->flags ^= KVM_MEM_GUEST_MEMFD;
    kvm_set_user_memory_region(kml, slot, false);
}

void kvm_gmem_commit(KVMMemoryListener *kml, bool inhibited)
{
    g_autoptr(GPtrArray) slots = NULL;
    g_autofree KVMGmemView *views = NULL;
    bool changes = false;
    int i;

    if (!kvm_gmem_commit_pending(kml)) {
        return;
    }

    slots = g_ptr_array_new();
    for (i = 0; i < kml->nr_slots_allocated; i++) {
        if (kvm_gmem_slot_bindable(kml, &kml->slots[i])) {
            g_ptr_array_add(slots, &kml->slots[i]);
        }
    }
    views = g_new(KVMGmemView, slots->len);
    for (i = 0; i < slots->len; i++) {
        views[i] = kvm_gmem_slot_view(g_ptr_array_index(slots, i));
    }
    kvm_gmem_choose(views, slots->len);
    for (i = 0; i < slots->len; i++) {
        changes |= views[i].chosen !=
                   kvm_gmem_slot_bound(g_ptr_array_index(slots, i));
    }
    /* As long as there is an alias, each commit comes here. */
    if (!changes) {
        return;
    }

    /*
     * The binding of a slot cannot be changed: it is deleted and added again.
     * No vCPU may look at memory meanwhile, it would see a hole.
     */
    if (!inhibited) {
        accel_ioctl_inhibit_begin();
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        if (!views[i].chosen && kvm_gmem_slot_bound(slot)) {
            kvm_gmem_slot_rebind(kml, slot, false);
        }
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        if (views[i].chosen && !kvm_gmem_slot_bound(slot)) {
            kvm_gmem_slot_rebind(kml, slot, true);
        }
    }
    if (!inhibited) {
        accel_ioctl_inhibit_end();
    }
}

static GuestMemfdBinding kvm_gmem_slot_binding(const KVMSlot *slot)
{
    if (slot->guest_memfd_lost) {
        return GUEST_MEMFD_BINDING_LOST;
    }
    if (kvm_gmem_slot_bound(slot)) {
        return GUEST_MEMFD_BINDING_BOUND;
    }
    if (slot->flags & KVM_MEM_READONLY) {
        return GUEST_MEMFD_BINDING_READ_ONLY;
    }
    if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        return GUEST_MEMFD_BINDING_DIRTY_LOG;
    }
    if (slot->guest_memfd_refused) {
        return GUEST_MEMFD_BINDING_REFUSED;
    }
    return GUEST_MEMFD_BINDING_ALIAS;
}

GuestMemfdSlotList *kvm_gmem_query_slots(const RAMBlock *rb)
{
    KVMState *s = kvm_state;
    GuestMemfdSlotList *list = NULL, **tail = &list;
    int as, i;

    for (as = 0; as < s->nr_as; as++) {
        const KVMMemoryListener *kml = s->as[as].ml;

        for (i = 0; kml && i < kml->nr_slots_allocated; i++) {
            const KVMSlot *slot = &kml->slots[i];
            GuestMemfdSlot *info;

            if (!slot->over_guest_memfd || !slot->memory_size ||
                slot->guest_memfd != kvm_gmem_block_fd(rb)) {
                continue;
            }
            info = g_new0(GuestMemfdSlot, 1);
            info->address_space = kml->as_id;
            info->address = slot->start_addr;
            info->size = slot->memory_size;
            info->offset = slot->guest_memfd_offset;
            info->binding = kvm_gmem_slot_binding(slot);
            QAPI_LIST_APPEND(tail, info);
        }
    }
    return list;
}

/* Private memory */

/*
 * Counts the changes of what KVM knows of private memory: of attributes and of
 * slots.  With the BQL.
 */
static unsigned kvm_gmem_changes;

static int kvm_gmem_set_attribute(hwaddr start, uint64_t size, bool private)
{
    struct kvm_memory_attributes attributes = {
        .address = start,
        .size = size,
        .attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
    };
    int ret = kvm_vm_ioctl(kvm_state, KVM_SET_MEMORY_ATTRIBUTES, &attributes);

    kvm_gmem_changes++;
    trace_kvm_gmem_set_attribute(start, size, private, ret);
    return ret;
}

/*
 * Brings the attributes of a part of a slot, which lie there one and the same
 * for each run of the map, to @private.
 */
static int kvm_gmem_slot_set_runs(const KVMSlot *slot, uint64_t offset,
                                  uint64_t end, bool run, bool private)
{
    uint64_t size;

    for (; (size = guest_memfd_map_next_run(&slot->guest_memfd_block->map,
                                            &offset, end, run));
         offset += size) {
        int ret = kvm_gmem_set_attribute(slot->start_addr + offset -
                                         slot->guest_memfd_offset, size,
                                         private);

        if (ret) {
            return ret;
        }
    }
    return 0;
}

/*
 * Sets the attributes under a slot that is bound, and clears them otherwise.
 * If that fails, the slot has none of those that were to be set.
 */
static int kvm_gmem_slot_set_attributes(KVMSlot *slot)
{
    const uint64_t offset = slot->guest_memfd_offset;
    uint64_t old_size = slot->guest_memfd_attributes;
    uint64_t size = slot->guest_memfd_block && kvm_gmem_slot_bound(slot) ?
                    slot->memory_size : 0;
    uint64_t end = offset + MAX(size, old_size);
    int ret;

    kvm_gmem_changes++;
    if (!slot->memory_size) {
        kvm_gmem_slot_set_unlogged(slot, false);
    }
    if (size == old_size) {
        return 0;
    }
    guest_memfd_lock();
    ret = kvm_gmem_slot_set_runs(slot, offset, end, true, size);
    if (ret && size) {
        /* Up to the run that has failed: KVM sets all of a run or nothing. */
        kvm_gmem_slot_set_runs(slot, offset, end, true, false);
    }
    guest_memfd_unlock();
    if (!ret) {
        slot->guest_memfd_attributes = size;
    }
    return ret;
}

/* KVM does not allocate for this, so it does not fail. */
static void kvm_gmem_slot_clear_attributes(KVMSlot *slot)
{
    int ret = kvm_gmem_slot_set_attributes(slot);

    if (ret) {
        error_report("KVM does not clear the attributes of private memory at "
                     "0x%" HWADDR_PRIx ": %s", slot->start_addr,
                     strerror(-ret));
        exit(1);
    }
}

/* Slots that are lost */
static unsigned kvm_gmem_lost;

bool kvm_gmem_slots_lost(void)
{
    return qatomic_read(&kvm_gmem_lost);
}

static void kvm_gmem_slot_set_lost(KVMSlot *slot, bool lost)
{
    qatomic_set(&kvm_gmem_lost, kvm_gmem_lost + lost - slot->guest_memfd_lost);
    slot->guest_memfd_lost = lost;
}

static void kvm_gmem_slot_delete(const KVMSlot *slot)
{
    struct kvm_userspace_memory_region2 region = {
        .slot = slot->slot | slot->as_id << 16,
    };

    kvm_vm_ioctl(kvm_state, KVM_SET_USER_MEMORY_REGION2, &region);
}

void kvm_gmem_slot_changing(KVMSlot *slot)
{
    if (slot->guest_memfd_lost) {
        /* Perhaps it was its deletion that failed.  Else there is none. */
        kvm_gmem_slot_delete(slot);
        slot->old_flags = slot->flags;
    }
    if (!slot->memory_size) {
        kvm_gmem_slot_clear_attributes(slot);
    }
}

int kvm_gmem_slot_registered(KVMSlot *slot)
{
    int ret;

    kvm_gmem_slot_set_lost(slot, false);
    ret = kvm_gmem_slot_set_attributes(slot);
    if (ret) {
        /* Private memory must not be found as shared. */
        kvm_gmem_slot_delete(slot);
    }
    return ret;
}

/* Adds the slots that are lost. */
static void kvm_gmem_reset(void *opaque)
{
    int as, i;

    for (as = 0; as < kvm_state->nr_as; as++) {
        KVMMemoryListener *kml = kvm_state->as[as].ml;

        for (i = 0; kml && i < kml->nr_slots_allocated; i++) {
            KVMSlot *slot = &kml->slots[i];

            if (slot->guest_memfd_lost) {
                kvm_slots_lock();
                kvm_slot_update_flags(kml, slot,
                                      kvm_gmem_slot_wanted_flags(slot));
                kvm_slots_unlock();
            }
        }
    }
}

int kvm_gmem_slot_failed(KVMSlot *slot, int error)
{
    if (!slot->memory_size && slot->guest_memfd_lost && error == -EINVAL) {
        /* To be deleted, and not there any more */
        return kvm_gmem_slot_registered(slot);
    }
    if (!slot->memory_size || !slot->over_guest_memfd) {
        return error;
    }
    error_report("KVM does not take the guest's memory at 0x%" HWADDR_PRIx ", 0x%"
                 HWADDR_PRIx " bytes: %s%s", slot->start_addr,
                 slot->memory_size, strerror(-error),
                 phase_check(PHASE_MACHINE_READY) ? "; the VM stops, and "
                 "'system_reset' tries again" : "");
    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    kvm_gmem_slot_set_lost(slot, true);
    slot->old_flags = -1;       /* of what KVM has, which is unknown */
    slot->flags = kvm_gmem_slot_wanted_flags(slot);
    kvm_gmem_slot_set_unlogged(slot, slot->flags & KVM_MEM_LOG_DIRTY_PAGES);
    slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
    kvm_gmem_slot_clear_attributes(slot);
    /*
     * Until it stops, vCPUs find no memory there, and QEMU accesses it for them,
     * as it does for MMIO.
     */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
    return 0;
}

/* The part of a block's range that a slot has attributes for, if there is any */
static bool kvm_gmem_slot_part(const KVMSlot *slot,
                               const GuestMemfdBlock *block,
                               uint64_t *from, uint64_t *to)
{
    *from = MAX(*from, slot->guest_memfd_offset);
    *to = MIN(*to, slot->guest_memfd_offset + slot->guest_memfd_attributes);
    return slot->guest_memfd_block == block && *from < *to;
}

int kvm_gmem_set_private(const RAMBlock *rb, uint64_t offset, uint64_t size,
                         bool private)
{
    const KVMMemoryListener *kml = kvm_state->as[0].ml;
    const GuestMemfdBlock *block = guest_memfd_of(rb);
    int i, ret = 0;

    for (i = 0; i < kml->nr_slots_allocated && !ret; i++) {
        const KVMSlot *slot = &kml->slots[i];
        uint64_t from = offset, to = offset + size;

        if (kvm_gmem_slot_part(slot, block, &from, &to)) {
            ret = kvm_gmem_set_attribute(slot->start_addr + from -
                                         slot->guest_memfd_offset, to - from,
                                         private);
        }
    }
    /* Those before the one that failed: the map has the state before. */
    for (i -= 2; ret && i >= 0; i--) {
        const KVMSlot *slot = &kml->slots[i];
        uint64_t from = offset, to = offset + size;

        if (kvm_gmem_slot_part(slot, block, &from, &to) &&
            kvm_gmem_slot_set_runs(slot, from, to, !private, !private)) {
            return -ENOTRECOVERABLE;
        }
    }
    if (!private && !ret) {
        kvm_gmem_schedule_dirty_log();
    }
    return ret;
}

int kvm_gmem_check_bound(const RAMBlock *rb, hwaddr start, uint64_t size)
{
    const KVMMemoryListener *kml = kvm_state->as[0].ml;
    const hwaddr end = start + size;
    int i;

    for (i = 0; i < kml->nr_slots_allocated; i++) {
        const KVMSlot *slot = &kml->slots[i];
        hwaddr from = MAX(start, slot->start_addr);
        hwaddr to = MIN(end, slot->start_addr + slot->memory_size);

        if (from >= to || slot->guest_memfd_block != guest_memfd_of(rb)) {
            continue;
        }
        /* kvm_gmem_end_dirty_log() has a slot bound that is logged now. */
        if (kvm_gmem_slot_bound(slot) ||
            (slot->flags & KVM_GMEM_UNBINDABLE) == KVM_MEM_LOG_DIRTY_PAGES) {
            size -= to - from;
        }
    }
    return size ? -EINVAL : 0;
}

int64_t kvm_gmem_convert(hwaddr start, hwaddr size, bool to_private,
                         CPUState *cpu)
{
    trace_kvm_convert_memory(start, size, to_private ? "shared_to_private" :
                                                       "private_to_shared");
    return guest_memfd_convert(start, size, to_private, cpu);
}

int kvm_convert_memory(hwaddr start, hwaddr size, bool to_private)
{
    int64_t ret = kvm_gmem_convert(start, size, to_private, NULL);

    return MIN(ret, 0);
}

/*
 * In a software-protected VM each memory fault is stale: KVM has looked up if
 * the page is private, and found that changed when it was about to map it.  If
 * the access is repeated and nothing has changed since, it succeeds.  A vCPU
 * that has the same fault again without a change would have it for ever.
 */
static bool kvm_gmem_fault_is_stale(hwaddr start, uint64_t flags)
{
    static __thread struct {
        hwaddr start;
        uint64_t flags;
        unsigned changes;
        bool valid;
    } last;                     /* of this vCPU */
    bool same;
    BQL_LOCK_GUARD();

    same = last.valid && last.start == start && last.flags == flags &&
           last.changes == kvm_gmem_changes;
    last.start = start;
    last.flags = flags;
    last.changes = kvm_gmem_changes;
    last.valid = !same;
    return !same;
}

int kvm_gmem_memory_fault(hwaddr start, uint64_t size, uint64_t flags)
{
    bool to_private = flags & KVM_MEMORY_EXIT_FLAG_PRIVATE;
    int64_t ret;

    if (flags & ~KVM_MEMORY_EXIT_FLAG_PRIVATE) {
        error_report("KVM reports a memory fault at 0x%" HWADDR_PRIx " with "
                     "flags 0x%" PRIx64 ", which QEMU does not know", start,
                     flags);
        return -1;
    }
    if (!guest_memfd_initially_private() &&
        !kvm_gmem_fault_is_stale(start, flags)) {
        error_report("KVM does not let the guest access 0x%" HWADDR_PRIx
                     " as %s memory, however often it tries", start,
                     to_private ? "private" : "shared");
        return -1;
    }
    ret = guest_memfd_fault(start, size, to_private);
    if (ret < 0) {
        error_report("The guest has accessed 0x%" HWADDR_PRIx " as %s memory, "
                     "which it cannot be: %s", start,
                     to_private ? "private" : "shared", strerror(-ret));
        return -1;
    }
    return 0;
}
