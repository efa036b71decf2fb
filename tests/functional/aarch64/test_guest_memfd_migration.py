#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Migrates guests from and to memory-backend-guest-memfd
#
# Copyright (c) 2026 The qemu-gmem developers

import guest_memfd_migration as migration
from guest_memfd import GuestMemfdTest


class GuestMemfdMigration(migration.MigrationTest):
    pass


GuestMemfdMigration.add_cases('migrate', GuestMemfdMigration.MIGRATIONS)

if __name__ == '__main__':
    GuestMemfdTest.main()
