/*
 * guest_memfd: what the host says of the file
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_FILE_H
#define SYSTEM_GUEST_MEMFD_FILE_H

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
 * guest_memfd_file_get: ask the host about a guest_memfd
 * @fd: the file
 * @file: what the host says
 *
 * Takes the same time for every file.  Needs no lock.
 *
 * Returns: false if the host does not tell, or there is no /proc
 */
bool guest_memfd_file_get(int fd, GuestMemfdFile *file);

#endif
