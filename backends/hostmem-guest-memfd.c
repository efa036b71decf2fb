/*
 * QEMU host memory backend: guest RAM in KVM's guest_memfd
 *
 * HostMemoryBackendGuestMemfd is a HostMemoryBackend with one RAM block.
 *
 * In a plain VM the block is a guest_memfd, created by accel/kvm/kvm-gmem.c and
 * mapped shared, so that QEMU, its devices and vhost-user processes reach the
 * same pages that KVM maps into the guest through the file.  So it is in a VM
 * that converts private memory in place.  Otherwise private memory is split: a
 * memfd for shared pages and a guest_memfd, which QEMU cannot map, for private
 * ones (system/guest-memfd.h).
 *
 * The object adds 'huge-pages', and, for the shared half, 'hugetlb' and
 * 'hugetlbsize'.  Properties that cannot work are refused when the object is
 * created.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "hw/boards.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "qemu/module.h"
#include "qom/object.h"
#include "qom/object_interfaces.h"
#include "system/guest-memfd.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "trace.h"

#ifdef CONFIG_NUMA
#include <numaif.h>
#endif

#define TYPE_MEMORY_BACKEND_GUEST_MEMFD "memory-backend-guest-memfd"

OBJECT_DECLARE_SIMPLE_TYPE(HostMemoryBackendGuestMemfd,
                           MEMORY_BACKEND_GUEST_MEMFD)

struct HostMemoryBackendGuestMemfd {
    HostMemoryBackend parent_obj;

    /* Of the shared half, which is a memfd */
    bool hugetlb;
    uint64_t hugetlbsize;       /* 0: the host's default */

    OnOffAuto huge_pages;       /* of a guest_memfd that QEMU maps */
};

#ifdef CONFIG_NUMA
/*
 * Does the kernel honour an mbind() of this file?  Before Linux 6.19, mbind()
 * of a guest_memfd mapping succeeds, but the policy stays with the mapping
 * and pages are allocated without it.  Where the policy belongs to the file,
 * another mapping reports it.
 *
 * Returns true as well if mbind() fails: the caller's own mbind() says why.
 */
static bool guest_memfd_backend_honours_policy(HostMemoryBackend *backend,
                                               int fd)
{
    const size_t len = qemu_real_host_page_size();
    bool honours = true;
    void *set, *get = MAP_FAILED;
    int mode = MPOL_DEFAULT;

    set = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (set == MAP_FAILED) {
        return true;
    }
    get = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (get != MAP_FAILED &&
        !mbind(set, len, backend->policy, backend->host_nodes, MAX_NODES + 1,
               0) &&
        !get_mempolicy(&mode, NULL, 0, get, MPOL_F_ADDR)) {
        honours = mode != MPOL_DEFAULT;
    }
    if (get != MAP_FAILED) {
        munmap(get, len);
    }
    munmap(set, len);
    return honours;
}
#endif

/*
 * The kernel can neither swap out nor reclaim pages of a guest_memfd: to
 * allocate too many would not fail, but make the kernel kill processes.
 */
static bool guest_memfd_backend_check_prealloc(HostMemoryBackend *backend,
                                               Error **errp)
{
    ERRP_GUARD();
    const uint64_t host_size = qemu_get_host_physmem();

    if (host_size && backend->size > host_size) {
        g_autofree char *want = size_to_str(backend->size);
        g_autofree char *have = size_to_str(host_size);

        error_setg(errp, "property 'prealloc' is on and 'size' is %s, but the "
                   "host has %s of memory", want, have);
        error_append_hint(errp, "Make 'size' smaller or set prealloc=off.\n");
        return false;
    }
    return true;
}

static bool guest_memfd_backend_check_size(HostMemoryBackend *backend,
                                           Error **errp)
{
    ERRP_GUARD();
    const size_t page_size = qemu_real_host_page_size();

    if (!backend->size) {
        error_setg(errp, "property 'size' is missing");
        error_append_hint(errp, "Give the size of the memory, as in "
                          "size=4G.\n");
        return false;
    }
    if (!QEMU_IS_ALIGNED(backend->size, page_size)) {
        error_setg(errp, "property 'size' is %" PRIu64 ", which is not a "
                   "multiple of %zu, the host's page size", backend->size,
                   page_size);
        return false;
    }
    return !backend->prealloc ||
           guest_memfd_backend_check_prealloc(backend, errp);
}

/* A memfd for the shared half; physmem.c adds the private one. */
static bool guest_memfd_backend_alloc_split(HostMemoryBackend *backend,
                                            bool hugetlb, uint64_t hugetlbsize,
                                            OnOffAuto huge_pages, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_SHARED | RAM_GUEST_MEMFD |
                         (backend->reserve ? 0 : RAM_NORESERVE);
    int fd;

    if (!bitmap_empty(backend->host_nodes, MAX_NODES)) {
        error_setg(errp, "properties 'policy' and 'host-nodes' have no effect "
                   "on private memory, which KVM allocates by no policy unless "
                   "it converts memory in place");
        error_append_hint(errp, "Leave them out, or load kvm with "
                          "gmem_in_place_conversion=1.\n");
        return false;
    }
    /* A huge page of private memory would have room for shared pages, too. */
    if (huge_pages == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'huge-pages' is on, but this VM keeps "
                   "private and shared memory apart, page by page");
        error_append_hint(errp, "Set huge-pages=auto, or load kvm with "
                          "gmem_in_place_conversion=1.\n");
        return false;
    }
    fd = qemu_memfd_create(TYPE_MEMORY_BACKEND_GUEST_MEMFD, backend->size,
                           hugetlb, hugetlbsize,
                           F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, errp);
    if (fd < 0) {
        if (hugetlb) {
            error_prepend(errp, "property 'hugetlb' is on: 'hugetlbsize' must "
                          "be one that the host has, and 'size' a multiple of "
                          "it: ");
        }
        return false;
    }
    if (!memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, ram_flags, fd, 0,
                                        errp)) {
        if (hugetlb) {
            error_prepend(errp, "property 'hugetlb' is on: the host must have "
                          "free huge pages for 'size' %" PRIu64 ": ",
                          backend->size);
        }
        close(fd);
        return false;
    }
    return true;
}

/* A guest_memfd that is the whole block, and that QEMU maps */
static bool guest_memfd_backend_alloc_mapped(HostMemoryBackend *backend,
                                             bool hugetlb, OnOffAuto huge_pages,
                                             Error **errp)
{
    ERRP_GUARD();
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_SHARED | RAM_GUEST_MEMFD_MMAP |
                         (guest_memfd_in_place() ? RAM_GUEST_MEMFD : 0) |
                         (backend->reserve ? 0 : RAM_NORESERVE);
    int fd;

    if (hugetlb) {
        error_setg(errp, "property 'hugetlb' is on, but a guest_memfd has no "
                   "pages of the host's hugetlb pool");
        error_append_hint(errp, "Set huge-pages=on instead, or use "
                          "memory-backend-memfd.\n");
        return false;
    }

    fd = kvm_gmem_create_mmap(backend->size,
                              !guest_memfd_in_place_is_launched(), huge_pages,
                              errp);
    if (fd < 0) {
        error_prepend(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD ": ");
        return false;
    }

#ifdef CONFIG_NUMA
    if (backend->policy != HOST_MEM_POLICY_DEFAULT &&
        !bitmap_empty(backend->host_nodes, MAX_NODES) &&
        !guest_memfd_backend_honours_policy(backend, fd)) {
        error_setg(errp, "properties 'policy' and 'host-nodes' have no effect "
                   "on a guest_memfd before Linux 6.19");
        error_append_hint(errp, "Leave them out or use "
                          "memory-backend-memfd.\n");
        close(fd);
        return false;
    }
#endif

    if (!memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, ram_flags, fd, 0,
                                        errp)) {
        error_prepend(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD ": cannot map a "
                      "guest_memfd of %" PRIu64 " bytes: ", backend->size);
        close(fd);
        return false;
    }
    trace_guest_memfd_backend_alloc(name, fd, backend->size);
    return true;
}

bool guest_memfd_backend_alloc(HostMemoryBackend *backend, bool hugetlb,
                               uint64_t hugetlbsize, OnOffAuto huge_pages,
                               Error **errp)
{
    ERRP_GUARD();

    if (!kvm_enabled()) {
        error_setg(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD " needs KVM");
        error_append_hint(errp, "Start QEMU with '-accel kvm', or use "
                          "memory-backend-memfd with other accelerators.\n");
        return false;
    }
    if (!backend->share) {
        error_setg(errp, "property 'share' is off, but a guest_memfd is always "
                   "shared with KVM");
        error_append_hint(errp, "Set share=on or leave it out.\n");
        return false;
    }
    if (!guest_memfd_backend_check_size(backend, errp)) {
        return false;
    }
    if (current_machine->cgs &&
        !guest_memfd_machine_has_private(current_machine)) {
        error_setg(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD " has nothing to keep "
                   "in a guest_memfd with '-machine "
                   "confidential-guest-support' of type %s",
                   object_get_typename(OBJECT(current_machine->cgs)));
        error_append_hint(errp, "Use memory-backend-memfd.\n");
        return false;
    }
    /* Of arm64's "virt" alone; KVM refuses to bind a slot of such a VM. */
    if (object_property_get_bool(OBJECT(current_machine), "mte", NULL)) {
        error_setg(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD " has no memory tags, "
                   "but property 'mte' of -machine is on");
        error_append_hint(errp, "Set mte=off, or use memory-backend-memfd.\n");
        return false;
    }
    return current_machine->cgs && !guest_memfd_in_place()
           ? guest_memfd_backend_alloc_split(backend, hugetlb, hugetlbsize,
                                             huge_pages, errp)
           : guest_memfd_backend_alloc_mapped(backend, hugetlb, huge_pages,
                                              errp);
}

static bool guest_memfd_backend_memory_alloc(HostMemoryBackend *backend,
                                             Error **errp)
{
    HostMemoryBackendGuestMemfd *m = MEMORY_BACKEND_GUEST_MEMFD(backend);

    return guest_memfd_backend_alloc(backend, m->hugetlb, m->hugetlbsize,
                                     m->huge_pages, errp);
}

static bool guest_memfd_backend_get_hugetlb(Object *obj, Error **errp)
{
    return MEMORY_BACKEND_GUEST_MEMFD(obj)->hugetlb;
}

static void guest_memfd_backend_set_hugetlb(Object *obj, bool value,
                                            Error **errp)
{
    if (host_memory_backend_mr_inited(MEMORY_BACKEND(obj))) {
        error_setg(errp, "property 'hugetlb' cannot change any more");
        return;
    }
    MEMORY_BACKEND_GUEST_MEMFD(obj)->hugetlb = value;
}

static void guest_memfd_backend_get_hugetlbsize(Object *obj, Visitor *v,
                                                const char *name, void *opaque,
                                                Error **errp)
{
    visit_type_size(v, name, &MEMORY_BACKEND_GUEST_MEMFD(obj)->hugetlbsize,
                    errp);
}

static void guest_memfd_backend_set_hugetlbsize(Object *obj, Visitor *v,
                                                const char *name, void *opaque,
                                                Error **errp)
{
    uint64_t value;

    if (host_memory_backend_mr_inited(MEMORY_BACKEND(obj))) {
        error_setg(errp, "property '%s' cannot change any more", name);
    } else if (visit_type_size(v, name, &value, errp)) {
        MEMORY_BACKEND_GUEST_MEMFD(obj)->hugetlbsize = value;
    }
}

static int guest_memfd_backend_get_huge_pages(Object *obj, Error **errp)
{
    return MEMORY_BACKEND_GUEST_MEMFD(obj)->huge_pages;
}

static void guest_memfd_backend_set_huge_pages(Object *obj, int value,
                                               Error **errp)
{
    if (host_memory_backend_mr_inited(MEMORY_BACKEND(obj))) {
        error_setg(errp, "property 'huge-pages' cannot change any more");
        return;
    }
    MEMORY_BACKEND_GUEST_MEMFD(obj)->huge_pages = value;
}

static void guest_memfd_backend_instance_init(Object *obj)
{
    HostMemoryBackend *backend = MEMORY_BACKEND(obj);

    MEMORY_BACKEND_GUEST_MEMFD(obj)->huge_pages = ON_OFF_AUTO_AUTO;
    backend->share = true;
    /* Not even tried, although 'mem-merge' of -machine is on by default. */
    backend->merge = false;
}

static void guest_memfd_backend_class_init(ObjectClass *oc, const void *data)
{
    HostMemoryBackendClass *bc = MEMORY_BACKEND_CLASS(oc);

    bc->alloc = guest_memfd_backend_memory_alloc;
    bc->no_merge = "KSM cannot merge the pages of a guest_memfd";
    bc->check_prealloc = guest_memfd_backend_check_prealloc;
    object_class_property_add_enum(oc, "huge-pages", "OnOffAuto",
                                   &OnOffAuto_lookup,
                                   guest_memfd_backend_get_huge_pages,
                                   guest_memfd_backend_set_huge_pages);
    object_class_property_set_description(oc, "huge-pages",
        "Have KVM take pages of 2 MiB from the host's memory");
    if (qemu_memfd_check(MFD_HUGETLB)) {
        object_class_property_add_bool(oc, "hugetlb",
                                       guest_memfd_backend_get_hugetlb,
                                       guest_memfd_backend_set_hugetlb);
        object_class_property_set_description(oc, "hugetlb",
            "Use huge pages for the shared half of private memory");
        object_class_property_add(oc, "hugetlbsize", "int",
                                  guest_memfd_backend_get_hugetlbsize,
                                  guest_memfd_backend_set_hugetlbsize,
                                  NULL, NULL);
        object_class_property_set_description(oc, "hugetlbsize",
            "Huge page size (ex: 2M, 1G)");
    }
}

static const TypeInfo guest_memfd_backend_info = {
    .name = TYPE_MEMORY_BACKEND_GUEST_MEMFD,
    .parent = TYPE_MEMORY_BACKEND,
    .instance_init = guest_memfd_backend_instance_init,
    .class_init = guest_memfd_backend_class_init,
    .instance_size = sizeof(HostMemoryBackendGuestMemfd),
};

static void guest_memfd_backend_register_types(void)
{
    type_register_static(&guest_memfd_backend_info);
}

type_init(guest_memfd_backend_register_types);
