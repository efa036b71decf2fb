/*
 * Unit test of accel/kvm/kvm-gmem-bind.c: which memslots get bound
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "accel/kvm/kvm-gmem-bind.h"

#define MAX_VIEWS 10

/* Independent of the code under test: page by page. */
static bool common_page(const KVMGmemView *a, const KVMGmemView *b)
{
    uint64_t page;

    if (a->fd != b->fd) {
        return false;
    }
    for (page = a->offset; page < a->offset + a->size; page += 4 * KiB) {
        if (page >= b->offset && page - b->offset < b->size) {
            return true;
        }
    }
    return false;
}

static bool precedes(const KVMGmemView *a, const KVMGmemView *b)
{
    return a->size > b->size ||
           (a->size == b->size && a->address < b->address);
}

/* Is @set, a bit per view, what kvm_gmem_choose() promises? */
static bool set_is_right(const KVMGmemView *views, int n, unsigned set)
{
    int i, j;

    for (i = 0; i < n; i++) {
        bool beaten = false;

        for (j = 0; j < n; j++) {
            beaten |= j != i && (set & 1u << j) &&
                      common_page(&views[i], &views[j]) &&
                      precedes(&views[j], &views[i]);
        }
        if (!!(set & 1u << i) == beaten) {
            return false;
        }
    }
    return true;
}

static unsigned chosen_set(const KVMGmemView *views, int n)
{
    unsigned set = 0;
    int i;

    for (i = 0; i < n; i++) {
        set |= views[i].chosen ? 1u << i : 0;
    }
    return set;
}

static void test_random(void)
{
    int round, i, j;

    for (round = 0; round < 2000; round++) {
        KVMGmemView views[MAX_VIEWS];
        int n = g_test_rand_int_range(0, MAX_VIEWS + 1);
        unsigned set, right = 0, found = 0;

        for (i = 0; i < n; i++) {
            views[i] = (KVMGmemView) {
                .fd = g_test_rand_int_range(5, 7),
                .offset = g_test_rand_int_range(0, 12) * 4 * KiB,
                .size = g_test_rand_int_range(1, 6) * 4 * KiB,
                /* Different ones, in no order */
                .address = (i * 7 % MAX_VIEWS + (i * 7 / MAX_VIEWS) * 100) *
                           MiB,
                .chosen = g_test_rand_bit(),
            };
        }
        kvm_gmem_choose(views, n);

        /* Of all sets just one is right. */
        for (set = 0; set < 1u << n; set++) {
            if (set_is_right(views, n, set)) {
                right = set;
                found++;
            }
        }
        g_assert_cmpuint(found, ==, 1);
        g_assert_cmphex(chosen_set(views, n), ==, right);

        /* The order that they come in does not matter. */
        for (i = n - 1; i > 0; i--) {
            KVMGmemView tmp = views[i];

            j = g_test_rand_int_range(0, i + 1);
            views[i] = views[j];
            views[j] = tmp;
        }
        set = chosen_set(views, n);
        kvm_gmem_choose(views, n);
        g_assert_cmphex(chosen_set(views, n), ==, set);
    }
}

static void test_bind_alias(void)
{
    const struct {
        KVMGmemView a, b;
        bool alias;
    } cases[] = {
        { { 5, 0, 4096 }, { 5, 0, 4096 }, true },
        { { 5, 0, 4096 }, { 6, 0, 4096 }, false },
        { { 5, 0, 4096 }, { 5, 4096, 4096 }, false },
        { { 5, 0, 8192 }, { 5, 4096, 4096 }, true },
        { { 5, 0, 1 * TiB }, { 5, 1 * TiB - 4096, 8192 }, true },
        { { 5, 1 * TiB, 4096 }, { 5, 0, 1 * TiB }, false },
        /* The last page that there can be */
        { { 5, UINT64_MAX - 4095, 4096 }, { 5, 0, 4096 }, false },
        { { 5, UINT64_MAX - 4095, 4096 }, { 5, 4096, UINT64_MAX - 4095 },
          true },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmpint(kvm_gmem_views_alias(&cases[i].a, &cases[i].b), ==,
                        cases[i].alias);
        g_assert_cmpint(kvm_gmem_views_alias(&cases[i].b, &cases[i].a), ==,
                        cases[i].alias);
    }
}

/* q35 with its SMRAM opened high: main memory has priority. */
static void test_bind_smram(void)
{
    KVMGmemView views[] = {
        { 5, 640 * KiB, 128 * KiB, 0xfeda0000 },
        { 5, 1 * MiB, 127 * MiB, 1 * MiB },
        { 5, 0, 768 * KiB, 0 },
    };

    kvm_gmem_choose(views, ARRAY_SIZE(views));
    g_assert_cmphex(chosen_set(views, ARRAY_SIZE(views)), ==, 6);

    /* VGA covers it in main memory: nothing is in the way. */
    views[2].size = 640 * KiB;
    kvm_gmem_choose(views, ARRAY_SIZE(views));
    g_assert_cmphex(chosen_set(views, ARRAY_SIZE(views)), ==, 7);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/kvm-gmem/bind/alias", test_bind_alias);
    g_test_add_func("/kvm-gmem/bind/smram", test_bind_smram);
    g_test_add_func("/kvm-gmem/bind/random", test_random);
    return g_test_run();
}
