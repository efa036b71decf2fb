/*
 * sw-protected-guest: a VM with private memory that needs no special hardware
 *
 * KVM's software-protected VM (KVM_X86_SW_PROTECTED_VM): its guest makes memory
 * private and shared by the hypercall KVM_HC_MAP_GPA_RANGE.  All memory is
 * shared at first, as the guest's firmware and kernel know nothing of it.  It
 * protects from nobody yet; it is to develop and test with.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qom/object_interfaces.h"
#include "hw/i386/x86.h"
#include "hw/resettable.h"
#include "system/guest-memfd.h"
#include "system/kvm.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "kvm_i386.h"
#include "confidential-guest.h"
#include "cpu.h"
#include <linux/kvm_para.h>

#define TYPE_SW_PROTECTED_GUEST "sw-protected-guest"

OBJECT_DECLARE_SIMPLE_TYPE(SwProtectedGuest, SW_PROTECTED_GUEST)

struct SwProtectedGuest {
    X86ConfidentialGuest parent_obj;

    ResettableState reset_state;
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(SwProtectedGuest, sw_protected_guest,
                                          SW_PROTECTED_GUEST,
                                          X86_CONFIDENTIAL_GUEST,
                                          { TYPE_USER_CREATABLE },
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static ResettableState *sw_protected_reset_state(Object *obj)
{
    return &SW_PROTECTED_GUEST(obj)->reset_state;
}

/*
 * Make all memory shared again.
 *
 * RESET_TYPE_COLD: firmware starts anew and knows nothing of private memory.
 * RESET_TYPE_SNAPSHOT_LOAD: a snapshot has no private memory, and what is
 *     loaded goes to shared memory.
 * RESET_TYPE_WAKEUP: RAM keeps its contents while the guest is suspended.
 *
 * The object is registered when the accelerator is made, before any device or
 * ROM.  So its hold phase is the first one, and finds memory as the guest has
 * left it; ROMs, whose reset writes to guest addresses, find it shared.
 */
static void sw_protected_reset_hold(Object *obj, ResetType type)
{
    if (type == RESET_TYPE_WAKEUP) {
        return;
    }
    if (guest_memfd_reset() && runstate_is_running()) {
        /*
         * No vCPU may run with memory in the wrong state.  When the VM is not
         * running, guest_memfd_reset_failed() keeps it from being started.
         */
        vm_stop(RUN_STATE_INTERNAL_ERROR);
    }
}

static bool sw_protected_can_be_deleted(UserCreatable *uc)
{
    return OBJECT(MACHINE(qdev_get_machine())->cgs) != OBJECT(uc);
}

static int sw_protected_kvm_init(ConfidentialGuestSupport *cgs, Error **errp)
{
    ERRP_GUARD();
    Object *machine = qdev_get_machine();
    X86MachineState *x86ms;

    if (!object_dynamic_cast(machine, TYPE_X86_MACHINE)) {
        error_setg(errp, "'-machine %s' does not work with "
                   TYPE_SW_PROTECTED_GUEST, MACHINE_GET_CLASS(machine)->name);
        error_append_hint(errp,
                          "Use one of the pc, q35 or microvm machines.\n");
        return -EINVAL;
    }
    x86ms = X86_MACHINE(machine);

    /* KVM has only one address space for VMs with private memory. */
    if (x86ms->smm == ON_OFF_AUTO_ON) {
        error_setg(errp, "'-machine smm=on' does not work with "
                   TYPE_SW_PROTECTED_GUEST);
        error_append_hint(errp, "Leave it out or set smm=off.\n");
        return -EINVAL;
    }
    x86ms->smm = ON_OFF_AUTO_OFF;

    if (!kvm_enable_hypercall(BIT_ULL(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, TYPE_SW_PROTECTED_GUEST " needs KVM to hand over the "
                   "hypercall KVM_HC_MAP_GPA_RANGE, which this host's does "
                   "not");
        error_append_hint(errp, "It takes Linux 5.14 or newer.\n");
        return -EOPNOTSUPP;
    }

    qemu_register_resettable(OBJECT(cgs));
    cgs->ready = true;
    return 0;
}

static int sw_protected_kvm_type(X86ConfidentialGuest *cg)
{
    if (!kvm_is_vm_type_supported(KVM_X86_SW_PROTECTED_VM)) {
        error_report(TYPE_SW_PROTECTED_GUEST " needs software-protected VMs, "
                     "which this host's KVM does not offer");
        error_printf("It takes Linux 6.8 or newer with "
                     "CONFIG_KVM_SW_PROTECTED_VM=y, and two-dimensional paging "
                     "(kvm_amd.npt=1 or kvm_intel.ept=1).\n");
        exit(1);
    }
    return KVM_X86_SW_PROTECTED_VM;
}

static uint32_t sw_protected_adjust_cpuid(X86ConfidentialGuest *cg,
                                          uint32_t function, uint32_t index,
                                          int reg, uint32_t value)
{
    if (function == KVM_CPUID_FEATURES && reg == R_EAX) {
        value |= 1u << KVM_FEATURE_HC_MAP_GPA_RANGE;
    }
    return value;
}

static void sw_protected_cpu_instance_init(X86ConfidentialGuest *cg,
                                           CPUState *cpu)
{
    X86_CPU(cpu)->env.features[FEAT_KVM] |=
        1u << KVM_FEATURE_HC_MAP_GPA_RANGE;
}

static bool sw_protected_get_convert_on_access(Object *obj, Error **errp)
{
    return CONFIDENTIAL_GUEST_SUPPORT(obj)->access_is_request;
}

/* KVM reports such accesses only in tests, see SwProtectedGuestProperties. */
static void sw_protected_set_convert_on_access(Object *obj, bool value,
                                               Error **errp)
{
    CONFIDENTIAL_GUEST_SUPPORT(obj)->access_is_request = value;
}

static void sw_protected_guest_class_init(ObjectClass *oc, const void *data)
{
    CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc)->kvm_init = sw_protected_kvm_init;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->kvm_type = sw_protected_kvm_type;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->adjust_cpuid_features =
        sw_protected_adjust_cpuid;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->cpu_instance_init =
        sw_protected_cpu_instance_init;
    USER_CREATABLE_CLASS(oc)->can_be_deleted = sw_protected_can_be_deleted;
    RESETTABLE_CLASS(oc)->get_state = sw_protected_reset_state;
    RESETTABLE_CLASS(oc)->phases.hold = sw_protected_reset_hold;

    object_class_property_add_bool(oc, "x-convert-on-access",
                                   sw_protected_get_convert_on_access,
                                   sw_protected_set_convert_on_access);
    object_class_property_set_description(oc, "x-convert-on-access",
        "Whether the guest's access converts a page of the other kind");
}

static void sw_protected_guest_init(Object *obj)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    cgs->ram_has_private = true;
    cgs->initially_shared = true;
    cgs->access_is_request = false;
    cgs->guest_accepts_pages = false;
    cgs->loaded_through_shared_half = false;
    cgs->kernel_is_measured = false;
    cgs->kvm_answers_guest = false;
}

static void sw_protected_guest_finalize(Object *obj)
{
}
