/*
 * KVM guest_memfd: the choice of the memslots to bind
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/range.h"
#include "kvm-gmem-bind.h"

bool kvm_gmem_views_alias(const KVMGmemView *a, const KVMGmemView *b)
{
    return a->fd == b->fd &&
           ranges_overlap(a->offset, a->size, b->offset, b->size);
}

static gint kvm_gmem_view_order(gconstpointer pa, gconstpointer pb)
{
    const KVMGmemView *a = *(const KVMGmemView **)pa;
    const KVMGmemView *b = *(const KVMGmemView **)pb;

    if (a->size != b->size) {
        return a->size > b->size ? -1 : 1;
    }
    return a->address < b->address ? -1 : a->address > b->address;
}

void kvm_gmem_choose(KVMGmemView *views, size_t n)
{
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    size_t i, j;

    for (i = 0; i < n; i++) {
        g_ptr_array_add(order, &views[i]);
    }
    g_ptr_array_sort(order, kvm_gmem_view_order);

    for (i = 0; i < n; i++) {
        KVMGmemView *view = g_ptr_array_index(order, i);

        view->chosen = true;
        for (j = 0; j < i && view->chosen; j++) {
            const KVMGmemView *prior = g_ptr_array_index(order, j);

            view->chosen = !prior->chosen ||
                           !kvm_gmem_views_alias(prior, view);
        }
    }
}
