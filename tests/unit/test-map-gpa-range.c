/*
 * Unit test of target/i386/kvm/map-gpa-range.h: KVM accepts what QEMU tells it
 *
 * The model is KVM's rule for SEV-SNP and TDX, which no machine without that
 * hardware applies.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/typedefs.h"

typedef struct ArchCPU X86CPU;
#include "../../target/i386/kvm/map-gpa-range.h"

/*
 * A model of kvm_is_valid_map_gpa_range_ret() in Linux 7.3.4's
 * arch/x86/kvm/x86.h.  With any other value snp_complete_psc_msr(),
 * snp_complete_one_psc() and tdx_complete_vmcall_map_gpa() have KVM_RUN fail.
 */
static bool model_of_kvm_takes(uint64_t ret)
{
    return ret == 0 || ret == EINVAL || ret == EAGAIN;
}

static void test_by_kvm(void)
{
    int error;

    g_assert_cmpuint(kvm_map_gpa_range_status(0, true), ==, 0);
    g_assert_cmpuint(kvm_map_gpa_range_status(512, true), ==, 0);
    for (error = 1; error < 4096; error++) {
        uint64_t status = kvm_map_gpa_range_status(-error, true);

        g_assert_true(model_of_kvm_takes(status));
        g_assert_cmpuint(status, !=, 0);
    }
    /* What may work later: a TDX guest tries again. */
    g_assert_cmpuint(kvm_map_gpa_range_status(-EBUSY, true), ==, EAGAIN);
    g_assert_cmpuint(kvm_map_gpa_range_status(-ENOMEM, true), ==, EAGAIN);
    g_assert_cmpuint(kvm_map_gpa_range_status(-EPERM, true), ==, EINVAL);
}

/* The guest's RAX: 0 or a negative errno */
static void test_by_guest(void)
{
    g_assert_cmpuint(kvm_map_gpa_range_status(0, false), ==, 0);
    g_assert_cmpuint(kvm_map_gpa_range_status(512, false), ==, 0);
    g_assert_cmpint(kvm_map_gpa_range_status(-EBUSY, false), ==, -EBUSY);
    g_assert_cmpint(kvm_map_gpa_range_status(-EINVAL, false), ==, -EINVAL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/map-gpa-range/status/by-kvm", test_by_kvm);
    g_test_add_func("/map-gpa-range/status/by-guest", test_by_guest);
    return g_test_run();
}
