/*
 * Test of memory-backend-guest-memfd with the host's own KVM
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/tests.h"

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    test_begin();

    guest_memfd_test_add_object();
    guest_memfd_test_add_slots();
    guest_memfd_test_add_migration();
    guest_memfd_test_add_untouched();
    guest_memfd_test_add_hotplug();
    guest_memfd_test_add_faults();
    /* The last: it drops CAP_IPC_LOCK. */
    guest_memfd_test_add_lock();

    ret = g_test_run();

    test_end();
    return ret;
}
