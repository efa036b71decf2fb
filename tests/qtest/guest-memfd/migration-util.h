/*
 * Migrations, and memory with contents to be found again
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_GUEST_MEMFD_MIGRATION_UTIL_H
#define TEST_GUEST_MEMFD_MIGRATION_UTIL_H

#include "libqtest.h"

/* Starts a migration, and does not wait for it. */
void migrate_to(QTestState *qts, const char *uri);

/*
 * Starts a migration to where nobody reads, with more than that takes: it goes
 * on until migrate_cancel().  There can be one at a time.
 */
void migrate_endless(QTestState *qts);
void migrate_cancel(QTestState *qts);

/* Random bytes in some places; returned for check_patterns(). */
GByteArray *write_patterns(QTestState *qts);
void check_patterns(QTestState *qts, const GByteArray *all);

#endif
