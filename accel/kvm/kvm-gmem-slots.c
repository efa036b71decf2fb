/*
 * KVM guest_memfd: memory slots, bound or by address
 *
 * KVM lets a range of a guest_memfd be bound by one memory slot only, and
 * neither by a read-only nor by a dirty-logged one, while a VM has several
 * views of its RAM: SMM's address space, PC's shadow RAM, migration.  For
 * shared pages QEMU's mapping (of the file, or of the shared half beside it) is
 * as good as the file: a slot that cannot be bound is registered by address
 * over the mapping, and bound later, when the reason is gone.
 *
 * Which slots are bound follows from the slots alone, not from their history:
 * kvm-gmem-bind.c chooses among all that KVM would accept in address space 0.
 * The others do not count: vCPUs run in address space 0, and so SMM's copy can
 * never take a range from it.  A slot that KVM refuses to bind in spite of all
 * that stays by address until its flags change.
 *
 * A slot that has private memory stays bound, so KVM cannot log it, even if the
 * memory core wants that (to measure the dirty rate, or for a dirty limit).
 * kvm_gmem_slot_set_flags() alone decides, from what is wanted and what is
 * private.  It runs again when either changes: at once when memory becomes
 * private or a migration wants to begin, and within a second after the last
 * private page has gone.  A migration begins only when nothing is private, and
 * nothing becomes private while it runs: so it never misses a slot.
 *
 * A slot whose binding changes is deleted and added again.  If KVM fails to
 * take it back, for whatever reason, the slot is *lost*: its memory still
 * exists, but not for vCPUs.  The VM stops, and does not run until a reset has
 * added all slots.
 *
 * Each slot over a block that can have private memory has a GuestMemfdView in
 * that block, so that a conversion looks at the slots of its block only.
 *
 * All of this happens with the BQL held.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "qemu/range.h"
#include "qemu/timer.h"
#include "hw/qdev-core.h"
#include "system/accel-blocker.h"
#include "system/guest-memfd-block.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "system/kvm_int.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "kvm-gmem-attributes.h"
#include "kvm-gmem-bind.h"
#include "kvm-gmem-slots.h"
#include "kvm-lock.h"
#include "trace.h"

/*
 * Flags that KVM refuses together with KVM_MEM_GUEST_MEMFD: see
 * kvm_set_memory_region() in Linux.  Until KVM logs bound slots or has
 * read-only ones.
 */
#define KVM_GMEM_UNBINDABLE (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)

/*
 * How often to look whether a slot that should be logged has no private memory
 * any more, in ms: a guest that converts a page back and forth has its slot
 * deleted and added no more often than that.  It is as long as a measurement of
 * the dirty rate takes at least.  Can be changed at any time.
 */
#define KVM_GMEM_LOG_PERIOD 1000

static bool kvm_gmem_slot_has_file(const KVMSlot *slot)
{
    return slot->memory_size && slot->guest_memfd >= 0;
}

static bool kvm_gmem_slot_is_bound(const KVMSlot *slot)
{
    return kvm_gmem_slot_has_file(slot) && !slot->guest_memfd_lost &&
           slot->flags & KVM_MEM_GUEST_MEMFD;
}

static bool kvm_gmem_slot_is_bindable(const KVMMemoryListener *kml,
                                      const KVMSlot *slot)
{
    return kvm_gmem_slot_has_file(slot) && kml->as_id == 0 &&
           !slot->guest_memfd_refused && !slot->guest_memfd_lost &&
           !(slot->flags & KVM_GMEM_UNBINDABLE);
}

/* Has the slot private memory, or can an undo bring it back? */
static bool kvm_gmem_slot_has_private(const KVMSlot *slot)
{
    GuestMemfdBlock *block = slot->guest_memfd_block;

    return block &&
           (guest_memfd_map_has_private(&block->map, slot->guest_memfd_offset,
                                        slot->memory_size) ||
            guest_memfd_can_undo(block, slot->guest_memfd_offset,
                                 slot->memory_size));
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

static GuestMemfdBinding kvm_gmem_slot_binding(const KVMSlot *slot)
{
    if (slot->guest_memfd_lost) {
        return GUEST_MEMFD_BINDING_LOST;
    }
    if (kvm_gmem_slot_is_bound(slot)) {
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

/* Flags of a slot */

/* Slots that the memory core wants logged, but that have private memory */
static unsigned kvm_gmem_unlogged;
static QEMUTimer *kvm_gmem_log_timer;

static void kvm_gmem_rearm_log_timer(void)
{
    if (kvm_gmem_unlogged && !timer_pending(kvm_gmem_log_timer)) {
        timer_mod(kvm_gmem_log_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + KVM_GMEM_LOG_PERIOD);
    }
}

static void kvm_gmem_log_timer_cb(void *opaque)
{
    kvm_gmem_begin_dirty_log();
    kvm_gmem_rearm_log_timer();
}

static void kvm_gmem_slot_set_unlogged(KVMSlot *slot, bool unlogged)
{
    kvm_gmem_unlogged += unlogged - slot->guest_memfd_unlogged;
    slot->guest_memfd_unlogged = unlogged;
    if (unlogged) {
        if (!kvm_gmem_log_timer) {
            kvm_gmem_log_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                              kvm_gmem_log_timer_cb, NULL);
        }
        kvm_gmem_rearm_log_timer();
    }
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
    if (!kvm_gmem_slot_is_bindable(kml, slot)) {
        return;
    }
    for (i = 0; i < kml->nr_slots_allocated; i++) {
        const KVMSlot *other = &kml->slots[i];

        if (other != slot && kvm_gmem_slot_is_bound(other)) {
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

/* The flags that the memory core wants, even if the slot cannot have them */
static int kvm_gmem_slot_wanted_flags(const KVMSlot *slot)
{
    return (slot->flags & ~KVM_MEM_GUEST_MEMFD) |
           (slot->guest_memfd_unlogged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

/* Logging */

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
            /* Changes nothing if the slot still has private memory. */
            kvm_slot_update_flags(kml, slot, kvm_gmem_slot_wanted_flags(slot));
        }
    }
    kvm_slots_unlock();
}

int kvm_gmem_end_dirty_log(const GuestMemfdBlock *block, uint64_t offset,
                           uint64_t size)
{
    KVMMemoryListener *kml = kvm_state->as[0].ml;
    g_autoptr(GPtrArray) slots = NULL;
    int ret = 0;
    guint i;

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
    /* The slots are deleted and added again, and no vCPU may see a hole. */
    if (slots->len) {
        accel_ioctl_inhibit_begin();
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        kvm_gmem_slot_choose_flags(kml, slot, false);
        kvm_set_user_memory_region(kml, slot, false);
    }
    if (slots->len) {
        /* An alias may be bound instead of one of them: choose anew. */
        kvm_gmem_commit(kml, true);
        accel_ioctl_inhibit_end();
        kvm_lock_commit(kml);
    }
    for (i = 0; i < slots->len; i++) {
        if (!kvm_gmem_slot_is_bound(g_ptr_array_index(slots, i))) {
            ret = -EINVAL;
        }
    }
    kvm_slots_unlock();
    return ret;
}

/* Binding */

bool kvm_gmem_commit_pending(const KVMMemoryListener *kml)
{
    int i;

    for (i = 0; i < kml->nr_slots_allocated; i++) {
        const KVMSlot *slot = &kml->slots[i];

        if (kvm_gmem_slot_is_bindable(kml, slot) &&
            !kvm_gmem_slot_is_bound(slot)) {
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
        if (kvm_gmem_slot_is_bindable(kml, &kml->slots[i])) {
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
                   kvm_gmem_slot_is_bound(g_ptr_array_index(slots, i));
    }
    /* An alias is always "pending", so most commits end here. */
    if (!changes) {
        return;
    }

    /*
     * KVM cannot change the binding of a slot: it is deleted and added again.
     * No vCPU may look at memory meanwhile, because it would see a hole.
     */
    if (!inhibited) {
        accel_ioctl_inhibit_begin();
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        if (!views[i].chosen && kvm_gmem_slot_is_bound(slot)) {
            kvm_gmem_slot_rebind(kml, slot, false);
        }
    }
    for (i = 0; i < slots->len; i++) {
        KVMSlot *slot = g_ptr_array_index(slots, i);

        if (views[i].chosen && !kvm_gmem_slot_is_bound(slot)) {
            kvm_gmem_slot_rebind(kml, slot, true);
        }
    }
    if (!inhibited) {
        accel_ioctl_inhibit_end();
    }
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

            if (!kvm_gmem_slot_has_file(slot) ||
                slot->guest_memfd != guest_memfd_fd(rb)) {
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

/* What KVM answers */

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

/* Keep the list sorted: kvm_gmem_set_private() relies on that. */
static void kvm_gmem_slot_add_view(KVMSlot *slot)
{
    GuestMemfdBlock *block = slot->guest_memfd_block;
    GuestMemfdView *view = g_new0(GuestMemfdView, 1), *other;

    view->address = slot->start_addr;
    view->offset = slot->guest_memfd_offset;
    view->size = slot->memory_size;
    view->binding = GUEST_MEMFD_BINDING_ALIAS;
    slot->guest_memfd_view = view;
    QTAILQ_FOREACH(other, &block->views, next) {
        if (other->offset > view->offset) {
            QTAILQ_INSERT_BEFORE(other, view, next);
            return;
        }
    }
    QTAILQ_INSERT_TAIL(&block->views, view, next);
}

static void kvm_gmem_slot_remove_view(KVMSlot *slot)
{
    if (slot->guest_memfd_view) {
        QTAILQ_REMOVE(&slot->guest_memfd_block->views, slot->guest_memfd_view,
                      next);
        g_clear_pointer(&slot->guest_memfd_view, g_free);
    }
}

/* KVM need not allocate to clear attributes, so this does not fail. */
static void kvm_gmem_slot_clear_attributes(KVMSlot *slot,
                                           GuestMemfdBinding binding)
{
    int ret;

    if (!slot->guest_memfd_view) {
        return;
    }
    ret = kvm_gmem_view_set_binding(slot->guest_memfd_block,
                                    slot->guest_memfd_view, binding);
    if (ret) {
        error_report("KVM does not clear the attributes of private memory at "
                     "0x%" HWADDR_PRIx ": %s", slot->start_addr,
                     strerror(-ret));
        exit(1);
    }
}

static void kvm_gmem_slot_delete(const KVMSlot *slot)
{
    struct kvm_userspace_memory_region2 region = {
        .slot = slot->slot | slot->as_id << 16,
    };

    kvm_vm_ioctl(kvm_state, KVM_SET_USER_MEMORY_REGION2, &region);
}

void kvm_gmem_slot_prepare(KVMSlot *slot)
{
    if (slot->guest_memfd_lost) {
        /* KVM may still have it, if it was the deletion that failed. */
        kvm_gmem_slot_delete(slot);
        slot->old_flags = slot->flags;
    }
    if (!slot->memory_size) {
        kvm_gmem_slot_clear_attributes(slot, GUEST_MEMFD_BINDING_ALIAS);
    }
}

bool kvm_gmem_slot_fall_back(KVMSlot *slot, int error)
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

int kvm_gmem_slot_complete(KVMSlot *slot)
{
    int ret;

    kvm_gmem_slot_set_lost(slot, false);
    kvm_gmem_attributes_changed();
    if (!slot->memory_size) {
        kvm_gmem_slot_set_unlogged(slot, false);
        kvm_gmem_slot_remove_view(slot);
        return 0;
    }
    if (!slot->guest_memfd_block) {
        return 0;
    }
    if (!slot->guest_memfd_view) {
        kvm_gmem_slot_add_view(slot);
    }
    ret = kvm_gmem_view_set_binding(slot->guest_memfd_block,
                                    slot->guest_memfd_view,
                                    kvm_gmem_slot_binding(slot));
    if (ret) {
        /* vCPUs must not find private memory as shared. */
        kvm_gmem_slot_delete(slot);
    }
    return ret;
}

int kvm_gmem_slot_lose(KVMSlot *slot, int error)
{
    if (!slot->memory_size && slot->guest_memfd_lost && error == -EINVAL) {
        /* It was to be deleted, and KVM has not had it any more. */
        return kvm_gmem_slot_complete(slot);
    }
    if (!kvm_gmem_slot_has_file(slot)) {
        return error;
    }
    error_report("KVM does not take the guest's memory at 0x%" HWADDR_PRIx
                 ", 0x%" HWADDR_PRIx " bytes: %s%s", slot->start_addr,
                 slot->memory_size, strerror(-error),
                 phase_check(PHASE_MACHINE_READY) ? "; the VM stops, and "
                 "'system_reset' tries again" : "");
    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    kvm_gmem_slot_set_lost(slot, true);
    slot->old_flags = -1;       /* KVM's are unknown */
    slot->flags = kvm_gmem_slot_wanted_flags(slot);
    kvm_gmem_slot_set_unlogged(slot, slot->flags & KVM_MEM_LOG_DIRTY_PAGES);
    slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
    kvm_gmem_slot_clear_attributes(slot, GUEST_MEMFD_BINDING_LOST);
    /*
     * Until the VM stops, vCPUs find no memory there, and QEMU accesses it for
     * them, as it does for MMIO.
     */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
    return 0;
}

/* Add the slots that are lost. */
static void kvm_gmem_slots_reset(void *opaque)
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
                kvm_lock_commit(kml);
                kvm_slots_unlock();
            }
        }
    }
}

void kvm_gmem_slot_init(KVMMemoryListener *kml, KVMSlot *slot,
                        const RAMBlock *rb)
{
    static bool has_reset;

    slot->guest_memfd = guest_memfd_fd(rb);
    slot->guest_memfd_block = kml->as_id == 0 ? guest_memfd_of(rb) : NULL;
    slot->guest_memfd_refused = false;
    kvm_gmem_slot_set_unlogged(slot, false);
    if (!kvm_gmem_slot_has_file(slot)) {
        slot->guest_memfd_offset = 0;
        return;
    }
    if (!has_reset) {
        has_reset = true;
        qemu_register_reset(kvm_gmem_slots_reset, NULL);
    }
    slot->guest_memfd_offset = (uint8_t *)slot->ram - rb->host;
    kvm_gmem_slot_set_flags(kml, slot);
}
