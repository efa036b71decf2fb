/*
 * KVM_HC_MAP_GPA_RANGE: a guest asks for memory to be private or shared
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_I386_KVM_MAP_GPA_RANGE_H
#define TARGET_I386_KVM_MAP_GPA_RANGE_H

struct kvm_run;

/**
 * kvm_map_gpa_range_status: what to tell KVM of a request
 * @ret: what the conversion has returned: not negative, or a negative errno
 * @by_kvm: KVM itself tells the guest, in the form that SEV-SNP or TDX has for
 *     it; if not, the guest gets the value as it is
 *
 * KVM takes just three values for SEV-SNP's Page State Change and TDX's MapGPA:
 * 0, EINVAL and EAGAIN, not negative; with any other KVM_RUN fails with EINVAL
 * (kvm_is_valid_map_gpa_range_ret() in Linux 7.3's arch/x86/kvm/x86.h).  EAGAIN
 * makes a TDX guest try again.
 *
 * Returns: the value for kvm_run's hypercall.ret
 */
static inline uint64_t kvm_map_gpa_range_status(int64_t ret, bool by_kvm)
{
    const bool again = ret == -EAGAIN || ret == -EBUSY || ret == -EINTR ||
                       ret == -ENOMEM;

    if (ret >= 0) {
        return 0;
    }
    if (!by_kvm) {
        return ret;
    }
    return again ? EAGAIN : EINVAL;
}

/**
 * kvm_handle_map_gpa_range: handle the hypercall
 * @cpu: the vCPU that has made it
 * @run: its exit; gets the guest's answer
 *
 * Called without the BQL.
 *
 * Returns: 0, or a negative value if the VM has to be stopped
 */
int kvm_handle_map_gpa_range(X86CPU *cpu, struct kvm_run *run);

/**
 * kvm_map_gpa_range_post_run: make the guest repeat an interrupted hypercall
 * @cpu: the vCPU, which has left KVM_RUN
 *
 * kvm_handle_map_gpa_range() asks for it when something else wants the vCPU in
 * the middle of a long request.  KVM has completed the hypercall by now.
 */
void kvm_map_gpa_range_post_run(X86CPU *cpu);

#endif
