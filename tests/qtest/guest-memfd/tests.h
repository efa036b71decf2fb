/*
 * The tests of memory-backend-guest-memfd, each function those of one file
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_GUEST_MEMFD_TESTS_H
#define TEST_GUEST_MEMFD_TESTS_H

void guest_memfd_test_add_object(void);
void guest_memfd_test_add_slots(void);
void guest_memfd_test_add_migration(void);
void guest_memfd_test_add_untouched(void);
void guest_memfd_test_add_hotplug(void);
void guest_memfd_test_add_faults(void);
void guest_memfd_test_add_lock(void);

#endif
