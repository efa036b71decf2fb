/*
 * The backend: its properties, what it refuses, and what queries tell of it
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/utsname.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qobject/qbool.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/slots-util.h"
#include "guest-memfd/tests.h"

static void test_object(const void *opaque)
{
    QTestState *qts = start_machine(&machine_pc, "");
    QDict *info;
    int fds = count_fds(qts);

    object_add_ok(qts, "m", "{'size': 2097152}");
    g_assert_cmpint(count_fds(qts), ==, fds + 1);

    info = query_by_id(qts, "query-memdev", "m");
    g_assert_nonnull(info);
    g_assert_cmpint(qdict_get_int(info, "size"), ==, 2 * MiB);
    g_assert_true(qdict_get_bool(info, "share"));
    g_assert_false(qdict_get_bool(info, "merge"));
    g_assert_false(qdict_get_bool(info, "prealloc"));
    qobject_unref(info);

    info = query_by_id(qts, "query-guest-memfd", "m");
    g_assert_nonnull(info);
    g_assert_cmpint(qdict_get_int(info, "size"), ==, 2 * MiB);
    g_assert_true(qlist_empty(qdict_get_qlist(info, "slots")));
    qobject_unref(info);

    object_del_ok(qts, "m");
    g_assert_null(query_by_id(qts, "query-memdev", "m"));
    g_assert_null(query_by_id(qts, "query-guest-memfd", "m"));
    assert_fds(qts, fds);

    /* The one of the command line is the machine's. */
    assert_all_slots(qts, "ram0", 0, "bound");
    assert_fails(object_del(qts, "ram0"), "is in use");
    assert_all_slots(qts, "ram0", 0, "bound");
    qtest_quit(qts);
}

static void test_properties(const void *opaque)
{
    static const struct {
        const char *props, *name;
        bool value;
        int64_t allocated;
    } cases[] = {
        { "'share': true", "share", true },
        { "'merge': false", "merge", false },
        { "'dump': false", "dump", false },
        { "'dump': true", "dump", true },
        { "'reserve': false", "reserve", false },
        { "'reserve': true", "reserve", true },
        { "'prealloc': false", "prealloc", false },
        { "'prealloc': true", "prealloc", true, 2 * MiB },
        { "'prealloc': true, 'prealloc-threads': 4", "prealloc", true,
          2 * MiB },
    };
    QTestState *qts = start_machine(&machine_q35, "");
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *props = g_strdup_printf("{'size': 2097152, %s}",
                                                 cases[i].props);
        QDict *info;

        g_test_message("%s", props);
        object_add_ok(qts, "m", props);
        info = query_by_id(qts, "query-memdev", "m");
        g_assert_cmpint(qdict_get_bool(info, cases[i].name), ==,
                        cases[i].value);
        qobject_unref(info);
        assert_allocated(qts, "m", cases[i].allocated);
        object_del_ok(qts, "m");
    }

    object_add_ok(qts, "m", "{'size': 2097152}");
    assert_allocated(qts, "m", 0);
    qtest_qom_set_bool(qts, "/objects/m", "prealloc", true);
    assert_allocated(qts, "m", 2 * MiB);
    object_del_ok(qts, "m");
    qtest_quit(qts);
}

/* The policy of a guest_memfd is heeded since Linux 6.19. */
static bool kernel_heeds_policy(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    g_assert_cmpint(uname(&name), ==, 0);
    g_assert_cmpint(sscanf(name.release, "%d.%d", &major, &minor), ==, 2);
    return major > 6 || (major == 6 && minor >= 19);
}

/* Pages of guest_memfd mappings on a host node, as the kernel counts them */
static uint64_t pages_on_node(QTestState *qts, int node)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/numa_maps",
                                            qtest_pid(qts));
    g_autofree char *key = g_strdup_printf(" N%d=", node);
    g_autofree char *maps = NULL;
    g_auto(GStrv) lines = NULL;
    uint64_t pages = 0;
    int i;

    g_assert_true(g_file_get_contents(path, &maps, NULL, NULL));
    lines = g_strsplit(maps, "\n", 0);
    for (i = 0; lines[i]; i++) {
        const char *n = strstr(lines[i], key);

        if (n && strstr(lines[i], "[kvm-gmem]")) {
            pages += g_ascii_strtoull(n + strlen(key), NULL, 10);
        }
    }
    return pages;
}

static void test_policy(const void *opaque)
{
    static const char props[] =
        "{'size': 2097152, 'policy': 'bind', 'host-nodes': [%d], "
        "'prealloc': true}";
    QTestState *qts = start_machine(&machine_pc, "");
    int last = opaque ? 1 : 0, node, fds = count_fds(qts);

    for (node = 0; node <= last; node++) {
        g_autofree char *with_node = g_strdup_printf(props, node);
        /* Some machines write to RAM before the guest runs. */
        uint64_t before = pages_on_node(qts, node);
        uint64_t before_other = pages_on_node(qts, !node);
        QDict *info;
        QList *nodes;

        if (!kernel_heeds_policy()) {
            assert_fails(object_add(qts, "m", with_node), "Linux 6.19");
            continue;
        }
        object_add_ok(qts, "m", with_node);
        info = query_by_id(qts, "query-memdev", "m");
        g_assert_cmpstr(qdict_get_str(info, "policy"), ==, "bind");
        nodes = qdict_get_qlist(info, "host-nodes");
        g_assert_cmpint(qlist_size(nodes), ==, 1);
        g_assert_cmpint(qnum_get_int(qobject_to(QNum, qlist_peek(nodes))), ==,
                        node);
        qobject_unref(info);
        g_assert_cmpint(pages_on_node(qts, node) - before, ==, 2 * MiB / 4096);
        g_assert_cmpint(pages_on_node(qts, !node), ==, before_other);
        object_del_ok(qts, "m");
        /* RCU unmaps the memory, and then closes its file. */
        assert_fds(qts, fds);
    }
    qtest_quit(qts);
}

static void test_numa(const void *opaque)
{
    const Machine *m = opaque;
    g_autofree char *args = machine_args(m);
    const uint64_t border = ram_start() + 24 * MiB;
    QTestState *qts;

    qts = qtest_initf("%s -m 64M -smp 2 "
                      "-object " TYPE ",id=n0,size=24M "
                      "-object " TYPE ",id=n1,size=40M "
                      "-numa node,memdev=n0,cpus=0 "
                      "-numa node,memdev=n1,cpus=1", args);
    assert_all_slots(qts, "n0", 0, "bound");
    assert_all_slots(qts, "n1", 0, "bound");
    g_assert_cmpstr(binding_at(qts, "n0", 0, border - 1), ==, "bound");
    g_assert_null(binding_at(qts, "n0", 0, border));
    g_assert_cmpstr(binding_at(qts, "n1", 0, border), ==, "bound");
    assert_fails(object_del(qts, "n1"), "is in use");
    qtest_writeq(qts, border - 4, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, border - 4), ==, 0x1122334455667788);
    qtest_quit(qts);
}

/* Refusals */

typedef struct Refusal {
    const char *name;
    const char *props;          /* JSON */
    const char *expected;
} Refusal;

static const Refusal refusals[] = {
    { "share", "{'size': 1048576, 'share': false}", "always shared with KVM" },
    { "merge", "{'size': 1048576, 'merge': true}", "cannot merge" },
    { "no-size", "{}", "'size'" },
    { "size-0", "{'size': 0}", "size" },
    { "unaligned", "{'size': 1048577}", "multiple of 4096" },
    { "too-much", "{'size': 1125899906842624, 'prealloc': true}",
      "but the host has" },
    { "nodes", "{'size': 1048576, 'host-nodes': [0]}", "host-nodes" },
    { "policy", "{'size': 1048576, 'policy': 'bind'}", "host-nodes" },
};

/* JSON to what a user types: "a=1,b=on" */
static char *props_to_option(const char *json)
{
    QDict *props = qobject_to(QDict, qobject_from_json(json, &error_abort));
    GString *s = g_string_new(TYPE ",id=m");
    const QDictEntry *e;

    for (e = qdict_first(props); e; e = qdict_next(props, e)) {
        const QObject *value = qdict_entry_value(e);
        QBool *b = qobject_to(QBool, value);
        QNum *n = qobject_to(QNum, value);
        QList *l = qobject_to(QList, value);

        n = l ? qobject_to(QNum, qlist_peek(l)) : n;
        g_string_append_printf(s, ",%s=", qdict_entry_key(e));
        if (b) {
            g_string_append(s, qbool_get_bool(b) ? "on" : "off");
        } else if (n) {
            g_string_append_printf(s, "%" PRId64, qnum_get_int(n));
        } else {
            g_string_append(s, qstring_get_str(qobject_to(QString, value)));
        }
    }
    qobject_unref(props);
    return g_string_free(s, false);
}

static void test_refused(const void *opaque)
{
    const Refusal *r = opaque;
    g_autofree char *option = props_to_option(r->props);
    QTestState *qts;
    int i, fds;

    assert_exits("kvm", option, r->expected);

    qts = start_machine(&machine_pc, "");
    fds = count_fds(qts);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", r->props), r->expected);
    }
    assert_fds(qts, fds);
    object_add_ok(qts, "m", "{'size': 1048576}");
    object_del_ok(qts, "m");
    assert_fds(qts, fds);
    qtest_quit(qts);
}

static void test_refused_later(const void *opaque)
{
    QTestState *qts = start_machine(&machine_pc, "");

    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/ram0', 'property': 'merge', "
                           "'value': true}}"), "cannot merge");
    g_assert_false(qtest_qom_get_bool(qts, "/objects/ram0", "merge"));

    object_add_ok(qts, "m", "{'size': 17592186044416}");
    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/m', 'property': 'prealloc', "
                           "'value': true}}"), "but the host has");
    g_assert_false(qtest_qom_get_bool(qts, "/objects/m", "prealloc"));
    assert_allocated(qts, "m", 0);
    object_del_ok(qts, "m");
    qtest_quit(qts);
}

/* memory-backend-memfd,guest-memfd=on is the same, under QEMU's own name. */
static void test_memfd(const void *opaque)
{
    static const Refusal cases[] = {
        { "share", "guest-memfd=on,share=off", "property 'share' is off" },
        { "hugetlb", "guest-memfd=on,hugetlb=on", "property 'hugetlb' is on" },
        { "type", "guest-memfd=1", "guest-memfd" },
    };
    g_autofree char *args = machine_args(&machine_q35);
    QTestState *qts;
    int i;

    qts = qtest_initf("%s -machine memory-backend=ram0 -m 64M -object memory-"
                      "backend-memfd,id=ram0,size=64M,guest-memfd=on", args);
    assert_all_slots(qts, "ram0", 0, "bound");
    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/ram0', 'property': "
                           "'guest-memfd', 'value': 'off'}}"),
                 "cannot change any more");
    qtest_quit(qts);

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *option = g_strdup_printf(
            "memory-backend-memfd,id=m,size=2M,%s", cases[i].props);

        g_test_message("%s", option);
        assert_exits("kvm", option, cases[i].expected);
    }
    if (qtest_has_accel("tcg")) {
        assert_exits("tcg", "memory-backend-memfd,id=m,size=2M,guest-memfd=on",
                     "guest-memfd=on: " TYPE " needs KVM");
    }

    /* Without it, as ever */
    for (i = 0; i < 3; i++) {
        static const char *const options[] = {
            "", ",guest-memfd=auto", ",guest-memfd=off"
        };

        qts = qtest_initf("%s -machine memory-backend=ram0 -m 64M -object "
                          "memory-backend-memfd,id=ram0,size=64M%s", args,
                          options[i]);
        g_assert_null(query_by_id(qts, "query-guest-memfd", "ram0"));
        qtest_quit(qts);
    }
}

static void test_refused_tcg(const void *opaque)
{
    assert_exits("tcg", TYPE ",id=m,size=1M", "-accel kvm");
}

/* KVM would refuse to bind its slots, whether the host has MTE or not. */
static void test_refused_mte(const void *opaque)
{
    static const char expected[] =
        "has no memory tags, but property 'mte' of -machine is on";

    assert_machine_exits("virt,mte=on", "kvm", TYPE ",id=m,size=1M", expected);
    assert_machine_exits("virt,mte=on", "kvm",
                         "memory-backend-memfd,id=m,size=1M,guest-memfd=on",
                         expected);
}

static void test_refused_old_kernel(const void *opaque)
{
    g_autofree char *args = machine_args(&machine_pc);
    QTestState *qts;
    int i, fds;

    assert_exits("kvm", TYPE ",id=m,size=1M", "Linux 6.18");

    qts = qtest_initf("%s -m 16M", args);
    fds = count_fds(qts);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", "{'size': 1048576}"), "Linux 6.18");
    }
    assert_fds(qts, fds);
    /* What the message says to use instead */
    qtest_qmp_assert_success(qts, "{'execute': 'object-add', 'arguments': "
                             "{'qom-type': 'memory-backend-memfd', "
                             "'id': 'm', 'size': 1048576}}");
    qtest_quit(qts);
}

/* Queries */

/*
 * A query that does not look at each page of 512 GiB: mincore() does, and here
 * fails.  The map shows that nothing is allocated.
 */
static void test_info_large(const void *opaque)
{
    g_autofree char *text = NULL, *empty = g_strnfill(64, '.');
    QTestState *qts;
    uint64_t line;
    char *map;

    fault_begin();
    qts = start_machine(&machine_pc, "");
    fault_end();
    qtest_memset(qts, ram_start() + 2 * MiB, 0x5a, 64 * KiB);
    object_add_ok(qts, "m", "{'size': 549755813888}");
    fault_arm("mincore", ENOMEM, 0);
    text = qtest_hmp(qts, "info guest-memfd");
    fault_disarm();

    g_assert_nonnull(strstr(text, "ram0: shared, 64 MiB"));
    /* 64 KiB a character */
    map = strstr(text, "  000000000000 ");
    g_assert_nonnull(map);
    g_assert_true(g_str_has_prefix(map + 15 + 31, ".s."));
    map = strstr(text, "m: shared, 512 GiB, guest_memfd has 0 B, 0 of 0 ");
    g_assert_nonnull(map);
    g_assert_nonnull(strstr(map, "map, 512 MiB a character"));
    for (line = 0; line < 512 * GiB; line += 32 * GiB) {
        g_autofree char *row = g_strdup_printf("  %012" PRIx64 " %s", line,
                                               empty);

        g_assert_nonnull(strstr(map, row));
    }
    qtest_quit(qts);
}

/* A backend is made and deleted while another monitor asks for it. */
static void test_query_deleted(const void *opaque)
{
    g_autofree char *path = g_strdup_printf("%s/qmp", tmpdir);
    g_autofree char *args = g_strdup_printf("-qmp unix:%s,server=on,wait=off",
                                            path);
    QTestState *qts = start_machine(&machine_pc, args);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int qmp = socket(AF_UNIX, SOCK_STREAM, 0);
    int i, fds;

    pstrcpy(address.sun_path, sizeof(address.sun_path), path);
    g_assert_cmpint(connect(qmp, (struct sockaddr *)&address,
                            sizeof(address)), ==, 0);
    qobject_unref(qmp_fd_receive(qmp));
    qobject_unref(qmp_fd(qmp, "{'execute': 'qmp_capabilities'}"));
    fds = count_fds(qts);
    for (i = 0; i < 20; i++) {
        QDict *rsp;

        qmp_fd_send(qmp, "{'execute': 'query-guest-memfd'}");
        object_add_ok(qts, "m", "{'size': 16777216, 'prealloc': true}");
        rsp = qmp_fd_receive(qmp);
        g_assert(qdict_haskey(rsp, "return"));
        qobject_unref(rsp);
        qmp_fd_send(qmp, "{'execute': 'query-guest-memfd'}");
        object_del_ok(qts, "m");
        rsp = qmp_fd_receive(qmp);
        g_assert(qdict_haskey(rsp, "return"));
        qobject_unref(rsp);
    }
    assert_fds(qts, fds);
    close(qmp);
    unlink(path);
    qtest_quit(qts);
}

void guest_memfd_test_add_object(void)
{
    int i;

    add_test("object", NULL, test_object, NULL, NEED_GMEM);
    add_test("properties", NULL, test_properties, NULL, NEED_GMEM);
    add_test("policy", "one-node", test_policy, NULL, NEED_GMEM);
    add_test("policy", "two-nodes", test_policy, "", NEED_GMEM | NEED_NODES);
    add_test("memfd", NULL, test_memfd, NULL, NEED_GMEM);
    add_machine_test("numa", test_numa, &machine_pc);
    add_machine_test("numa", test_numa, &machine_q35_smm);

    for (i = 0; i < ARRAY_SIZE(refusals); i++) {
        add_test("refused", refusals[i].name, test_refused, &refusals[i],
                 NEED_GMEM);
    }
    add_test("refused/later", NULL, test_refused_later, NULL, NEED_GMEM);
    add_test("refused/tcg", NULL, test_refused_tcg, NULL, NEED_KVM | NEED_TCG);
    if (!is_pc()) {
        add_test("refused/mte", NULL, test_refused_mte, NULL, NEED_GMEM);
    }
    add_test("refused/old-kernel", NULL, test_refused_old_kernel, NULL,
             NEED_NO_GMEM);

    add_test("query", "large", test_info_large, NULL, NEED_GMEM);
    add_test("query", "deleted", test_query_deleted, NULL, NEED_GMEM);
}
