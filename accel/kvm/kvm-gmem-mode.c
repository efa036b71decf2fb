/*
 * KVM guest_memfd: how a VM converts private memory
 *
 * KVM offers one of two ways, which its administrator chooses for all VMs:
 * attributes of guest addresses, with private memory beside shared memory
 * (*split*), or attributes of the pages of a guest_memfd (*in place*).  So the
 * user's 'convert-in-place' is not a choice: it says what the user relies on.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "system/confidential-guest-support.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "kvm-gmem-uapi.h"
#include "trace.h"

static bool mode_offers_split(void)
{
    return kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD) > 0 &&
           kvm_vm_check_extension(kvm_state, KVM_CAP_MEMORY_ATTRIBUTES) &
           KVM_MEMORY_ATTRIBUTE_PRIVATE;
}

static bool mode_offers_in_place(void)
{
    const int flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    int attributes = kvm_vm_check_extension(
                         kvm_state, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES);
    int has = kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD_FLAGS);

    return attributes > 0 && attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE &&
           has > 0 && (has & flags) == flags;
}

static bool mode_check(const ConfidentialGuestSupport *cgs, bool split,
                       bool in_place, Error **errp)
{
    ERRP_GUARD();
    const char *type = object_get_typename(OBJECT(cgs));

    if (cgs->convert_in_place == ON_OFF_AUTO_ON && !in_place) {
        error_setg(errp, "property 'convert-in-place' is on, but this host's "
                   "KVM cannot convert memory in place");
        error_append_hint(errp, "It lacks "
                          "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES: load kvm with "
                          "gmem_in_place_conversion=1, on Linux 7.4 or newer, "
                          "or leave convert-in-place out.\n");
        return false;
    }
    if (cgs->convert_in_place == ON_OFF_AUTO_OFF && in_place) {
        error_setg(errp, "property 'convert-in-place' is off, but this host's "
                   "KVM only converts in place");
        error_append_hint(errp, "Load kvm with gmem_in_place_conversion=0, or "
                          "leave convert-in-place out.\n");
        return false;
    }
    if (!in_place && !split) {
        error_setg(errp, "%s needs private memory, which this host's KVM does "
                   "not offer for it", type);
        error_append_hint(errp, "Its kernel must have "
                          "CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES.\n");
        return false;
    }
    return true;
}

bool kvm_gmem_choose_mode(ConfidentialGuestSupport *cgs, Error **errp)
{
    ERRP_GUARD();
    bool in_place;

    if (!cgs) {
        return true;
    }
    if (!cgs->ram_has_private && !cgs->require_guest_memfd) {
        if (cgs->convert_in_place == ON_OFF_AUTO_AUTO) {
            return true;
        }
        error_setg(errp, "property 'convert-in-place' has no meaning for %s, "
                   "which has no private memory of this kind",
                   object_get_typename(OBJECT(cgs)));
        error_append_hint(errp, "Leave it out, or use sev-snp-guest.\n");
        return false;
    }
    in_place = mode_offers_in_place();
    if (!mode_check(cgs, mode_offers_split(), in_place, errp)) {
        return false;
    }
    cgs->in_place = in_place;
    trace_kvm_gmem_mode(in_place);
    return true;
}
