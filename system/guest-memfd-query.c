/*
 * guest_memfd in QMP and HMP
 *
 * query-guest-memfd and "info guest-memfd" describe all memory backends that
 * have a guest_memfd, of either kind and of any class.  query-guest-memfd also
 * describes the others to those who want to know what a guest costs.
 *
 * To count the pages of a file takes time for each page that there is, unless
 * the kernel has counted them.  So query-guest-memfd does that in a thread, and
 * QEMU goes on meanwhile.  A command of HMP cannot, so "info guest-memfd" looks
 * at a limited number of pages, whatever the size of the memory.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qapi/type-helpers.h"
#include "qapi/util.h"
#include "qemu/coroutine.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"
#include "system/guest-memfd-block.h"
#include "system/hostmem.h"
#include "system/kvm-gmem.h"
#include "system/ram-block-holes.h"
#include "guest-memfd-file.h"

/* The RAM block of a memory backend, unless that is no such or not in use */
static RAMBlock *guest_memfd_query_block(Object *obj)
{
    HostMemoryBackend *backend;

    if (!object_dynamic_cast(obj, TYPE_MEMORY_BACKEND)) {
        return NULL;
    }
    backend = MEMORY_BACKEND(obj);
    if (!host_memory_backend_mr_inited(backend)) {
        return NULL;
    }
    return backend->mr.ram_block;
}

static GuestMemfdFailureList *guest_memfd_query_failures(
    const GuestMemfdStats *stats)
{
    GuestMemfdFailureList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < ARRAY_SIZE(stats->failures); i++) {
        GuestMemfdFailure *failure;

        if (stats->failures[i]) {
            failure = g_new0(GuestMemfdFailure, 1);
            failure->q_errno = i;
            failure->error = g_strdup(strerror(i));
            failure->count = stats->failures[i];
            QAPI_LIST_APPEND(tail, failure);
        }
    }
    return list;
}

GuestMemfdConversion *guest_memfd_query_conversion(GuestMemfdBlock *block)
{
    GuestMemfdConversion *info = g_new0(GuestMemfdConversion, 1);
    const GuestMemfdStats *stats = &block->stats;

    guest_memfd_lock();
    info->q_private = guest_memfd_map_private_size(&block->map);
    info->shared = guest_memfd_map_size(&block->map) - info->q_private;
    info->to_private = stats->conversions[true];
    info->to_shared = stats->conversions[false];
    info->pages_to_private = stats->pages[true];
    info->pages_to_shared = stats->pages[false];
    info->failures = guest_memfd_query_failures(stats);
    info->time_ns = stats->ns;
    guest_memfd_unlock();
    return info;
}

/* All but what is allocated */
static GuestMemfdInfo *guest_memfd_query_info(Object *obj, const RAMBlock *rb)
{
    GuestMemfdBlock *block = guest_memfd_of(rb);
    GuestMemfdInfo *info = g_new0(GuestMemfdInfo, 1);

    info->id = g_strdup(object_get_canonical_path_component(obj));
    info->size = MEMORY_BACKEND(obj)->size;
    if (guest_memfd_fd(rb) < 0) {
        info->mode = GUEST_MEMFD_MODE_NONE;
        return info;
    }
    info->mode = block ? block->ops->mode : GUEST_MEMFD_MODE_SHARED;
    info->conversion = block ? guest_memfd_query_conversion(block) : NULL;
    info->slots = kvm_gmem_query_slots(rb);
    return info;
}

/* query-guest-memfd */

/*
 * What the thread looks at.  It has references of its own: a backend can be
 * deleted meanwhile.
 */
typedef struct GuestMemfdQueryBlock {
    Object *backend;
    int fd;                     /* the guest_memfd, or -1 */
    bool has_other;             /* memory that is not in the guest_memfd */
    int shared_fd;              /* that memory's, or -1 */
    uint64_t shared_offset;
    char *shared;               /* its memory */
    uint64_t size;
} GuestMemfdQueryBlock;

typedef struct GuestMemfdQuery {
    bool all;
    GuestMemfdInfoList *list;
    GuestMemfdInfoList **tail;
    GArray *blocks;             /* of GuestMemfdQueryBlock, as in @list */
} GuestMemfdQuery;

static int guest_memfd_query_object(Object *obj, void *opaque)
{
    GuestMemfdQuery *query = opaque;
    RAMBlock *rb = guest_memfd_query_block(obj);

    if (rb && (query->all || guest_memfd_fd(rb) >= 0)) {
        GuestMemfdQueryBlock b = {
            .backend = object_ref(obj),
            .fd = guest_memfd_fd(rb) >= 0 ? qemu_dup(guest_memfd_fd(rb)) : -1,
            .has_other = !(rb->flags & RAM_GUEST_MEMFD_MMAP),
            .shared_fd = -1,
            .shared_offset = rb->fd_offset,
            .shared = (char *)rb->host,
            .size = rb->used_length,
        };

        if (b.has_other && rb->fd >= 0 && rb->flags & RAM_SHARED) {
            b.shared_fd = qemu_dup(rb->fd);
        }
        g_array_append_val(query->blocks, b);
        QAPI_LIST_APPEND(query->tail, guest_memfd_query_info(obj, rb));
    }
    return 0;
}

/* Returns: pages that the host has for a mapping, or -errno */
static int64_t guest_memfd_count_mapped(char *start, uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    unsigned char resident[4096];
    uint64_t offset, len, i;
    int64_t pages = 0;

    for (offset = 0; offset < size; offset += len) {
        len = MIN(size - offset, sizeof(resident) * page_size);
        if (mincore(start + offset, len, resident)) {
            return -errno;
        }
        for (i = 0; i < DIV_ROUND_UP(len, page_size); i++) {
            pages += resident[i] & 1;
        }
    }
    return pages;
}

static int64_t guest_memfd_count_other(const GuestMemfdQueryBlock *b)
{
    int64_t pages = -ENOSYS;

    if (b->shared_fd >= 0) {
        pages = ram_file_count_pages(b->shared_fd, b->shared_offset, b->size,
                                     false);
    }
    /* A file of the hugetlb pool cannot be asked, nor can one be without. */
    return pages >= 0 ? pages : guest_memfd_count_mapped(b->shared, b->size);
}

static void guest_memfd_query_file(const GuestMemfdQueryBlock *b,
                                   GuestMemfdInfo *info)
{
    GuestMemfdFile file;
    int64_t pages;

    if (guest_memfd_file_get(b->fd, &file, &info->host_nodes)) {
        info->has_host_nodes = true;
        info->has_allocated = true;
        info->allocated = file.allocated;
        if (file.has_huge) {
            info->huge_pages = g_new0(GuestMemfdHugePages, 1);
            info->huge_pages->allocated = file.huge;
            info->huge_pages->fallbacks = file.huge_fallbacks;
            info->huge_pages->splits = file.splits;
        }
    } else {
        pages = ram_file_count_pages(b->fd, 0, 0, false);
        info->has_allocated = pages >= 0;
        info->allocated = MAX(pages, 0) * qemu_real_host_page_size();
    }
}

static void guest_memfd_query_memory(const GuestMemfdQueryBlock *b,
                                     GuestMemfdInfo *info)
{
    int64_t pages = b->has_other ? guest_memfd_count_other(b) : 0;

    if (info->mode != GUEST_MEMFD_MODE_NONE) {
        guest_memfd_query_file(b, info);
    }
    info->has_host_memory = pages >= 0 &&
        (info->has_allocated || info->mode == GUEST_MEMFD_MODE_NONE);
    info->host_memory = info->allocated +
                        MAX(pages, 0) * qemu_real_host_page_size();
}

/* In a thread, without the BQL */
static int guest_memfd_query_files(void *opaque)
{
    GuestMemfdQuery *query = opaque;
    GuestMemfdInfoList *l = query->list;
    int i;

    for (i = 0; i < query->blocks->len; i++, l = l->next) {
        guest_memfd_query_memory(&g_array_index(query->blocks,
                                                GuestMemfdQueryBlock, i),
                                 l->value);
    }
    return 0;
}

static void guest_memfd_query_clear(void *opaque)
{
    GuestMemfdQueryBlock *b = opaque;

    if (b->fd >= 0) {
        close(b->fd);
    }
    if (b->shared_fd >= 0) {
        close(b->shared_fd);
    }
    object_unref(b->backend);
}

GuestMemfdInfoList *coroutine_fn qmp_query_guest_memfd(bool has_all, bool all,
                                                       Error **errp)
{
    GuestMemfdQuery query = {
        .all = all,
        .tail = &query.list,
        .blocks = g_array_new(false, false, sizeof(GuestMemfdQueryBlock)),
    };

    g_array_set_clear_func(query.blocks, guest_memfd_query_clear);
    object_child_foreach(object_get_objects_root(), guest_memfd_query_object,
                         &query);
    thread_pool_submit_co(guest_memfd_query_files, &query);
    g_array_free(query.blocks, true);
    return query.list;
}

/* info guest-memfd */

/* So many lines of its map at most, of 64 chunks each */
#define GUEST_MEMFD_MAP_LINES 16

/*
 * So many pages of a guest_memfd are counted at most, in parts that are looked
 * at one by one.  16 GiB of them take about 20 ms.
 */
#define GUEST_MEMFD_COUNT_PAGES (4 * MiB)
#define GUEST_MEMFD_COUNT_PART (1 * GiB)

/*
 * To see if there is any page in a part of a file, try some by chance before
 * all are counted: where many are, one is found at once, wherever the guest
 * has them; where few are, there is not much to count.
 */
#define GUEST_MEMFD_TRIES 8

/* Of memory without such a file, look at so many pages: in as many pieces */
#define GUEST_MEMFD_SAMPLE_PAGES 4096

static bool guest_memfd_file_has(int fd, uint64_t offset, uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    int i;

    for (i = 0; i < GUEST_MEMFD_TRIES; i++) {
        uint64_t page = g_random_double() * (size / page_size);

        if (ram_file_count_pages(fd, offset + page * page_size, page_size,
                                 false) > 0) {
            return true;
        }
    }
    return ram_file_count_pages(fd, offset, size, false) > 0;
}

static bool guest_memfd_mapping_has(const RAMBlock *rb, uint64_t offset,
                                    uint64_t size)
{
    const uint64_t page_size = qemu_real_host_page_size();
    const uint64_t sample = GUEST_MEMFD_SAMPLE_PAGES / GUEST_MEMFD_TRIES *
                            page_size;
    const uint64_t piece = size / GUEST_MEMFD_TRIES;
    g_autofree unsigned char *resident =
        g_malloc(GUEST_MEMFD_SAMPLE_PAGES);
    uint64_t pages = size / page_size, i;
    int n, pieces = 1;

    if (pages > GUEST_MEMFD_SAMPLE_PAGES) {
        pages = sample / page_size;
        pieces = GUEST_MEMFD_TRIES;
    }
    for (n = 0; n < pieces; n++) {
        if (mincore(rb->host + offset + n * QEMU_ALIGN_DOWN(piece, page_size),
                    pages * page_size, resident)) {
            return true;
        }
        for (i = 0; i < pages; i++) {
            if (resident[i] & 1) {
                return true;
            }
        }
    }
    return false;
}

/* Does the host have memory for shared pages of a part of a RAM block? */
static bool guest_memfd_shared_has(const RAMBlock *rb, uint64_t offset,
                                   uint64_t size)
{
    /* A file of huge pages cannot be asked. */
    if (rb->fd >= 0 && rb->flags & RAM_SHARED &&
        ram_file_count_pages(rb->fd, rb->fd_offset + offset, 1, false) >= 0) {
        return guest_memfd_file_has(rb->fd, rb->fd_offset + offset, size);
    }
    return guest_memfd_mapping_has(rb, offset, size);
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
    allocated = private < size && guest_memfd_shared_has(rb, offset, size);
    if (private && !allocated) {
        allocated = guest_memfd_file_has(guest_memfd_fd(rb), offset, size);
    }
    if (!allocated) {
        return '.';
    }
    if (guest_memfd_file_is_huge(guest_memfd_fd(rb), offset, size)) {
        return 'H';
    }
    if (!private) {
        return 's';
    }
    return private == size ? 'P' : 'm';
}

static void guest_memfd_print_map(GString *buf, const RAMBlock *rb)
{
    const uint64_t size = rb->used_length;
    const uint64_t chunk = MAX(qemu_real_host_page_size(),
                               pow2ceil(DIV_ROUND_UP(size,
                                        GUEST_MEMFD_MAP_LINES * 64)));
    g_autofree char *chunk_size = size_to_str(chunk);
    uint64_t offset;
    int i;

    g_string_append_printf(buf, "  map, %s a character (s: shared, P: private, "
                           "m: mixed, H: in huge pages, .: no memory taken)\n",
                           chunk_size);
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

/* How much memory a guest_memfd has, for humans */
static char *guest_memfd_count(int fd, uint64_t size)
{
    int64_t pages = 0, part;
    uint64_t offset;
    g_autofree char *str = NULL;
    GuestMemfdFile file;

    if (guest_memfd_file_get(fd, &file, NULL)) {
        g_autofree char *allocated = size_to_str(file.allocated);
        g_autofree char *huge = size_to_str(file.huge);

        return file.has_huge
               ? g_strdup_printf("%s (%s in huge pages)", allocated, huge)
               : g_steal_pointer(&allocated);
    }
    for (offset = 0; offset < size && pages < GUEST_MEMFD_COUNT_PAGES;
         offset += GUEST_MEMFD_COUNT_PART) {
        part = ram_file_count_pages(fd, offset, GUEST_MEMFD_COUNT_PART, false);
        if (part < 0) {
            return g_strdup("?");
        }
        pages += part;
    }
    str = size_to_str(pages * qemu_real_host_page_size());
    return g_strdup_printf("%s%s", offset < size ? "at least " : "", str);
}

static int guest_memfd_print(Object *obj, void *opaque)
{
    GString *buf = opaque;
    RAMBlock *rb = guest_memfd_query_block(obj);
    g_autoptr(GuestMemfdInfo) info = NULL;
    g_autofree char *size = NULL;
    g_autofree char *has = NULL;
    GuestMemfdSlotList *s;
    int slots = 0, bound = 0;

    if (!rb || guest_memfd_fd(rb) < 0) {
        return 0;
    }
    info = guest_memfd_query_info(obj, rb);
    size = size_to_str(info->size);
    has = guest_memfd_count(guest_memfd_fd(rb), rb->used_length);
    for (s = info->slots; s; s = s->next) {
        slots++;
        bound += s->value->binding == GUEST_MEMFD_BINDING_BOUND;
    }
    g_string_append_printf(buf, "%s: %s, %s, guest_memfd has %s, %d of %d "
                           "memory slots bound\n", info->id,
                           GuestMemfdMode_str(info->mode), size, has, bound,
                           slots);
    if (info->conversion) {
        guest_memfd_print_conversion(buf, info->conversion);
    }
    guest_memfd_print_map(buf, rb);
    return 0;
}

HumanReadableText *qmp_x_query_guest_memfd(Error **errp)
{
    g_autoptr(GString) buf = g_string_new("");

    object_child_foreach(object_get_objects_root(), guest_memfd_print, buf);
    return human_readable_text_from_str(buf);
}
