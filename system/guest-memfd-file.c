/*
 * guest_memfd: what the host says of the file
 *
 * /proc/self/fdinfo has a line for each counter of the kernel's.  Which pages
 * are huge, FS_IOC_FIEMAP tells.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/util.h"
#include "guest-memfd-file.h"

#ifdef CONFIG_LINUX
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#endif

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

GuestMemfdNodeList *guest_memfd_file_parse_nodes(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GuestMemfdNodeList *list = NULL, **tail = &list;
    int i;

    for (i = 0; lines[i]; i++) {
        const char *number;
        unsigned int node;
        uint64_t allocated;

        if (strstart(lines[i], "gmem-node", &number) &&
            !qemu_strtoui(number, &number, 10, &node) &&
            node <= UINT16_MAX && *number == ':' &&
            !qemu_strtou64(number + 1, NULL, 0, &allocated)) {
            GuestMemfdNode *info = g_new0(GuestMemfdNode, 1);

            info->node = node;
            info->allocated = allocated;
            QAPI_LIST_APPEND(tail, info);
        }
    }
    return list;
}

bool guest_memfd_file_get(int fd, GuestMemfdFile *file,
                          GuestMemfdNodeList **nodes)
{
    g_autofree char *name = g_strdup_printf("/proc/self/fdinfo/%d", fd);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(name, &text, NULL, NULL) ||
        !guest_memfd_file_parse(text, file)) {
        return false;
    }
    if (nodes) {
        *nodes = guest_memfd_file_parse_nodes(text);
    }
    return true;
}

#ifdef CONFIG_LINUX
/* An extent has pages of one size: the host looks at the first alone. */
static bool guest_memfd_file_is_huge_extent(int fd, uint64_t offset,
                                            uint64_t size)
{
    g_autofree struct fiemap *map =
        g_malloc0(sizeof(*map) + sizeof(map->fm_extents[0]));
    const struct fiemap_extent *extent = map->fm_extents;

    map->fm_start = offset;
    map->fm_length = size;
    map->fm_extent_count = 1;
    return !ioctl(fd, FS_IOC_FIEMAP, map) && map->fm_mapped_extents == 1 &&
           !(extent->fe_flags & FIEMAP_EXTENT_MERGED) &&
           extent->fe_logical <= offset &&
           extent->fe_logical + extent->fe_length >= offset + size;
}

/* The extent of many small pages would take long. */
bool guest_memfd_file_is_huge(int fd, uint64_t offset, uint64_t size)
{
    return guest_memfd_file_is_huge_extent(fd, offset, MIN(size, 2 * MiB)) &&
           guest_memfd_file_is_huge_extent(fd, offset, size);
}
#else
bool guest_memfd_file_is_huge(int fd, uint64_t offset, uint64_t size)
{
    return false;
}
#endif
