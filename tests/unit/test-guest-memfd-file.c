/*
 * Unit test of what the host says of a guest_memfd
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../system/guest-memfd-file.h"

#define HEAD "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t11\n"

typedef struct Text {
    const char *name;
    const char *text;
    bool complete;
    GuestMemfdFile file;
} Text;

static const Text texts[] = {
    { "huge", HEAD "gmem-size:\t8388608\ngmem-flags:\t0x40000003\n"
      "gmem-allocated:\t6291456\ngmem-private:\t4096\ngmem-huge:\t4194304\n"
      "gmem-huge-fallbacks:\t3\ngmem-splits:\t2\ngmem-busy:\t1\n", true,
      { true, 6291456, 4194304, 3, 2 } },
    { "small", HEAD "gmem-flags:\t0x3\ngmem-allocated:\t18446744073709547520\n"
      "gmem-huge:\t0\ngmem-huge-fallbacks:\t0\ngmem-splits:\t0\n", true,
      { false, 18446744073709547520ull, 0, 0, 0 } },
    { "any-order", "gmem-splits:\t5\ngmem-huge-fallbacks:\t4\n"
      "gmem-huge:\t2097152\ngmem-allocated:\t2097152\n"
      "gmem-flags:\t0x40000000\n", true,
      { true, 2097152, 2097152, 4, 5 } },
    { "old-kernel", HEAD, false },
    { "empty", "", false },
    { "one-missing", "gmem-flags:\t0x3\ngmem-allocated:\t1\ngmem-huge:\t0\n"
      "gmem-huge-fallbacks:\t0\n", false },
    { "no-number", "gmem-flags:\t0x3\ngmem-allocated:\tmuch\ngmem-huge:\t0\n"
      "gmem-huge-fallbacks:\t0\ngmem-splits:\t0\n", false },
    { "half-a-number", "gmem-flags:\t0x3\ngmem-allocated:\t1 kB\n"
      "gmem-huge:\t0\ngmem-huge-fallbacks:\t0\ngmem-splits:\t0\n", false },
    { "too-large", "gmem-flags:\t0x3\ngmem-allocated:\t18446744073709551616\n"
      "gmem-huge:\t0\ngmem-huge-fallbacks:\t0\ngmem-splits:\t0\n", false },
};

static void test_text(const void *opaque)
{
    const Text *text = opaque;
    GuestMemfdFile file;

    g_assert_cmpint(guest_memfd_file_parse(text->text, &file), ==,
                    text->complete);
    if (text->complete) {
        g_assert_cmpint(file.has_huge, ==, text->file.has_huge);
        g_assert_cmpuint(file.allocated, ==, text->file.allocated);
        g_assert_cmpuint(file.huge, ==, text->file.huge);
        g_assert_cmpuint(file.huge_fallbacks, ==, text->file.huge_fallbacks);
        g_assert_cmpuint(file.splits, ==, text->file.splits);
    }
}

static void test_nodes(void)
{
    g_autoptr(GuestMemfdNodeList) list = guest_memfd_file_parse_nodes(
        HEAD "gmem-busy:\t1\ngmem-node0:\t4096\ngmem-node1023:\t8192\n"
        "gmem-nodes:\t1\ngmem-node:\t1\ngmem-node2:\tmuch\n"
        "gmem-node65536:\t1\ngmem-node3 4096\n");

    g_assert_cmpuint(list->value->node, ==, 0);
    g_assert_cmpuint(list->value->allocated, ==, 4096);
    g_assert_cmpuint(list->next->value->node, ==, 1023);
    g_assert_cmpuint(list->next->value->allocated, ==, 8192);
    g_assert_null(list->next->next);
    g_assert_null(guest_memfd_file_parse_nodes(HEAD));
}

/* An empty file has no extent. */
static void test_is_huge(void)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp(NULL, &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    unlink(name);
    g_assert_false(guest_memfd_file_is_huge(fd, 0, 4096));
    g_assert_false(guest_memfd_file_is_huge(-1, 0, 4096));
    close(fd);
}

/* A file that is no guest_memfd, and none at all */
static void test_other_file(void)
{
    GuestMemfdFile file;

    g_assert_false(guest_memfd_file_get(STDIN_FILENO, &file, NULL));
    g_assert_false(guest_memfd_file_get(-1, &file, NULL));
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(texts); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd-file/%s",
                                                texts[i].name);

        g_test_add_data_func(path, &texts[i], test_text);
    }
    g_test_add_func("/guest-memfd-file/nodes", test_nodes);
    g_test_add_func("/guest-memfd-file/is-huge", test_is_huge);
    g_test_add_func("/guest-memfd-file/other-file", test_other_file);
    return g_test_run();
}
