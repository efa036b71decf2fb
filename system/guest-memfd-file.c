/*
 * guest_memfd: what the host says of the file
 *
 * /proc/self/fdinfo has a line for each counter of the kernel's.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "guest-memfd-file.h"

static bool guest_memfd_file_number(char **lines, const char *key,
                                    uint64_t *value)
{
    const char *number;
    int i;

    for (i = 0; lines[i]; i++) {
        if (strstart(lines[i], key, &number) &&
            !qemu_strtou64(number, NULL, 0, value)) {
            return true;
        }
    }
    return false;
}

/* GUEST_MEMFD_FLAG_HUGE_2M of <linux/kvm.h>, which not every host has */
#define GUEST_MEMFD_FILE_HUGE (1ULL << 30)

bool guest_memfd_file_parse(const char *text, GuestMemfdFile *file)
{
    uint64_t flags;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    const struct {
        const char *key;
        uint64_t *value;
    } numbers[] = {
        { "gmem-flags:", &flags },
        { "gmem-allocated:", &file->allocated },
        { "gmem-huge:", &file->huge },
        { "gmem-huge-fallbacks:", &file->huge_fallbacks },
        { "gmem-splits:", &file->splits },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (!guest_memfd_file_number(lines, numbers[i].key,
                                     numbers[i].value)) {
            return false;
        }
    }
    file->has_huge = flags & GUEST_MEMFD_FILE_HUGE;
    return true;
}

bool guest_memfd_file_get(int fd, GuestMemfdFile *file)
{
    g_autofree char *name = g_strdup_printf("/proc/self/fdinfo/%d", fd);
    g_autofree char *text = NULL;

    return g_file_get_contents(name, &text, NULL, NULL) &&
           guest_memfd_file_parse(text, file);
}
