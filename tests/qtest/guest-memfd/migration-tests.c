/*
 * Migration, and those kinds of it that a guest_memfd has to refuse
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/migration-util.h"
#include "guest-memfd/slots-util.h"
#include "guest-memfd/tests.h"

typedef struct Migration {
    const char *name;
    const Machine *machine;
    const char *transport;
    const char *from, *to;      /* types of memory backend */
} Migration;

static const Migration migrations[] = {
    { "unix", &machine_q35, "unix", TYPE, TYPE },
    { "unix-smm", &machine_q35_smm, "unix", TYPE, TYPE },
    { "file", &machine_pc, "file", TYPE, TYPE },
    { "to-memfd", &machine_pc, "unix", TYPE, "memory-backend-memfd" },
    { "from-memfd", &machine_pc, "unix", "memory-backend-memfd", TYPE },
};

static void test_migration(const void *opaque)
{
    const Migration *mig = opaque;
    g_autofree char *args = machine_args(mig->machine);
    g_autofree char *uri = g_strdup_printf("%s:%s/migration", mig->transport,
                                           tmpdir);
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    static const char start_fmt[] =
        "%s -machine memory-backend=ram0 -m 64M -object %s,id=ram0,size=64M %s";
    g_autofree char *from_args = g_strdup_printf(start_fmt, args, mig->from,
                                                 "");
    g_autofree char *to_args = g_strdup_printf(start_fmt, args, mig->to,
                                               "-incoming defer");
    QTestState *from = qtest_init(from_args);
    QTestState *to = NULL;
    GByteArray *data = write_patterns(from);
    bool file = g_str_equal(mig->transport, "file");

    if (!file) {
        to = qtest_init(to_args);
        qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                                 "'arguments': {'uri': %s}}", uri);
    }
    qtest_qmp_assert_success(from, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'max-bandwidth': 0}}");
    migrate_to(from, uri);
    wait_status(from, "query-migrate", "completed");
    if (file) {
        to = qtest_init(to_args);
        qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                                 "'arguments': {'uri': %s}}", uri);
    }
    wait_status(to, "query-migrate", "completed");
    wait_status(to, "query-status", "running");

    check_patterns(to, data);
    if (g_str_equal(mig->to, TYPE)) {
        wait_all_slots(to, "ram0", 0, "bound", false);
    }

    /* The source is still there, and can go on. */
    check_patterns(from, data);
    if (g_str_equal(mig->from, TYPE)) {
        assert_all_slots(from, "ram0", 0, "dirty-log");
        qtest_qmp_assert_success(from, "{'execute': 'cont'}");
        wait_all_slots(from, "ram0", 0, "bound", false);
        check_patterns(from, data);
    }
    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
}

static QDict *set_capability(QTestState *qts, const char *name)
{
    return qtest_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                     "'arguments': {'capabilities': [{'capability': %s, "
                     "'state': true}]}}", name);
}

static void test_postcopy(const void *opaque)
{
    QTestState *from = start_machine(&machine_pc, "");
    QTestState *to = start_machine(&machine_pc, "-incoming defer");
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    GByteArray *data = write_patterns(from);
    QDict *rsp;

    assert_fails(set_capability(to, "postcopy-ram"),
                 "userfaultfd has no support for guest_memfd");

    /* The source cannot know: the other side might have other memory. */
    rsp = set_capability(from, "postcopy-ram");
    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s, "
                             "'exit-on-error': false}}", uri);
    migrate_to(from, uri);
    wait_status(to, "query-migrate", "failed");
    wait_status(from, "query-migrate", "failed");
    wait_status(from, "query-status", "running");
    wait_all_slots(from, "ram0", 0, "bound", false);
    check_patterns(from, data);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
    unlink(path);
}

static void test_cpr(const void *opaque)
{
    QTestState *qts = start_machine(&machine_pc, "-machine aux-ram-share=on");
    static const char expected[] = "is a guest_memfd";

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-transfer'}}");
    assert_fails(qtest_qmp(qts,
        "{'execute': 'migrate', 'arguments': {'channels': ["
        "{'channel-type': 'main', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': '/nonexistent/main'}}, "
        "{'channel-type': 'cpr', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': '/nonexistent/cpr'}}]}}"), expected);

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-exec', "
                             "'cpr-exec-command': ['/bin/false']}}");
    assert_fails(qtest_qmp(qts, "{'execute': 'migrate', 'arguments': "
                           "{'uri': 'file:/dev/null'}}"), expected);

    /* Normal migration works on.  QEMU does not free the command at exit. */
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'normal', "
                             "'cpr-exec-command': []}}");
    migrate_to(qts, "exec:cat >/dev/null");
    wait_status(qts, "query-migrate", "completed");
    qtest_quit(qts);
}

/* Memory that no other process can have would be lost in an exec, unnoticed. */
static void test_cpr_unshared(const void *opaque)
{
    g_autofree char *args = machine_args(opaque);
    QTestState *qts = qtest_initf("%s -m 64M", args);

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-exec', "
                             "'cpr-exec-command': ['/bin/false']}}");
    assert_fails(qtest_qmp(qts, "{'execute': 'migrate', 'arguments': "
                           "{'uri': 'file:/dev/null'}}"),
                 "is not compatible with CPR");
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'cpr-exec-command': []}}");
    qtest_quit(qts);
}

static void test_background_snapshot(const void *opaque)
{
    QTestState *qts = start_machine(&machine_pc, "");

    assert_fails(set_capability(qts, "background-snapshot"),
                 "Background-snapshot is not compatible");
    qtest_quit(qts);
}

void guest_memfd_test_add_migration(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(migrations); i++) {
        if (!is_pc() && migrations[i].machine->smm) {
            continue;
        }
        add_test("migration", migrations[i].name, test_migration,
                 &migrations[i],
                 NEED_GMEM | (migrations[i].machine->smm ? NEED_SMM : 0));
    }
    add_test("migration/postcopy", NULL, test_postcopy, NULL,
             NEED_GMEM | NEED_UFFD);
    add_test("migration/cpr", NULL, test_cpr, NULL, NEED_GMEM);
    add_test("migration/cpr-unshared", NULL, test_cpr_unshared, &machine_pc,
             NEED_KVM);
    add_test("migration/background-snapshot", NULL, test_background_snapshot,
             NULL, NEED_GMEM | NEED_UFFD);
}
