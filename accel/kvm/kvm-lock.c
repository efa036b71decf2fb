/*
 * Locked guest memory
 *
 * KVM locks whole memory slots.  A slot *should* be locked if RAMBlock.lock is
 * set for the memory below it, the machine is complete, and nobody wants the
 * slot's dirty log.  KVMSlot.locked says that it is locked.
 *
 * KVM refuses any change of a locked slot.  So whatever changes a slot unlocks
 * it first (kvm_lock_slot_release()), and each place after which slots may have
 * to be locked calls kvm_lock_commit(): the end of a change of the memory map,
 * of a dirty log, and of a reset that has replaced poisoned pages.  vCPUs need
 * not stop for that: while a slot is not locked they fault, as with lock=off.
 *
 * When QEMU starts, the slots are locked once, after the last of many changes.
 * Until then a failure ends QEMU; later the guest goes on with memory that is
 * not locked, and the user is told.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/capability.h>
#include <sys/resource.h>
#include "qapi/error.h"
#include "qapi/qapi-events-memory-lock.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "hw/qdev-core.h"
#include "migration/client-options.h"
#include "system/kvm.h"
#include "system/kvm-lock.h"
#include "system/kvm_int.h"
#include "system/system.h"
#include "kvm-lock.h"
#include "kvm-lock-uapi.h"
#include "trace.h"

/* RAM blocks that are to be locked */
static unsigned kvm_lock_blocks;

/* The machine is complete: what should be locked is locked. */
static bool kvm_lock_ready;

/* Slots */

/* The memory below a slot, if it is to be locked; else NULL */
static const RAMBlock *kvm_lock_slot_block(const KVMSlot *slot)
{
    const RAMBlock *rb;
    ram_addr_t offset;

    if (!kvm_lock_blocks || !slot->memory_size) {
        return NULL;
    }
    rb = qemu_ram_block_from_host(slot->ram, false, &offset);
    return rb && rb->lock ? rb : NULL;
}

static int kvm_lock_slot_ioctl(const KVMSlot *slot, bool lock)
{
    /* What is read-only for the guest stays so. */
    const uint64_t access = KVM_ARM_LOCK_MEM_READ |
        (slot->flags & KVM_MEM_READONLY ? 0 : KVM_ARM_LOCK_MEM_WRITE);
    const uint32_t flags = lock ? KVM_ARM_LOCK_USER_MEMORY_REGION_FLAGS_LOCK
                                : KVM_ARM_LOCK_USER_MEMORY_REGION_FLAGS_UNLOCK;
    int ret;

    do {
        ret = kvm_vm_enable_cap(kvm_state, KVM_CAP_ARM_LOCK_USER_MEMORY_REGION,
                                flags, slot->slot | slot->as_id << 16,
                                lock ? access : 0);
    } while (ret == -EINTR);
    trace_kvm_lock_slot(slot->slot, slot->start_addr, slot->memory_size, lock,
                        ret);
    return ret;
}

void kvm_lock_slot_release(KVMSlot *slot)
{
    slot->lock_error = 0;
    if (slot->locked) {
        /* If this fails, then the change as well, and that is reported. */
        kvm_lock_slot_ioctl(slot, false);
        slot->locked = false;
    }
}

/* The ID of the memory backend that @rb belongs to */
static const char *kvm_lock_backend_id(const RAMBlock *rb)
{
    return object_get_canonical_path_component(memory_region_owner(rb->mr));
}

static bool kvm_lock_slot(KVMSlot *slot, const RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    int ret = kvm_lock_slot_ioctl(slot, true);

    slot->locked = !ret;
    slot->lock_error = -ret;
    if (!ret) {
        return true;
    }
    error_setg_errno(errp, -ret, "property 'lock' is on, but KVM does not lock "
                     "memory of '%s' at 0x%" HWADDR_PRIx ", 0x%" HWADDR_PRIx
                     " bytes", kvm_lock_backend_id(rb), slot->start_addr,
                     slot->memory_size);
    if (ret == -ENOMEM) {
        error_append_hint(errp, "Raise RLIMIT_MEMLOCK (ulimit -l), or free "
                          "memory of the host.\n");
    } else if (ret == -EFAULT) {
        error_append_hint(errp, "KVM cannot pin this kind of memory, such as a "
                          "file on a disk with share=on: use "
                          "memory-backend-ram or -memfd.\n");
    }
    return false;
}

static void kvm_lock_failed(const KVMSlot *slot, const RAMBlock *rb)
{
    qapi_event_send_memory_backend_lock_failed(kvm_lock_backend_id(rb),
                                               slot->start_addr,
                                               slot->memory_size,
                                               slot->lock_error,
                                               strerror(slot->lock_error));
}

/* Called with slots_lock held; @fatal: a failure ends QEMU */
static void kvm_lock_slots(KVMMemoryListener *kml, bool fatal)
{
    int i;

    for (i = 0; i < kml->nr_slots_allocated; i++) {
        KVMSlot *slot = &kml->slots[i];
        const RAMBlock *rb = kvm_lock_slot_block(slot);
        Error *err = NULL;

        if (!rb || slot->locked || slot->lock_error ||
            slot->guest_memfd_lost || slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
            continue;
        }
        if (!kvm_lock_slot(slot, rb, fatal ? &error_fatal : &err)) {
            warn_reportf_err(err, "the guest's memory is not locked: ");
            kvm_lock_failed(slot, rb);
        }
    }
}

void kvm_lock_commit(KVMMemoryListener *kml)
{
    if (kvm_lock_ready && kvm_lock_blocks) {
        kvm_lock_slots(kml, false);
    }
}

static void kvm_lock_all(bool fatal)
{
    int as;

    kvm_slots_lock();
    for (as = 0; as < kvm_state->nr_as; as++) {
        if (kvm_state->as[as].ml) {
            kvm_lock_slots(kvm_state->as[as].ml, fatal);
        }
    }
    kvm_slots_unlock();
}

void kvm_lock_commit_all(void)
{
    if (kvm_lock_ready && kvm_lock_blocks) {
        kvm_lock_all(false);
    }
}

void kvm_lock_release_page(ram_addr_t addr)
{
    int as, i;

    if (!kvm_lock_blocks) {
        return;
    }
    kvm_slots_lock();
    for (as = 0; as < kvm_state->nr_as; as++) {
        KVMMemoryListener *kml = kvm_state->as[as].ml;

        for (i = 0; kml && i < kml->nr_slots_allocated; i++) {
            KVMSlot *slot = &kml->slots[i];

            if (addr - slot->ram_start_offset < slot->memory_size) {
                kvm_lock_slot_release(slot);
            }
        }
    }
    kvm_slots_unlock();
}

/* Memory */

bool kvm_lock_used(void)
{
    return kvm_lock_blocks;
}

bool kvm_lock_check(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    const int both = KVM_ARM_LOCK_MEM_READ | KVM_ARM_LOCK_MEM_WRITE;
    const uint64_t host_size = qemu_get_host_physmem();
    int has;

    if (host_size && backend->size > host_size) {
        g_autofree char *want = size_to_str(backend->size);
        g_autofree char *have = size_to_str(host_size);

        error_setg(errp, "property 'lock' is on and 'size' is %s, but the "
                   "host has %s of memory", want, have);
        error_append_hint(errp, "Make 'size' smaller or set lock=off.\n");
        return false;
    }
    if (!kvm_enabled()) {
        error_setg(errp, "property 'lock' needs KVM");
        error_append_hint(errp, "Start QEMU with '-accel kvm', or set "
                          "lock=off.\n");
        return false;
    }
    has = kvm_vm_check_extension(kvm_state,
                                 KVM_CAP_ARM_LOCK_USER_MEMORY_REGION);
    if (has < 0 || (has & both) != both) {
        error_setg(errp, "property 'lock' is on, but this host's KVM cannot "
                   "lock guest memory, which takes an arm64 host with "
                   "FEAT_S2FWB and a kernel with qemu-gmem's patches");
        error_append_hint(errp, "'-overcommit mem-lock=on' keeps QEMU's memory "
                          "in the host's RAM on any host; the guest's accesses "
                          "can still fault.\n");
        return false;
    }
    /* When QEMU starts, capabilities come later, and are checked then. */
    if (phase_check(PHASE_LATE_BACKENDS_CREATED) &&
        migrate_background_snapshot()) {
        error_setg(errp, "property 'lock' is on, but the migration capability "
                   "'background-snapshot' is set, which does not see what a "
                   "guest writes to locked memory");
        return false;
    }
    /* By default -machine mem-merge is on; KSM skips pinned pages. */
    backend->merge = false;
    return true;
}

/* What there is of a RAM block's slots */
typedef struct KVMLockSlots {
    uint64_t plugged;           /* bytes */
    uint64_t locked;            /* bytes of these */
    int error;                  /* an errno that KVM failed with, or 0 */
    bool logged;                /* one has a dirty log */
} KVMLockSlots;

static KVMLockSlots kvm_lock_block_slots(const RAMBlock *rb)
{
    KVMLockSlots all = { 0 };
    int as, i;

    for (as = 0; as < kvm_state->nr_as; as++) {
        const KVMMemoryListener *kml = kvm_state->as[as].ml;

        for (i = 0; kml && i < kml->nr_slots_allocated; i++) {
            const KVMSlot *slot = &kml->slots[i];

            if (kvm_lock_slot_block(slot) == rb) {
                all.plugged += slot->memory_size;
                all.locked += slot->locked ? slot->memory_size : 0;
                all.error = slot->lock_error ?: all.error;
                all.logged |= slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
            }
        }
    }
    return all;
}

/* The field @name of /proc/self/status, or 0 */
static uint64_t kvm_lock_proc_status(const char *status, const char *name,
                                     int base)
{
    const char *line = strstr(status, name);
    uint64_t value = 0;

    if (line) {
        qemu_strtou64(line + strlen(name), &line, base, &value);
    }
    return value;
}

/*
 * KVM checks that as well, but only when the machine is complete, after much
 * work.  It does not count memory of a guest_memfd, which nobody can swap out.
 */
static bool kvm_lock_check_limit(const RAMBlock *new_rb, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *status = NULL;
    const RAMBlock *rb;
    struct rlimit limit;
    uint64_t need;

    if (new_rb->flags & RAM_GUEST_MEMFD_MMAP ||
        getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY ||
        !g_file_get_contents("/proc/self/status", &status, NULL, NULL) ||
        kvm_lock_proc_status(status, "\nCapEff:", 16) &
        BIT_ULL(CAP_IPC_LOCK)) {
        return true;
    }

    need = kvm_lock_proc_status(status, "\nVmLck:", 10) * KiB +
           new_rb->used_length;
    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (rb->lock && !(rb->flags & RAM_GUEST_MEMFD_MMAP)) {
                need += rb->used_length - kvm_lock_block_slots(rb).locked;
            }
        }
    }
    if (need <= limit.rlim_cur) {
        return true;
    }
    error_setg(errp, "property 'lock' is on, and QEMU would lock %" PRIu64
               " bytes of memory in all, but RLIMIT_MEMLOCK is %" PRIu64
               " bytes", need, (uint64_t)limit.rlim_cur);
    error_append_hint(errp, "Raise it (ulimit -l; LimitMEMLOCK= of systemd), "
                      "or give QEMU CAP_IPC_LOCK.\n");
    return false;
}

static void kvm_lock_machine_done(Notifier *notifier, void *data)
{
    kvm_lock_ready = true;
    kvm_lock_all(true);
}

bool kvm_lock_add(RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    static Notifier machine_done = { .notify = kvm_lock_machine_done };
    static bool has_notifier;

    if (!kvm_lock_check_limit(rb, errp)) {
        return false;
    }
    if (ram_block_discard_disable(true)) {
        error_setg(errp, "property 'lock' is on, but a device of this VM "
                   "discards memory, such as virtio-mem");
        error_append_hint(errp, "Leave that device out, or set lock=off.\n");
        return false;
    }
    rb->lock = true;
    kvm_lock_blocks++;
    if (!has_notifier) {
        has_notifier = true;
        qemu_add_machine_init_done_notifier(&machine_done);
    }
    return true;
}

void kvm_lock_remove(RAMBlock *rb)
{
    rb->lock = false;
    kvm_lock_blocks--;
    ram_block_discard_disable(false);
}

MemdevLock *kvm_lock_query(const RAMBlock *rb)
{
    KVMLockSlots slots;
    MemdevLock *info;

    if (!rb || !rb->lock) {
        return NULL;
    }
    slots = kvm_lock_block_slots(rb);
    info = g_new0(MemdevLock, 1);
    info->size = slots.locked;
    if (slots.error) {
        info->state = MEMDEV_LOCK_STATE_FAILED;
        info->error = g_strdup(strerror(slots.error));
    } else if (slots.logged) {
        info->state = MEMDEV_LOCK_STATE_DIRTY_LOG;
    } else if (slots.plugged && slots.locked == slots.plugged) {
        info->state = MEMDEV_LOCK_STATE_LOCKED;
    } else {
        info->state = MEMDEV_LOCK_STATE_UNPLUGGED;
    }
    return info;
}
