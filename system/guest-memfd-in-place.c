/*
 * Private memory of a VM: RAM blocks whose pages are converted in place
 *
 * Such a block is one guest_memfd, which QEMU maps.  KVM keeps in the file
 * which of its pages are private: those have no place in any process's page
 * tables, and an access to one is an error (guest-memfd-sigbus.c).  A page that
 * changes its state stays where it is.  So there is nothing to free when pages
 * are converted, but a page cannot become private while somebody holds a
 * reference to it.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-block.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "system/ram_addr.h"

bool guest_memfd_in_place(void)
{
    return current_machine->cgs && current_machine->cgs->in_place;
}

/* Has guest_memfd_launch() been called? */
static bool in_place_launched;

bool guest_memfd_in_place_is_open(void)
{
    return guest_memfd_in_place() && !current_machine->cgs->initially_shared &&
           !in_place_launched;
}

bool guest_memfd_in_place_is_launched(void)
{
    return in_place_launched;
}

void guest_memfd_in_place_set_launched(void)
{
    in_place_launched = true;
}

static bool in_place_get_property(Object *obj, Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    return cgs->in_place || cgs->convert_in_place == ON_OFF_AUTO_ON;
}

static void in_place_set_property(Object *obj, bool value, Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    if (kvm_enabled() && OBJECT(current_machine->cgs) == obj) {
        error_setg(errp, "property 'convert-in-place' cannot change any more");
        return;
    }
    cgs->convert_in_place = value ? ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
}

void guest_memfd_in_place_add_property(ObjectClass *oc)
{
    object_class_property_add_bool(oc, "convert-in-place",
                                   in_place_get_property,
                                   in_place_set_property);
    object_class_property_set_description(oc, "convert-in-place",
        "Whether pages keep their place when they become private or shared");
}

RAMBlock *guest_memfd_in_place_alloc(uint64_t size, uint32_t ram_flags,
                                     MemoryRegion *mr, Error **errp)
{
#ifdef CONFIG_LINUX
    RAMBlock *rb;
    int fd;

    size = ROUND_UP(size, qemu_real_host_page_size());
    fd = kvm_gmem_create_mmap(size, !guest_memfd_in_place_is_launched(),
                              ON_OFF_AUTO_AUTO, errp);
    if (fd < 0) {
        error_prepend(errp, "cannot set up guest memory '%s': ",
                      memory_region_name(mr));
        return NULL;
    }
    ram_flags |= RAM_SHARED | RAM_GUEST_MEMFD_MMAP;
    rb = qemu_ram_alloc_from_fd(size, size, NULL, mr, ram_flags, fd, 0, false,
                                errp);
    if (!rb) {
        close(fd);
    }
    return rb;
#else
    error_setg(errp, "private memory needs Linux");
    return NULL;
#endif
}

bool guest_memfd_in_place_init(RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    Object *owner = memory_region_owner(rb->mr);

    /* The guest cannot make ROM private. */
    if (rb->flags & (RAM_GUEST_MEMFD_MMAP | RAM_READONLY)) {
        return true;
    }
    error_setg(errp, "%s '%s' cannot be converted in place, as this VM's "
               "private memory is", owner ? object_get_typename(owner)
                                          : "memory",
               memory_region_name(rb->mr));
    error_append_hint(errp, "Use memory-backend-guest-memfd.\n");
    return false;
}

uint64_t guest_memfd_in_place_free_size(RAMBlock *rb)
{
    return qemu_real_host_page_size();
}

int guest_memfd_in_place_set_private(GuestMemfdBlock *block, uint64_t offset,
                                     uint64_t size, bool private,
                                     uint64_t *done)
{
    int ret;

    if (private) {
        return kvm_gmem_file_set_private(block->rb, offset, size, true, done);
    }
    *done = 0;
    guest_memfd_sigbus_lock();
    ret = guest_memfd_sigbus_end(block->rb, offset, size);
    if (!ret) {
        ret = kvm_gmem_file_set_private(block->rb, offset, size, false, done);
    }
    guest_memfd_sigbus_unlock();
    return ret;
}

void guest_memfd_in_place_balloon(RAMBlock *rb, uint64_t offset, uint64_t size)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    const uint64_t end = offset + size;
    uint64_t run;

    while ((run = guest_memfd_map_next_run(&block->map, &offset, end, false))) {
        /* One file has both: this frees shared pages as well. */
        block->ops->drop_private(rb, offset, run);
        offset += run;
    }
}
