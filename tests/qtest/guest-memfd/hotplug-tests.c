/*
 * Memory that is plugged into a running machine
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/slots-util.h"
#include "guest-memfd/tests.h"

static QDict *add_dimm(QTestState *qts, const char *id, const char *memdev,
                       uint64_t address)
{
    return qtest_qmp(qts, "{'execute': 'device_add', 'arguments': "
                     "{'driver': 'pc-dimm', 'id': %s, 'memdev': %s, "
                     "'addr': %" PRIu64 "}}", id, memdev, address);
}

static void test_dimm(const void *opaque)
{
    QTestState *qts = start_machine(opaque, "-m 64M,slots=4,maxmem=2G");
    const uint64_t base = is_pc() ? 4 * GiB : 2 * GiB;
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    g_autoptr(GArray) slots = NULL;
    QDict *rsp;
    Slot *slot;

    object_add_ok(qts, "m", "{'size': 134217728}");
    assert_fails(add_dimm(qts, "d0", "m", 1 * TiB),
                 "usable range");
    assert_fails(add_dimm(qts, "d0", "m", base + 100), "align");
    slots = get_slots(qts, "m");
    g_assert_cmpint(slots->len, ==, 0);
    object_del_ok(qts, "m");

    object_add_ok(qts, "m", "{'size': 134217728}");
    rsp = add_dimm(qts, "d0", "m", base + 128 * MiB);
    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    assert_all_slots(qts, "m", 0, "bound");
    g_array_unref(slots);
    slots = get_slots(qts, "m");
    slot = &g_array_index(slots, Slot, 0);
    g_assert_cmphex(slot->address, ==, base + 128 * MiB);
    g_assert_cmphex(slot->size, ==, 128 * MiB);
    g_assert_cmphex(slot->offset, ==, 0);

    qtest_writeq(qts, slot->address + 0x12340, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, slot->address + 0x12340), ==,
                    0x1122334455667788);
    assert_fails(object_del(qts, "m"), "is in use");
    assert_fails(add_dimm(qts, "d1", "m", base), "busy");

    qtest_system_reset(qts);
    assert_all_slots(qts, "m", 0, "bound");
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

static void test_virtio_mem(const void *opaque)
{
    bool dynamic = opaque != NULL;
    g_autofree char *extra = g_strdup_printf(
        "-m 64M,maxmem=2G -object " TYPE ",id=m,size=256M "
        "-device virtio-mem-pci,memdev=m,requested-size=128M,id=v%s",
        dynamic ? ",dynamic-memslots=on" : "");
    QTestState *qts = start_machine(&machine_pc, extra);

    if (dynamic) {
        /* Nothing is plugged without a driver in the guest. */
        g_autoptr(GArray) slots = get_slots(qts, "m");

        g_assert_cmpint(slots->len, ==, 0);
    } else {
        assert_all_slots(qts, "m", 0, "bound");
    }
    assert_allocated(qts, "m", 0);
    assert_fails(object_del(qts, "m"), "is in use");
    qtest_system_reset(qts);
    qtest_quit(qts);
}

void guest_memfd_test_add_hotplug(void)
{
    add_machine_test("dimm", test_dimm, &machine_pc);
    add_machine_test("dimm", test_dimm, &machine_q35_smm);
    add_test("virtio-mem", "static", test_virtio_mem, NULL, NEED_GMEM);
    add_test("virtio-mem", "dynamic", test_virtio_mem, "", NEED_GMEM);
}
