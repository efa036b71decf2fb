/*
 * guest_memfd: what the host says of the file
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_FILE_H
#define SYSTEM_GUEST_MEMFD_FILE_H

#include "qapi/qapi-types-guest-memfd.h"

/* As the kernel's api.rst has it for KVM_CREATE_GUEST_MEMFD; sizes in bytes */
typedef struct GuestMemfdFile {
    bool has_huge;              /* if there are huge pages for it */
    uint64_t allocated;
    uint64_t huge;
    uint64_t huge_fallbacks;
    uint64_t splits;
} GuestMemfdFile;

/**
 * guest_memfd_file_parse: read the text of a guest_memfd's fdinfo
 * @text: the text
 * @file: what it says
 *
 * Returns: false if a line is missing, as on kernels without
 *     companion/linux/3-accounting
 */
bool guest_memfd_file_parse(const char *text, GuestMemfdFile *file);

/**
 * guest_memfd_file_parse_nodes: read where the memory of a guest_memfd is
 * @text: the text of its fdinfo
 *
 * Returns: the NUMA nodes of the host that the guest_memfd has memory of,
 *     to be freed with qapi_free_GuestMemfdNodeList(); NULL if no line tells
 *     of one
 */
GuestMemfdNodeList *guest_memfd_file_parse_nodes(const char *text);

/**
 * guest_memfd_file_get: ask the host about a guest_memfd
 * @fd: the file
 * @file: what the host says
 * @nodes: if not NULL, set to guest_memfd_file_parse_nodes()'s list
 *
 * Takes the same time for every file.  Needs no lock.
 *
 * Returns: false if the host does not tell, or there is no /proc; @nodes is
 *     not set then
 */
bool guest_memfd_file_get(int fd, GuestMemfdFile *file,
                          GuestMemfdNodeList **nodes);

/**
 * guest_memfd_file_is_huge: is a part of a guest_memfd in huge pages?
 * @fd: the file
 * @offset: where the part begins, in bytes
 * @size: its size, in bytes
 *
 * Looks at 2 MiB of small pages at most.  Needs no lock.
 *
 * Returns: true if all of it is; false if any of it is not, or is not there,
 *     or if the host does not tell
 */
bool guest_memfd_file_is_huge(int fd, uint64_t offset, uint64_t size);

#endif
