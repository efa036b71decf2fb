/*
 * KVM guest_memfd: creating the file, binding memslots to it
 *
 * KVM lets a range of a guest_memfd be bound by one memslot only, and neither
 * by a read-only nor by a dirty-logged one, while a VM has several views of
 * its RAM: SMM's address space, PC's shadow RAM, migration.  Pages of the files
 * handled here are shared ones, so that QEMU's mapping is as good as the file:
 * a slot that cannot be bound is registered by address over the mapping and
 * bound later, when the reason is gone.
 *
 * Which slots get bound follows from the slots alone (no history): of all that
 * KVM would accept in address space 0, those that kvm-gmem-bind.c chooses.
 * Only address space 0 is considered: it is the one vCPUs run in, and so SMM's
 * copy can never take a range from it.  A slot that KVM refuses to bind in
 * spite of all that stays by address until its flags change.
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
#include "system/accel-blocker.h"
#include "system/kvm.h"
#include "system/kvm_gmem.h"
#include "system/kvm_int.h"
#include "kvm-gmem-bind.h"
#include "trace.h"

/* What a slot cannot have and be bound: kvm_set_memory_region() in Linux */
#define KVM_GMEM_UNBINDABLE (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)

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

static bool kvm_gmem_slot_bound(const KVMSlot *slot)
{
    return slot->guest_memfd_mmap && slot->memory_size &&
           slot->flags & KVM_MEM_GUEST_MEMFD;
}

static bool kvm_gmem_slot_bindable(const KVMMemoryListener *kml,
                                   const KVMSlot *slot)
{
    return slot->guest_memfd_mmap && slot->memory_size && kml->as_id == 0 &&
           !slot->guest_memfd_refused && !(slot->flags & KVM_GMEM_UNBINDABLE);
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

void kvm_gmem_slot_set_flags(KVMMemoryListener *kml, KVMSlot *slot)
{
    KVMGmemView view = kvm_gmem_slot_view(slot);
    int i;

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

bool kvm_gmem_slot_refused(KVMSlot *slot, int error)
{
    if (!kvm_gmem_slot_bound(slot)) {
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

void kvm_gmem_slot_init(KVMMemoryListener *kml, KVMSlot *slot,
                        const RAMBlock *rb)
{
    slot->guest_memfd_mmap = rb->flags & RAM_GUEST_MEMFD_MMAP;
    slot->guest_memfd_refused = false;
    if (!slot->guest_memfd_mmap) {
        return;
    }
    slot->guest_memfd = rb->fd;
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
    if (kvm_set_user_memory_region(kml, slot, false) < 0) {
        /* The slot is gone: the guest cannot go on without its memory. */
        abort();
    }
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

            if (!slot->guest_memfd_mmap || !slot->memory_size ||
                slot->guest_memfd != rb->fd) {
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
