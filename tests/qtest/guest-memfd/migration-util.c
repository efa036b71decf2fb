/*
 * Migrations, and memory with contents to be found again
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/migration-util.h"

void migrate_to(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': %s}}", uri);
}

/* The end of a migration's socket that nobody reads. */
static int unread = -1;

void migrate_endless(QTestState *qts)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    unread = fds[0];
    qtest_qmp_fds_assert_success(qts, &fds[1], 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'unread'}}");
    close(fds[1]);
    /* Pages that are not zero */
    qtest_memset(qts, ram_start() + 1 * MiB, 0x5a, 4 * MiB);
    migrate_to(qts, "fd:unread");
    wait_status(qts, "query-migrate", "active");
}

void migrate_cancel(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate_cancel'}");
    wait_status(qts, "query-migrate", "cancelled");
    close(unread);
}

static const struct {
    uint64_t address;           /* in RAM */
    size_t size;
} patterns[] = {
    { 0, 4096 },
    { 0x9fffc, 8 },
    { 1 * MiB, 64 * KiB },
    { 33 * MiB + 4093, 8 },
    { RAM_SIZE - 4096, 4096 },
};

GByteArray *write_patterns(QTestState *qts)
{
    GByteArray *all = g_byte_array_new();
    int i, j;

    for (i = 0; i < ARRAY_SIZE(patterns); i++) {
        size_t at = all->len;

        for (j = 0; j < patterns[i].size; j++) {
            uint8_t byte = g_test_rand_int();

            g_byte_array_append(all, &byte, 1);
        }
        qtest_memwrite(qts, ram_start() + patterns[i].address, all->data + at,
                       patterns[i].size);
    }
    return all;
}

void check_patterns(QTestState *qts, const GByteArray *all)
{
    size_t at = 0;
    int i;

    for (i = 0; i < ARRAY_SIZE(patterns); i++) {
        g_autofree uint8_t *data = g_malloc(patterns[i].size);

        qtest_memread(qts, ram_start() + patterns[i].address, data,
                      patterns[i].size);
        g_assert_cmpmem(data, patterns[i].size, all->data + at,
                        patterns[i].size);
        at += patterns[i].size;
    }
}
