/*
 * Memory that the guest has not touched: migrations and dumps leave it without
 * host memory
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/migration-util.h"
#include "guest-memfd/tests.h"

/* Bytes of host memory that ram0 has */
static uint64_t ram_allocated(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    QDict *info = query_by_id(qts, "query-guest-memfd", "ram0");
    uint64_t size = info ? qdict_get_int(info, "allocated") : 0;
    const char *name;

    qobject_unref(info);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_strdup_printf("%s/%s", path, name);
        g_autofree char *to = g_file_read_link(link, NULL);
        struct stat st;

        if (to && g_str_has_prefix(to, "/memfd:memory-backend-") &&
            !stat(link, &st)) {
            size += st.st_blocks * 512;
        }
    }
    g_assert_cmpuint(size, >, 0);
    return size;
}

static void assert_untouched(QTestState *qts, uint64_t before)
{
    g_assert_cmpuint(ram_allocated(qts) * 100, <=, before * 105);
}

typedef struct Untouched {
    const char *name;
    const char *backend;
    const char *capabilities[3];        /* of the migration */
    const char *detection;              /* of zero pages */
    bool protected;                     /* shared memory is a memfd */
} Untouched;

static const Untouched untouched_dumps[] = {
    { "guest-memfd", TYPE },
    { "memfd", TYPE_MEMFD },
    { "protected", TYPE, .protected = true },
};

static const Untouched untouched_migrations[] = {
    { "guest-memfd/precopy", TYPE },
    { "guest-memfd/multifd", TYPE, { "multifd" } },
    { "guest-memfd/multifd-legacy", TYPE, { "multifd" }, "legacy" },
    { "guest-memfd/mapped-ram", TYPE, { "mapped-ram" } },
    { "protected/precopy", TYPE, .protected = true },
    { "memfd/precopy", TYPE_MEMFD },
    { "memfd/multifd", TYPE_MEMFD, { "multifd" } },
};

static QTestState *start_untouched(const Untouched *u, const char *extra)
{
    /* memfd takes any accelerator. */
    return qtest_initf("-accel kvm -accel tcg -nodefaults -bios %s "
                       "-machine %s -machine memory-backend=ram0%s -m 64M "
                       "-object %s,id=ram0,size=64M %s", bios,
                       is_pc() ? "pc" : "virt,gic-version=host -cpu host",
                       u->protected ?
                       ",confidential-guest-support=cgs0 "
                       "-object sw-protected-guest,id=cgs0" : "", u->backend,
                       extra);
}

static unsigned need_of_untouched(const Untouched *u)
{
    return NEED_CACHESTAT | (u->protected ? NEED_PROTECTED :
                             g_str_equal(u->backend, TYPE) ? NEED_GMEM : 0);
}

/* Where pairs of pages are, with holes around them; the patterns besides */
#define SPARSE_FIRST (ram_start() + 4 * MiB)
#define SPARSE_END (ram_start() + 28 * MiB)
#define SPARSE_STEP (252 * KiB)

static GByteArray *write_sparsely(QTestState *qts)
{
    uint64_t at;

    for (at = SPARSE_FIRST; at < SPARSE_END; at += SPARSE_STEP) {
        qtest_memset(qts, at, 0x5a, 2 * 4096);
    }
    return write_patterns(qts);
}

static void check_sparsely(QTestState *qts, const GByteArray *data)
{
    uint8_t memory[4 * 4096];
    uint64_t at;
    int i;

    for (at = SPARSE_FIRST; at < SPARSE_END; at += SPARSE_STEP) {
        qtest_bufread(qts, at - 4096, memory, sizeof(memory));
        for (i = 0; i < sizeof(memory); i++) {
            g_assert_cmphex(memory[i], ==,
                            i >= 4096 && i < 3 * 4096 ? 0x5a : 0);
        }
    }
    check_patterns(qts, data);
}

static void set_capabilities(QTestState *qts, const Untouched *u)
{
    int i;

    for (i = 0; u->capabilities[i]; i++) {
        qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-capabilities', "
                                 "'arguments': {'capabilities': ["
                                 "{'capability': %s, 'state': true}]}}",
                                 u->capabilities[i]);
    }
}

static void test_untouched_migration(const void *opaque)
{
    const Untouched *u = opaque;
    bool file = !g_strcmp0(u->capabilities[0], "mapped-ram");
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    g_autofree char *uri = g_strdup_printf("%s:%s", file ? "file" : "unix",
                                           path);
    QTestState *from = start_untouched(u, ""), *to;
    GByteArray *data = write_sparsely(from);
    uint64_t before = ram_allocated(from), arrived;

    set_capabilities(from, u);
    qtest_qmp_assert_success(from, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'max-bandwidth': 0, "
                             "'zero-page-detection': %s}}",
                             u->detection ?: "multifd");
    if (file) {
        migrate_to(from, uri);
        wait_status(from, "query-migrate", "completed");
    }
    to = start_untouched(u, "-incoming defer");
    set_capabilities(to, u);
    qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", uri);
    if (!file) {
        migrate_to(from, uri);
        wait_status(from, "query-migrate", "completed");
    }
    wait_status(to, "query-migrate", "completed");
    wait_status(to, "query-status", "running");

    assert_untouched(from, before);
    assert_untouched(to, before);
    arrived = ram_allocated(to);
    check_sparsely(to, data);
    /* That has read holes: they are gone. */
    g_assert_cmpuint(ram_allocated(to) * 100, >, arrived * 105);

    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
}

static void test_untouched_dump(const void *opaque)
{
    static const char *const formats[] = { "elf", "kdump-zlib" };
    const Untouched *u = opaque;
    QTestState *qts = start_untouched(u, "");
    GByteArray *data = write_sparsely(qts);
    uint64_t before = ram_allocated(qts);
    g_autofree char *path = g_strdup_printf("%s/dump", tmpdir);
    g_autofree char *protocol = g_strdup_printf("file:%s", path);
    const uint64_t saved = ram_start() + MiB + 1, size = RAM_SIZE - MiB - 1;
    g_autofree char *memory = NULL;
    gsize len;
    int i;

    for (i = 0; i < ARRAY_SIZE(formats); i++) {
        qtest_qmp_assert_success(qts, "{'execute': 'dump-guest-memory', "
                                 "'arguments': {'paging': false, "
                                 "'protocol': %s, 'format': %s}}",
                                 protocol, formats[i]);
        assert_untouched(qts, before);
    }
    qtest_qmp_assert_success(qts, "{'execute': 'pmemsave', 'arguments': "
                             "{'val': %" PRIu64 ", 'size': %" PRIu64 ", "
                             "'filename': %s}}", saved, size, path);
    assert_untouched(qts, before);
    g_assert(g_file_get_contents(path, &memory, &len, NULL));
    g_assert_cmpuint(len, ==, size);
    for (i = 0; i < 2 * 4096; i++) {
        g_assert_cmphex(memory[SPARSE_FIRST - 4096 - saved + i], ==,
                        i < 4096 ? 0 : 0x5a);
    }
    check_sparsely(qts, data);
    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(qts);
}

void guest_memfd_test_add_untouched(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(untouched_migrations); i++) {
        const Untouched *u = &untouched_migrations[i];

        add_test("untouched/migration", u->name, test_untouched_migration, u,
                 need_of_untouched(u));
    }
    for (i = 0; i < ARRAY_SIZE(untouched_dumps); i++) {
        const Untouched *u = &untouched_dumps[i];

        add_test("untouched/dump", u->name, test_untouched_dump, u,
                 need_of_untouched(u));
    }
}
