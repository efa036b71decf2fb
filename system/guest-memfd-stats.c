/*
 * Private memory of a VM: its counters for query-stats
 *
 * They are those of query-guest-memfd, for each memory backend that has a
 * guest_memfd; they belong to the VM, and say by QOM path which backend they
 * are of.  There are only those of which the kernel or QEMU keeps count.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/guest-memfd-block.h"
#include "system/stats.h"
#include "guest-memfd-file.h"

/* One of the two getters is there. */
typedef struct GuestMemfdStat {
    const char *name;
    StatsType type;
    bool has_unit;
    StatsUnit unit;
    int exponent;               /* of ten */
    uint64_t (*get)(const GuestMemfdConversion *info);
    uint64_t (*get_of_file)(const GuestMemfdFile *file);
} GuestMemfdStat;

#define STATS_GETTER_OF(argument, field)                                      \
    static uint64_t stats_get_##field(argument)                               \
    {                                                                         \
        return info->field;                                                   \
    }
#define STATS_GETTER(field)                                                   \
    STATS_GETTER_OF(const GuestMemfdConversion *info, field)

STATS_GETTER(q_private)
STATS_GETTER(shared)
STATS_GETTER(to_private)
STATS_GETTER(to_shared)
STATS_GETTER(pages_to_private)
STATS_GETTER(pages_to_shared)
STATS_GETTER(time_ns)
STATS_GETTER_OF(const GuestMemfdFile *info, allocated)
STATS_GETTER_OF(const GuestMemfdFile *info, huge)
STATS_GETTER_OF(const GuestMemfdFile *info, huge_fallbacks)
STATS_GETTER_OF(const GuestMemfdFile *info, splits)

static uint64_t stats_get_failures(const GuestMemfdConversion *info)
{
    const GuestMemfdFailureList *f;
    uint64_t failures = 0;

    for (f = info->failures; f; f = f->next) {
        failures += f->value->count;
    }
    return failures;
}

static const GuestMemfdStat guest_memfd_stats[] = {
    { "private", STATS_TYPE_INSTANT, true, STATS_UNIT_BYTES, 0,
      stats_get_q_private },
    { "shared", STATS_TYPE_INSTANT, true, STATS_UNIT_BYTES, 0,
      stats_get_shared },
    { "to-private", STATS_TYPE_CUMULATIVE, .get = stats_get_to_private },
    { "to-shared", STATS_TYPE_CUMULATIVE, .get = stats_get_to_shared },
    { "pages-to-private", STATS_TYPE_CUMULATIVE,
      .get = stats_get_pages_to_private },
    { "pages-to-shared", STATS_TYPE_CUMULATIVE,
      .get = stats_get_pages_to_shared },
    { "failures", STATS_TYPE_CUMULATIVE, .get = stats_get_failures },
    { "time", STATS_TYPE_CUMULATIVE, true, STATS_UNIT_SECONDS, -9,
      stats_get_time_ns },
    { "allocated", STATS_TYPE_INSTANT, true, STATS_UNIT_BYTES, 0,
      .get_of_file = stats_get_allocated },
    { "huge", STATS_TYPE_INSTANT, true, STATS_UNIT_BYTES, 0,
      .get_of_file = stats_get_huge },
    { "huge-fallbacks", STATS_TYPE_CUMULATIVE,
      .get_of_file = stats_get_huge_fallbacks },
    { "splits", STATS_TYPE_CUMULATIVE, .get_of_file = stats_get_splits },
};

typedef struct GuestMemfdStatsQuery {
    StatsResultList **result;
    strList *names;
} GuestMemfdStatsQuery;

static int stats_query_block(RAMBlock *rb, void *opaque)
{
    GuestMemfdStatsQuery *query = opaque;
    GuestMemfdBlock *block = guest_memfd_of(rb);
    g_autoptr(GuestMemfdConversion) info = NULL;
    g_autofree char *path = NULL;
    GuestMemfdFile file;
    StatsList *list = NULL;
    bool has_file;
    int i;

    if (!block && !(rb->flags & RAM_GUEST_MEMFD_MMAP)) {
        return 0;
    }
    info = block ? guest_memfd_query_conversion(block) : NULL;
    has_file = guest_memfd_file_get(guest_memfd_fd(rb), &file, NULL);
    for (i = ARRAY_SIZE(guest_memfd_stats) - 1; i >= 0; i--) {
        const GuestMemfdStat *stat = &guest_memfd_stats[i];
        Stats *value;

        if (!apply_str_list_filter(stat->name, query->names) ||
            (stat->get ? !info : !has_file)) {
            continue;
        }
        value = g_new0(Stats, 1);
        value->name = g_strdup(stat->name);
        value->value = g_new0(StatsValue, 1);
        value->value->type = QTYPE_QNUM;
        value->value->u.scalar = stat->get ? stat->get(info)
                                           : stat->get_of_file(&file);
        QAPI_LIST_PREPEND(list, value);
    }
    if (list) {
        path = object_get_canonical_path(memory_region_owner(rb->mr));
        add_stats_entry(query->result, STATS_PROVIDER_GUEST_MEMFD, path, list);
    }
    return 0;
}

static void stats_query(StatsResultList **result, StatsTarget target,
                        strList *names, strList *targets, Error **errp)
{
    GuestMemfdStatsQuery query = { .result = result, .names = names };

    if (target == STATS_TARGET_VM) {
        qemu_ram_foreach_block(stats_query_block, &query);
    }
}

static void stats_query_schemas(StatsSchemaList **result, Error **errp)
{
    StatsSchemaValueList *list = NULL;
    int i;

    for (i = ARRAY_SIZE(guest_memfd_stats) - 1; i >= 0; i--) {
        const GuestMemfdStat *stat = &guest_memfd_stats[i];
        StatsSchemaValue *value = g_new0(StatsSchemaValue, 1);

        value->name = g_strdup(stat->name);
        value->type = stat->type;
        value->has_unit = stat->has_unit;
        value->unit = stat->unit;
        value->has_base = stat->exponent;
        value->base = 10;
        value->exponent = stat->exponent;
        QAPI_LIST_PREPEND(list, value);
    }
    add_stats_schema(result, STATS_PROVIDER_GUEST_MEMFD, STATS_TARGET_VM, list);
}

static void stats_register(void)
{
    add_stats_callbacks(STATS_PROVIDER_GUEST_MEMFD, stats_query,
                        stats_query_schemas);
}

type_init(stats_register);
