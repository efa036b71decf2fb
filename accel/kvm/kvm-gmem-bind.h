/*
 * KVM guest_memfd: the choice of the memslots to bind
 *
 * Pure logic, so that it can be tested without KVM.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GMEM_BIND_H
#define ACCEL_KVM_GMEM_BIND_H

/**
 * KVMGmemView: a range of guest addresses over a range of a guest_memfd
 *
 * @fd: the file
 * @offset: of the range in the file
 * @size: in bytes, not 0
 * @address: guest physical address
 * @chosen: set by kvm_gmem_choose(): to be bound to the file
 */
typedef struct KVMGmemView {
    int fd;
    uint64_t offset;
    uint64_t size;
    uint64_t address;
    bool chosen;
} KVMGmemView;

/**
 * kvm_gmem_views_alias: do two views have part of a file in common?
 *
 * @a: a view
 * @b: another view
 */
bool kvm_gmem_views_alias(const KVMGmemView *a, const KVMGmemView *b);

/**
 * kvm_gmem_choose: choose the views to bind
 *
 * @views: views with different guest addresses
 * @n: number of views
 *
 * KVM binds no part of a file twice.  The largest views come first, so that a
 * small alias never keeps main memory unbound, and of the same size those at
 * the lowest guest addresses.  The order of @views does not matter.
 */
void kvm_gmem_choose(KVMGmemView *views, size_t n);

#endif
