/*
 * The memory slots of a guest_memfd, as query-guest-memfd tells them
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qobject/qlist.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/slots-util.h"

GArray *query_slots(QTestState *qts, const char *id)
{
    QDict *info = query_by_id(qts, "query-guest-memfd", id);
    GArray *slots = g_array_new(false, true, sizeof(Slot));
    QListEntry *e;

    g_assert_nonnull(info);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), e) {
        QDict *s = qobject_to(QDict, qlist_entry_obj(e));
        Slot slot = {
            .as = qdict_get_int(s, "address-space"),
            .address = qdict_get_int(s, "address"),
            .size = qdict_get_int(s, "size"),
            .offset = qdict_get_int(s, "offset"),
        };

        pstrcpy(slot.binding, sizeof(slot.binding),
                qdict_get_str(s, "binding"));
        g_assert_cmpuint(slot.size, >, 0);
        g_assert_cmpuint(slot.offset + slot.size, <=,
                         qdict_get_int(info, "size"));
        g_array_append_val(slots, slot);
    }
    qobject_unref(info);
    return slots;
}

bool slot_is(const Slot *slot, const char *binding)
{
    return !strcmp(slot->binding, binding);
}

void check_slots(const GArray *slots, bool refused)
{
    int i, j;

    for (i = 0; i < slots->len; i++) {
        const Slot *a = &g_array_index(slots, Slot, i);
        bool beaten = false;

        g_assert(refused || !slot_is(a, "refused"));
        if (a->as != 0) {
            g_assert_false(slot_is(a, "bound"));
            continue;
        }
        for (j = 0; j < slots->len; j++) {
            const Slot *b = &g_array_index(slots, Slot, j);

            if (i == j || !slot_is(b, "bound") ||
                a->offset >= b->offset + b->size ||
                b->offset >= a->offset + a->size) {
                continue;
            }
            g_assert_false(slot_is(a, "bound"));
            beaten |= b->size > a->size ||
                      (b->size == a->size && b->address < a->address);
        }
        if (slot_is(a, "alias")) {
            g_assert_true(beaten);
        }
    }
}

GArray *get_slots(QTestState *qts, const char *id)
{
    GArray *slots = query_slots(qts, id);

    check_slots(slots, false);
    return slots;
}

static gint compare_lines(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char **)a, *(const char **)b);
}

char *slots_text(QTestState *qts, const char *id)
{
    g_autoptr(GArray) slots = get_slots(qts, id);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        g_ptr_array_add(lines, g_strdup_printf(
            "%" PRIu64 ":%010" PRIx64 "+%" PRIx64 "@%" PRIx64 "=%s",
            s->as, s->address, s->size, s->offset, s->binding));
    }
    g_ptr_array_sort(lines, compare_lines);
    g_ptr_array_add(lines, NULL);
    return g_strjoinv("\n", (char **)lines->pdata);
}

const char *binding_at(QTestState *qts, const char *id, uint64_t as,
                       uint64_t address)
{
    g_autoptr(GArray) slots = get_slots(qts, id);
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        if (s->as == as && address >= s->address &&
            address - s->address < s->size) {
            return g_intern_string(s->binding);
        }
    }
    return NULL;
}

/* Are all of an address space's slots like this, and is there one? */
static bool all_slots_are(const GArray *slots, uint64_t as, const char *binding)
{
    bool any = false;
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        if (s->as != as) {
            continue;
        }
        if (!slot_is(s, binding)) {
            return false;
        }
        any = true;
    }
    return any;
}

void assert_all_slots(QTestState *qts, const char *id, uint64_t as,
                      const char *binding)
{
    g_autoptr(GArray) slots = get_slots(qts, id);

    if (!all_slots_are(slots, as, binding)) {
        g_autofree char *text = slots_text(qts, id);

        g_error("not all slots of address space %" PRIu64 " are '%s':\n%s", as,
                binding, text);
    }
}

void wait_all_slots(QTestState *qts, const char *id, uint64_t as,
                    const char *binding, bool refused)
{
    int ms;

    for (ms = 0; ms < WAIT_MS; ms += 10) {
        g_autoptr(GArray) slots = query_slots(qts, id);

        check_slots(slots, refused);
        if (all_slots_are(slots, as, binding)) {
            return;
        }
        g_usleep(10 * 1000);
    }
    g_error("slots of address space %" PRIu64 " not '%s' after %d s", as,
            binding, WAIT_MS / 1000);
}
