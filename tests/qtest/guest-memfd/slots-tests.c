/*
 * Which memory slots are bound, whatever changes the memory map or logs writes
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

static void test_slots(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts = start_machine(m, "");
    g_autofree char *text = slots_text(qts, "ram0");
    const uint64_t start = ram_start();

    assert_all_slots(qts, "ram0", 0, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, start), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, start + RAM_SIZE - 1), ==,
                    "bound");
    g_assert_null(binding_at(qts, "ram0", 0, start + RAM_SIZE));
    if (m->smm) {
        assert_all_slots(qts, "ram0", 1, "alias");
    } else {
        g_assert_null(binding_at(qts, "ram0", 1, start));
    }
    qtest_quit(qts);
}

static void test_reset(const void *opaque)
{
    QTestState *qts = start_machine(opaque, "");
    g_autofree char *before = slots_text(qts, "ram0");
    int i;

    for (i = 0; i < 10; i++) {
        g_autofree char *after = NULL;

        qtest_system_reset(qts);
        after = slots_text(qts, "ram0");
        g_assert_cmpstr(after, ==, before);
    }
    qtest_quit(qts);
}

/*
 * QEMU gives KVM no read-only slot for a write-protected alias of RAM (0x11),
 * only for ROM: the shadow stays bound.
 */
static void test_pam(const void *opaque)
{
    static const struct {
        uint8_t value;
        const char *binding;
    } steps[] = {
        { 0x33, "bound" },
        { 0x11, "bound" },
        { 0x33, "bound" },
        { 0x00, NULL },
        { 0x11, "bound" },
        { 0x22, "bound" },
        { 0x11, "bound" },
        { 0x00, NULL },
    };
    const Machine *m = opaque;
    QTestState *qts = start_machine(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    int i;

    for (i = 0; i < ARRAY_SIZE(steps); i++) {
        /* PAM5: 16 KiB each from 0xe0000 and 0xe4000 */
        config_write(qts, pam_base(m) + 5, steps[i].value);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe0000), ==,
                        steps[i].binding);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe7fff), ==,
                        steps[i].binding);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe8000), ==, NULL);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 1 * MiB), ==, "bound");
    }
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

#define SMRAM 0x9d
#define SMRAM_D_OPEN 0x40
#define SMRAM_G_SMRAME 0x08
#define ESMRAMC 0x9e
#define ESMRAMC_H_SMRAME 0x80
#define ESMRAMC_T_EN 0x01
#define HIGH_SMRAM 0xfeda0000

static void test_smram(const void *opaque)
{
    const Machine *m = opaque;
    bool vga = m == &machine_q35_vga;
    QTestState *qts = start_machine(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;

    /* The VGA window covers 0xa0000: there is no RAM below the alias. */
    if (vga) {
        config_write(qts, 0x04, 0x00);
    }
    g_assert_null(binding_at(qts, "ram0", 0, HIGH_SMRAM));

    config_write(qts, ESMRAMC, ESMRAMC_H_SMRAME);
    config_write(qts, SMRAM, SMRAM_D_OPEN);
    g_assert_cmpstr(binding_at(qts, "ram0", 0, HIGH_SMRAM), ==,
                    vga ? "bound" : "alias");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xa0000), ==,
                    vga ? NULL : "bound");

    /* Open at the low address, it is main memory again that gets bound. */
    config_write(qts, ESMRAMC, 0);
    g_assert_null(binding_at(qts, "ram0", 0, HIGH_SMRAM));
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xa0000), ==, "bound");

    config_write(qts, ESMRAMC, ESMRAMC_H_SMRAME);
    config_write(qts, SMRAM, SMRAM_D_OPEN | SMRAM_G_SMRAME);
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 1, HIGH_SMRAM), ==, "alias");

    qtest_system_reset(qts);
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

/* glib prints the seed, and takes it by --seed. */
static void test_storm(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts = start_machine(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    bool smram = m->smm && g_str_equal(m->type, "q35");
    int i;

    for (i = 0; i < 200; i++) {
        int what = g_test_rand_int_range(0, smram ? 9 : 7);
        int reg = what < 7 ? pam_base(m) + what : what == 7 ? SMRAM : ESMRAMC;
        /* But for SMRAM's lock, which only reset opens. */
        int value = g_test_rand_int_range(0, 256) & ~(what == 7 ? 0x10 : 0);

        config_write(qts, reg, value);
        g_array_unref(get_slots(qts, "ram0"));
        if (g_test_rand_int_range(0, 50) == 0) {
            qtest_system_reset(qts);
        }
    }
    /* QEMU's reset leaves the PAM registers to the firmware. */
    for (i = 0; i < 7; i++) {
        config_write(qts, pam_base(m) + i, 0);
    }
    qtest_system_reset(qts);
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

/* Dirty logging */

static void test_dirty_log(const void *opaque)
{
    static const uint8_t pam[] = { 0x33, 0x11 };
    const Machine *m = opaque;
    QTestState *qts = start_machine(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    int i, j;

    for (i = 0; i < 3; i++) {
        g_autofree char *after = NULL;

        migrate_endless(qts);
        assert_all_slots(qts, "ram0", 0, "dirty-log");
        if (m->smm) {
            assert_all_slots(qts, "ram0", 1, "dirty-log");
        }
        /* The map changes meanwhile. */
        for (j = 0; is_pc() && j < ARRAY_SIZE(pam); j++) {
            config_write(qts, pam_base(m) + 5, pam[j]);
            g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe0000), ==,
                            "dirty-log");
        }
        config_write(qts, pam_base(m) + 5, 0);

        migrate_cancel(qts);
        wait_all_slots(qts, "ram0", 0, "bound", false);
        after = slots_text(qts, "ram0");
        g_assert_cmpstr(after, ==, before);
    }
    qtest_quit(qts);
}

static void test_dirty_rate(const void *opaque)
{
    QTestState *qts = start_machine(opaque, "");

    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 1, "
                             "'mode': 'dirty-bitmap'}}");
    wait_status(qts, "query-dirty-rate", "measured");
    wait_all_slots(qts, "ram0", 0, "bound", false);

    /* Long enough to be seen while it lasts */
    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 60, "
                             "'mode': 'dirty-bitmap'}}");
    wait_all_slots(qts, "ram0", 0, "dirty-log", false);
    qtest_quit(qts);
}

void guest_memfd_test_add_slots(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(machines); i++) {
        add_machine_test("slots", test_slots, machines[i]);
        add_machine_test("reset", test_reset, machines[i]);
        add_machine_test("dirty-log", test_dirty_log, machines[i]);
        if (is_pc()) {
            add_machine_test("pam", test_pam, machines[i]);
            add_machine_test("storm", test_storm, machines[i]);
        }
    }
    add_machine_test("smram", test_smram, &machine_q35_smm);
    add_machine_test("smram", test_smram, &machine_q35_vga);

    add_machine_test("dirty-rate", test_dirty_rate, &machine_pc);
}
