/*
 * KVM guest_memfd: which pages are private for KVM
 *
 * KVM has an attribute for each page of guest addresses.  This file keeps it in
 * step with the map of the RAM block: the attribute is "private" where a memory
 * slot is bound to the guest_memfd and the map says so, and "shared" everywhere
 * else.
 *
 * The attributes belong to the VM, so they are set by guest address, slot by
 * slot; or, where memory is converted in place, to the pages of the
 * guest_memfd.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/kvm.h>
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "system/kvm_int.h"
#include "kvm-gmem-attributes.h"
#include "kvm-gmem-uapi.h"
#include "trace.h"

static unsigned attribute_changes;

unsigned kvm_gmem_attribute_changes(void)
{
    return attribute_changes;
}

void kvm_gmem_attributes_changed(void)
{
    attribute_changes++;
}

static int attribute_set(const GuestMemfdView *view, uint64_t offset,
                         uint64_t size, bool private)
{
    struct kvm_memory_attributes attributes = {
        .address = view->address + offset - view->offset,
        .size = size,
        .attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
    };
    int ret = kvm_vm_ioctl(kvm_state, KVM_SET_MEMORY_ATTRIBUTES, &attributes);

    attribute_changes++;
    trace_kvm_gmem_set_attribute(attributes.address, size, private, ret);
    return ret;
}

/* Set the attribute of each private run of a view, with one ioctl per run. */
static int attribute_set_runs(const GuestMemfdBlock *block,
                              const GuestMemfdView *view, bool private)
{
    const uint64_t end = view->offset + view->size;
    uint64_t offset = view->offset, size;

    while ((size = guest_memfd_map_next_run(&block->map, &offset, end, true))) {
        int ret = attribute_set(view, offset, size, private);

        if (ret) {
            return ret;
        }
        offset += size;
    }
    return 0;
}

int kvm_gmem_view_set_binding(GuestMemfdBlock *block, GuestMemfdView *view,
                              GuestMemfdBinding binding)
{
    const bool bind = binding == GUEST_MEMFD_BINDING_BOUND;
    int ret = 0;

    if (bind != (view->binding == GUEST_MEMFD_BINDING_BOUND) &&
        !block->ops->file_has_attributes) {
        guest_memfd_lock();
        ret = attribute_set_runs(block, view, bind);
        if (ret && bind) {
            /* Up to the run that failed: KVM sets all of a run or nothing. */
            attribute_set_runs(block, view, false);
        }
        guest_memfd_unlock();
    }
    if (!ret) {
        view->binding = binding;
    }
    return ret;
}

int kvm_gmem_set_private(const GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, bool private, uint64_t *done)
{
    const uint64_t end = offset + size;
    const GuestMemfdView *view;

    /* By offset; bound views do not overlap, as KVM binds no page twice. */
    QTAILQ_FOREACH(view, &block->views, next) {
        uint64_t from = MAX(offset, view->offset);
        uint64_t to = MIN(end, view->offset + view->size);
        int ret;

        if (view->binding != GUEST_MEMFD_BINDING_BOUND || from >= to) {
            continue;
        }
        ret = attribute_set(view, from, to - from, private);
        if (ret) {
            *done = from - offset;
            return ret;
        }
    }
    return 0;
}

/* KVM changes all of the range or nothing. */
static int attribute_set_file(int fd, uint64_t offset, uint64_t size,
                              bool private, uint64_t *error_offset)
{
    struct kvm_memory_attributes2 args = {
        .offset = offset,
        .size = size,
        .attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
        .error_offset = offset,
    };
    int ret = ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &args) ? -errno : 0;

    attribute_changes++;
    *error_offset = args.error_offset;
    trace_kvm_gmem_set_file_attribute(fd, offset, size, private, ret,
                                      args.error_offset);
    return ret;
}

int kvm_gmem_file_set_private(const RAMBlock *rb, uint64_t offset,
                              uint64_t size, bool private, uint64_t *done)
{
    uint64_t end, busy;
    int ret = attribute_set_file(rb->fd, offset, size, private, &busy);

    *done = 0;
    if (ret != -EAGAIN) {
        return ret;
    }
    /* Change what lies before the page that is busy, which may end in less. */
    for (end = busy; end > offset; end = busy) {
        int part = attribute_set_file(rb->fd, offset, end - offset, private,
                                      &busy);

        if (!part) {
            *done = end - offset;
            break;
        }
        if (part != -EAGAIN || busy >= end) {
            return part;
        }
    }
    return ret;
}
