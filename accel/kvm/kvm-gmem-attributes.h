/*
 * KVM guest_memfd: which pages are private for KVM
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GMEM_ATTRIBUTES_H
#define ACCEL_KVM_GMEM_ATTRIBUTES_H

#include "system/guest-memfd-block.h"

/**
 * kvm_gmem_view_set_binding: note what KVM has done with a memory slot
 * @block: the block
 * @view: its view, for the slot
 * @binding: whether the slot is bound now, and if not, why
 *
 * Sets the attributes of private memory when the slot becomes bound, and clears
 * them when it no longer is.  Called with the BQL held.
 *
 * Returns: 0; or -errno.  When attributes could not be set, the view is not
 *     bound and has none.
 */
int kvm_gmem_view_set_binding(GuestMemfdBlock *block, GuestMemfdView *view,
                              GuestMemfdBinding binding);

/**
 * kvm_gmem_attribute_changes: how often KVM's view of private memory has
 * changed
 *
 * Counts attributes and memory slots; wraps.  Called with the BQL held.
 */
unsigned kvm_gmem_attribute_changes(void);

/* kvm_gmem_attributes_changed: a memory slot has come or gone */
void kvm_gmem_attributes_changed(void);

#endif
