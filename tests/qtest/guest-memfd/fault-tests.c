/*
 * Calls of the kernel that fail
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/migration-util.h"
#include "guest-memfd/slots-util.h"
#include "guest-memfd/tests.h"

static void test_fault_create(const void *opaque)
{
    const char *op = opaque;
    QTestState *qts;
    int i, fds;

    fault_begin();
    fault_arm(op, ENOMEM, 0);
    assert_exits("kvm", TYPE ",id=m,size=1M", "1048576 bytes");
    fault_disarm();

    qts = start_machine(&machine_pc, "");
    fault_end();
    fds = count_fds(qts);
    fault_arm(op, ENOMEM, 0);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", "{'size': 1048576}"),
                     "1048576 bytes");
    }
    assert_fds(qts, fds);
    fault_disarm();
    object_add_ok(qts, "m", "{'size': 1048576}");
    object_del_ok(qts, "m");
    assert_fds(qts, fds);
    qtest_quit(qts);
}

static void test_fault_bind_first(const void *opaque)
{
    const Machine *m = opaque;
    GByteArray *data;
    QTestState *qts;

    fault_begin();
    fault_arm("bind", ENOMEM, 0);
    qts = start_machine(m, "");
    wait_all_slots(qts, "ram0", 0, "refused", true);
    data = write_patterns(qts);

    /* KVM would now do it, but is not asked over and over. */
    fault_disarm();
    config_write(qts, pam_base(m) + 6, 0x33);
    config_write(qts, pam_base(m) + 6, 0);
    wait_all_slots(qts, "ram0", 0, "refused", true);

    /* It is when dirty logging ends. */
    migrate_endless(qts);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "bound", false);
    g_byte_array_unref(data);
    fault_end();
    qtest_quit(qts);
}

static void test_fault_bind_again(const void *opaque)
{
    GByteArray *data;
    QTestState *qts;

    fault_begin();
    qts = start_machine(opaque, "");
    fault_end();
    assert_all_slots(qts, "ram0", 0, "bound");

    migrate_endless(qts);
    data = write_patterns(qts);
    fault_arm("bind", EINTR, 0);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "refused", true);
    check_patterns(qts, data);

    /* A VM like this can still be migrated, and is bound in the end. */
    migrate_endless(qts);
    assert_all_slots(qts, "ram0", 0, "dirty-log");
    fault_disarm();
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "bound", false);
    g_byte_array_unref(data);
    qtest_quit(qts);
}

/* Only one slot is refused; the others are bound. */
static void test_fault_bind_nth(const void *opaque)
{
    QTestState *qts;
    int i, nth;

    for (nth = 1; nth <= 2; nth++) {
        g_autoptr(GArray) slots = NULL;
        int refused = 0, bound = 0;

        fault_begin();
        qts = start_machine(opaque, "");
        fault_end();
        migrate_endless(qts);
        fault_arm("bind", ENOSPC, nth);
        migrate_cancel(qts);
        do {
            g_usleep(10 * 1000);
            g_clear_pointer(&slots, g_array_unref);
            slots = query_slots(qts, "ram0");
            check_slots(slots, true);
        } while (slot_is(&g_array_index(slots, Slot, 0), "dirty-log"));
        for (i = 0; i < slots->len; i++) {
            refused += slot_is(&g_array_index(slots, Slot, i), "refused");
            bound += slot_is(&g_array_index(slots, Slot, i), "bound");
        }
        g_assert_cmpint(refused, ==, 1);
        g_assert_cmpint(bound, ==, slots->len - 1);
        g_assert_cmpint(bound, >=, 1);
        fault_disarm();
        qtest_quit(qts);
    }
}

static void lose_slots(QTestState *qts)
{
    fault_arm("slot", ENOMEM, 0);
    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 1, "
                             "'mode': 'dirty-bitmap'}}");
    wait_all_slots(qts, "ram0", 0, "lost", false);
    wait_status(qts, "query-status", "internal-error");
    wait_status(qts, "query-dirty-rate", "measured");
}

/* KVM takes none of the slots back: the VM stops, and reset mends it. */
static void test_fault_slot(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts;
    QDict *rsp;

    fault_begin();
    qts = start_machine(m, "");
    fault_end();
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");

    lose_slots(qts);
    rsp = qtest_qmp(qts, "{'execute': 'cont'}");
    assert_fails(rsp, "Resetting the Virtual Machine is required");
    qtest_system_reset_nowait(qts);
    qtest_qmp_eventwait(qts, "RESET");
    wait_all_slots(qts, "ram0", 0, "lost", true);
    wait_status(qts, "query-status", "internal-error");

    /* What stops the dirty log waits until the VM runs. */
    fault_disarm();
    qtest_system_reset(qts);
    wait_all_slots(qts, "ram0", 0, "dirty-log", false);
    wait_status(qts, "query-status", "prelaunch");
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_status(qts, "query-status", "running");
    wait_all_slots(qts, "ram0", 0, "bound", false);

    /* A lost slot goes as any other one, when the memory map changes. */
    lose_slots(qts);
    fault_disarm();
    config_write(qts, pam_base(m) + 6, 0x33);
    qtest_system_reset(qts);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_status(qts, "query-status", "running");
    wait_all_slots(qts, "ram0", 0, "bound", false);
    qtest_quit(qts);
}

/* A migration of a VM that has lost its slots, and one that begins then */
static void test_fault_slot_migration(const void *opaque)
{
    QTestState *qts;

    fault_begin();
    qts = start_machine(opaque, "");
    fault_end();
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    migrate_endless(qts);
    fault_arm("slot", ENOMEM, 0);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "lost", false);
    wait_status(qts, "query-status", "internal-error");
    migrate_endless(qts);
    wait_all_slots(qts, "ram0", 0, "lost", true);
    fault_disarm();
    qtest_system_reset(qts);
    wait_all_slots(qts, "ram0", 0, "dirty-log", true);
    migrate_cancel(qts);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_all_slots(qts, "ram0", 0, "bound", false);
    qtest_quit(qts);
}

void guest_memfd_test_add_faults(void)
{
    add_test("fault", "create", test_fault_create, "create", NEED_GMEM);
    add_test("fault", "mmap", test_fault_create, "mmap", NEED_GMEM);
    add_machine_test("fault/bind-first", test_fault_bind_first, &machine_pc);
    add_machine_test("fault/bind-first", test_fault_bind_first,
                     &machine_q35_smm);
    add_machine_test("fault/bind-again", test_fault_bind_again, &machine_pc);
    add_machine_test("fault/bind-again", test_fault_bind_again,
                     &machine_q35_smm);
    if (is_pc()) {      /* which has several slots */
        add_machine_test("fault/bind-nth", test_fault_bind_nth, &machine_pc);
    }
    add_machine_test("fault/slot", test_fault_slot, &machine_pc);
    add_machine_test("fault/slot", test_fault_slot, &machine_q35_smm);
    add_machine_test("fault/slot-migration", test_fault_slot_migration,
                     &machine_q35);
}
