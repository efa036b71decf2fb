/*
 * QEMU host memory backend: guest RAM in KVM's guest_memfd
 *
 * HostMemoryBackendGuestMemfd is a HostMemoryBackend with one RAM block.
 *
 * In a plain VM the block is a guest_memfd, created by accel/kvm/kvm-gmem.c and
 * mapped shared, so that QEMU, its devices and vhost-user processes reach the
 * same pages that KVM maps into the guest through the file.  In a VM with
 * private memory it is split: a memfd for shared pages and a guest_memfd,
 * which QEMU cannot map, for private ones (system/guest-memfd.h).
 *
 * The object adds no property: it is the common ones that work or are refused
 * here, when it is created.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "hw/boards.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qapi/type-helpers.h"
#include "qapi/util.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qom/object.h"
#include "qom/object_interfaces.h"
#include "system/guest-memfd.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/kvm_gmem.h"
#include "trace.h"

#ifdef CONFIG_NUMA
#include <numaif.h>
#endif

/* cachestat(2), since Linux 6.5: asm-generic/unistd.h and linux/mman.h */
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
struct guest_memfd_cachestat_range {
    uint64_t off;
    uint64_t len;
};
struct guest_memfd_cachestat {
    uint64_t nr_cache;
    uint64_t nr_dirty;
    uint64_t nr_writeback;
    uint64_t nr_evicted;
    uint64_t nr_recently_evicted;
};

#define TYPE_MEMORY_BACKEND_GUEST_MEMFD "memory-backend-guest-memfd"

OBJECT_DECLARE_SIMPLE_TYPE(HostMemoryBackendGuestMemfd,
                           MEMORY_BACKEND_GUEST_MEMFD)

struct HostMemoryBackendGuestMemfd {
    HostMemoryBackend parent_obj;

    /* Of the shared half; guest_memfd has no huge pages. */
    bool hugetlb;
    uint64_t hugetlbsize;       /* 0: the host's default */
};

#ifdef CONFIG_NUMA
/*
 * Does the kernel honour an mbind() of this file?  Before Linux 6.19, mbind()
 * of a guest_memfd mapping succeeds, but the policy stays with the mapping
 * and pages are allocated without it.  Where it belongs to the file, another
 * mapping reports it.
 *
 * True as well where mbind() fails: the caller's own mbind() says why.
 */
static bool guest_memfd_honours_policy(HostMemoryBackend *backend, int fd)
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
 * guest_memfd pages can be neither swapped out nor reclaimed: the allocation
 * would not fail, it would have the kernel kill processes.
 */
static bool guest_memfd_backend_check_prealloc(HostMemoryBackend *backend,
                                               Error **errp)
{
    const uint64_t host_size = qemu_get_host_physmem();

    if (host_size && backend->size > host_size) {
        g_autofree char *want = size_to_str(backend->size);
        g_autofree char *have = size_to_str(host_size);

        error_setg(errp, "property 'prealloc' is on and 'size' is %s, but the "
                   "host has %s of memory: make 'size' smaller or set "
                   "prealloc=off", want, have);
        return false;
    }
    return true;
}

static bool guest_memfd_backend_check_size(HostMemoryBackend *backend,
                                           Error **errp)
{
    const size_t page_size = qemu_real_host_page_size();

    if (!backend->size) {
        error_setg(errp, "property 'size' is missing: give the size of the "
                   "memory, as in size=4G");
        return false;
    }
    if (!QEMU_IS_ALIGNED(backend->size, page_size)) {
        error_setg(errp, "property 'size' is %" PRIu64 ", which is not a "
                   "multiple of the host's page size: make it a multiple of "
                   "%zu", backend->size, page_size);
        return false;
    }
    return !backend->prealloc ||
           guest_memfd_backend_check_prealloc(backend, errp);
}

/* A memfd for the shared half; physmem.c adds the private one. */
static bool guest_memfd_backend_alloc_split(HostMemoryBackend *backend,
                                            Error **errp)
{
    ERRP_GUARD();
    HostMemoryBackendGuestMemfd *m = MEMORY_BACKEND_GUEST_MEMFD(backend);
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_SHARED | RAM_GUEST_MEMFD |
                         (backend->reserve ? 0 : RAM_NORESERVE);
    int fd;

    if (!guest_memfd_required(current_machine)) {
        error_setg(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD " has nothing to keep "
                   "in a guest_memfd with '-machine confidential-guest-support' "
                   "of type %s: use memory-backend-memfd",
                   object_get_typename(OBJECT(current_machine->cgs)));
        return false;
    }
    if (!bitmap_empty(backend->host_nodes, MAX_NODES)) {
        error_setg(errp, "properties 'policy' and 'host-nodes' have no effect "
                   "on private memory: KVM allocates it by no policy; leave "
                   "them out");
        return false;
    }
    fd = qemu_memfd_create(TYPE_MEMORY_BACKEND_GUEST_MEMFD, backend->size,
                           m->hugetlb, m->hugetlbsize,
                           F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, errp);
    if (fd < 0) {
        if (m->hugetlb) {
            error_prepend(errp, "property 'hugetlb' is on: 'hugetlbsize' must "
                          "be one that the host has, and 'size' a multiple of "
                          "it: ");
        }
        return false;
    }
    if (!memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, ram_flags, fd, 0,
                                        errp)) {
        if (m->hugetlb) {
            error_prepend(errp, "property 'hugetlb' is on: the host must have "
                          "free huge pages for 'size' %" PRIu64 ": ",
                          backend->size);
        }
        close(fd);
        return false;
    }
    return true;
}

static bool guest_memfd_backend_alloc(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_SHARED | RAM_GUEST_MEMFD_MMAP;
    int fd;

    if (!kvm_enabled()) {
        error_setg(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD " needs KVM: start "
                   "QEMU with '-accel kvm', or use memory-backend-memfd with "
                   "other accelerators");
        return false;
    }
    if (!backend->share) {
        error_setg(errp, "property 'share' is off, but a guest_memfd is always "
                   "shared with KVM: set share=on or leave it out");
        return false;
    }
    if (!guest_memfd_backend_check_size(backend, errp)) {
        return false;
    }
    if (current_machine->cgs) {
        return guest_memfd_backend_alloc_split(backend, errp);
    }
    if (MEMORY_BACKEND_GUEST_MEMFD(backend)->hugetlb) {
        error_setg(errp, "property 'hugetlb' is on, but KVM has no huge pages "
                   "for a guest_memfd: set hugetlb=off, or use "
                   "memory-backend-memfd");
        return false;
    }

    fd = kvm_gmem_create_mmap(backend->size, errp);
    if (fd < 0) {
        error_prepend(errp, TYPE_MEMORY_BACKEND_GUEST_MEMFD ": ");
        return false;
    }

#ifdef CONFIG_NUMA
    if (backend->policy != HOST_MEM_POLICY_DEFAULT &&
        !bitmap_empty(backend->host_nodes, MAX_NODES) &&
        !guest_memfd_honours_policy(backend, fd)) {
        error_setg(errp, "properties 'policy' and 'host-nodes' have no effect "
                   "on a guest_memfd of this host's kernel: it takes Linux "
                   "6.19 or newer; leave them out or use "
                   "memory-backend-memfd");
        close(fd);
        return false;
    }
#endif

    ram_flags |= backend->reserve ? 0 : RAM_NORESERVE;
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

/*
 * Bytes that a part of a file holds, @size 0: to its end; or -1.  guest_memfd
 * does not maintain st_blocks, and SEEK_DATA is not offered; the page cache is
 * the file's only storage.
 */
static int64_t guest_memfd_allocated(int fd, uint64_t offset, uint64_t size)
{
    struct guest_memfd_cachestat_range range = { offset, size };
    struct guest_memfd_cachestat stat;

    if (syscall(__NR_cachestat, fd, &range, &stat, 0)) {
        return -1;
    }
    return stat.nr_cache * qemu_real_host_page_size();
}

/* Does the host have memory for a part of a RAM block that QEMU has mapped? */
static bool guest_memfd_mapping_allocated(const RAMBlock *rb, uint64_t offset,
                                          uint64_t size)
{
    const uint64_t pages = size / qemu_real_host_page_size();
    g_autofree unsigned char *resident = g_malloc(pages);
    uint64_t i;

    if (mincore(rb->host + offset, size, resident)) {
        return true;
    }
    for (i = 0; i < pages && !(resident[i] & 1); i++) {
        continue;
    }
    return i < pages;
}

static char guest_memfd_map_char(const RAMBlock *rb, uint64_t offset,
                                 uint64_t size)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    uint64_t private = 0, from = offset, run;
    bool allocated;

    if (block) {
        guest_memfd_lock();
        for (; (run = guest_memfd_map_next_run(&block->map, &from,
                                               offset + size, true));
             from += run) {
            private += run;
        }
        guest_memfd_unlock();
    }
    allocated = private < size && guest_memfd_mapping_allocated(rb, offset,
                                                                size);
    if (private && !allocated) {
        allocated = guest_memfd_allocated(rb->guest_memfd, offset, size);
    }
    return !allocated ? '.' : !private ? 's' : private == size ? 'P' : 'm';
}

/* So many lines at most, of 64 chunks each */
#define GUEST_MEMFD_MAP_LINES 16

static void guest_memfd_print_map(GString *buf, const RAMBlock *rb)
{
    const uint64_t size = rb->used_length;
    const uint64_t chunk = MAX(qemu_real_host_page_size(),
                               pow2ceil(size / (GUEST_MEMFD_MAP_LINES * 64)));
    g_autofree char *chunk_size = size_to_str(chunk);
    uint64_t offset;
    int i;

    g_string_append_printf(buf, "  map, %s a character (s: shared, P: private, "
                           "m: mixed, .: no memory taken)\n", chunk_size);
    for (offset = 0; offset < size; ) {
        g_string_append_printf(buf, "  %012" PRIx64 " ", offset);
        for (i = 0; i < 64 && offset < size; i++, offset += chunk) {
            g_string_append_c(buf, guest_memfd_map_char(
                                  rb, offset, MIN(chunk, size - offset)));
        }
        g_string_append_c(buf, '\n');
    }
}

static void guest_memfd_print_conversion(GString *buf,
                                         const GuestMemfdConversion *c)
{
    g_autofree char *private = size_to_str(c->q_private);
    g_autofree char *shared = size_to_str(c->shared);
    GuestMemfdFailureList *f;

    g_string_append_printf(buf, "  private %s, shared %s\n", private, shared);
    g_string_append_printf(buf, "  conversions: %" PRIu64 " to private (%"
                           PRIu64 " pages), %" PRIu64 " to shared (%" PRIu64
                           " pages), %" PRIu64 " us\n",
                           c->to_private, c->pages_to_private, c->to_shared,
                           c->pages_to_shared, c->time_ns / SCALE_US);
    for (f = c->failures; f; f = f->next) {
        g_string_append_printf(buf, "  failed: %" PRIu64 " (%s)\n",
                               f->value->count, f->value->error);
    }
}

HumanReadableText *qmp_x_query_guest_memfd(Error **errp)
{
    GuestMemfdInfoList *list = qmp_query_guest_memfd(errp), *l;
    g_autoptr(GString) buf = g_string_new("");

    for (l = list; l; l = l->next) {
        GuestMemfdInfo *info = l->value;
        Object *obj = object_resolve_path_component(object_get_objects_root(),
                                                    info->id);
        g_autofree char *size = size_to_str(info->size);
        g_autofree char *allocated = size_to_str(info->allocated);
        GuestMemfdSlotList *s;
        int slots = 0, bound = 0;

        for (s = info->slots; s; s = s->next) {
            slots++;
            bound += s->value->binding == GUEST_MEMFD_BINDING_BOUND;
        }
        g_string_append_printf(buf, "%s: %s, %s, guest_memfd has %s, %d of %d "
                               "memory slots bound\n", info->id,
                               GuestMemfdMode_str(info->mode), size,
                               info->has_allocated ? allocated : "?", bound,
                               slots);
        if (info->conversion) {
            guest_memfd_print_conversion(buf, info->conversion);
        }
        guest_memfd_print_map(buf, MEMORY_BACKEND(obj)->mr.ram_block);
    }
    qapi_free_GuestMemfdInfoList(list);
    return human_readable_text_from_str(buf);
}

static int guest_memfd_query(Object *obj, void *opaque)
{
    GuestMemfdInfoList ***tail = opaque;
    HostMemoryBackend *backend;
    GuestMemfdBlock *block;
    GuestMemfdInfo *info;
    int64_t allocated;
    RAMBlock *rb;

    if (!object_dynamic_cast(obj, TYPE_MEMORY_BACKEND)) {
        return 0;
    }
    backend = MEMORY_BACKEND(obj);
    if (!host_memory_backend_mr_inited(backend)) {
        return 0;
    }
    rb = backend->mr.ram_block;
    block = guest_memfd_of(rb);
    if (!block && !(rb->flags & RAM_GUEST_MEMFD_MMAP)) {
        return 0;
    }
    allocated = guest_memfd_allocated(block ? rb->guest_memfd : rb->fd, 0, 0);

    info = g_new0(GuestMemfdInfo, 1);
    info->id = g_strdup(object_get_canonical_path_component(obj));
    info->mode = block ? GUEST_MEMFD_MODE_SPLIT : GUEST_MEMFD_MODE_SHARED;
    info->size = backend->size;
    info->conversion = block ? guest_memfd_query_conversion(block) : NULL;
    info->has_allocated = allocated >= 0;
    info->allocated = MAX(allocated, 0);
    info->slots = kvm_gmem_query_slots(rb);
    QAPI_LIST_APPEND(*tail, info);
    return 0;
}

GuestMemfdInfoList *qmp_query_guest_memfd(Error **errp)
{
    GuestMemfdInfoList *list = NULL, **tail = &list;

    object_child_foreach(object_get_objects_root(), guest_memfd_query, &tail);
    return list;
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

static void guest_memfd_backend_instance_init(Object *obj)
{
    HostMemoryBackend *backend = MEMORY_BACKEND(obj);

    backend->share = true;
    /* Not even tried, although 'mem-merge' of -machine is on by default. */
    backend->merge = false;
}

static void guest_memfd_backend_class_init(ObjectClass *oc, const void *data)
{
    HostMemoryBackendClass *bc = MEMORY_BACKEND_CLASS(oc);

    bc->alloc = guest_memfd_backend_alloc;
    bc->no_merge = "KSM cannot merge the pages of a guest_memfd; set "
                   "merge=off or leave it out";
    bc->check_prealloc = guest_memfd_backend_check_prealloc;
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

static void register_types(void)
{
    type_register_static(&guest_memfd_backend_info);
}

type_init(register_types);
