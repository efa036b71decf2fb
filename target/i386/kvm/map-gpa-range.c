/*
 * KVM_HC_MAP_GPA_RANGE: a guest asks for memory to be private or shared
 *
 * A software-protected guest makes this hypercall itself; for SEV-SNP and TDX
 * KVM makes it of the guest's Page State Change or MapGPA request, and gives
 * the guest its answer.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd.h"
#include "system/hw_accel.h"
#include "system/kvm.h"
#include "cpu.h"
#include "map-gpa-range.h"
#include "trace.h"
#include <linux/kvm.h>
#include <linux/kvm_para.h>

/* The length of vmcall and vmmcall, in bytes */
#define HYPERCALL_LEN 3

/*
 * The largest request whose memory is faulted in at once, in bytes: what a TDX
 * guest asks for at a time, and is about to use.  Who asks for more may never
 * touch most of it.
 */
#define MAP_GPA_RANGE_PREFAULT (2 * MiB)

/*
 * Opportunistically pre-fault memory in.  Failures are ignored: KVM's page
 * fault path finds them again when the guest first accesses the page.
 */
static void map_gpa_range_prefault(CPUState *cpu, hwaddr gpa, uint64_t size)
{
    struct kvm_pre_fault_memory mem = {
        .gpa = gpa,
        .size = size,
    };

    if (!kvm_pre_fault_memory_supported || size > MAP_GPA_RANGE_PREFAULT) {
        return;
    }
    while (mem.size && !qatomic_read(&cpu->exit_request)) {
        if (kvm_vcpu_ioctl(cpu, KVM_PRE_FAULT_MEMORY, &mem)) {
            break;
        }
    }
}

int kvm_handle_map_gpa_range(X86CPU *cpu, struct kvm_run *run)
{
    const uint64_t gpa = run->hypercall.args[0];
    const uint64_t size = run->hypercall.args[1] * TARGET_PAGE_SIZE;
    const uint64_t attributes = run->hypercall.args[2];
    const bool to_private = attributes & KVM_MAP_GPA_RANGE_ENCRYPTED;
    const bool valid = !(attributes &
                         ~(uint64_t)(KVM_MAP_GPA_RANGE_ENCRYPTED |
                                     KVM_MAP_GPA_RANGE_PAGE_SZ_2M |
                                     KVM_MAP_GPA_RANGE_PAGE_SZ_1G));
    bool by_kvm;
    int64_t ret;

    if (!guest_memfd_machine_has_private(current_machine)) {
        return -EINVAL;
    }
    by_kvm = current_machine->cgs->kvm_answers_guest;
    trace_kvm_hc_map_gpa_range(gpa, size, attributes, run->hypercall.flags);

    /* Where KVM has made the hypercall, the guest cannot repeat it. */
    ret = guest_memfd_convert_pages(gpa, run->hypercall.args[1], to_private,
                                    valid, by_kvm ? NULL : CPU(cpu));
    if (ret == -ENOTRECOVERABLE) {
        return ret;
    }
    if (ret == -EINTR && !by_kvm) {
        /*
         * KVM stores the status in RAX and steps over the instruction when the
         * vCPU runs next, which it does for just that, because of the request
         * to exit.  Then both are put back.
         */
        run->hypercall.ret = run->hypercall.nr;
        qatomic_set(&CPU(cpu)->exit_request, true);
        cpu->env.repeat_hypercall = true;
        return 0;
    }
    run->hypercall.ret = kvm_map_gpa_range_status(ret, by_kvm);
    if (ret >= 0) {
        map_gpa_range_prefault(CPU(cpu), gpa, size);
    }
    return 0;
}

void kvm_map_gpa_range_post_run(X86CPU *cpu)
{
    if (cpu->env.repeat_hypercall) {
        cpu->env.repeat_hypercall = false;
        cpu_synchronize_state(CPU(cpu));
        cpu->env.eip -= HYPERCALL_LEN;
    }
}
