#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The model of SEV-SNP's and TDX's launch refuses what KVM refuses
#
# Copyright (c) 2026 The qemu-gmem developers
#
# Without QEMU: each rule of tests/qtest/guest-memfd-launch.c has a sequence of steps
# here that breaks it.

import errno
import json
import os
import subprocess
import sys

from guest_memfd import GuestMemfdTest, PAGE, split_only
from guest_memfd_launch_client import CODE, TABLES

CLIENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                      'guest_memfd_launch_client.py')


def step(name, **arguments):
    return name, arguments


INIT, START, FINISH = step('init'), step('start'), step('finish')
PRIVATE, UPDATE = step('set_private'), step('update')
VCPU, INIT_VCPU = step('create_vcpu'), step('init_vcpu')
OPEN = INIT, START, PRIVATE
TD = INIT, VCPU, INIT_VCPU, PRIVATE
# A guest that has been launched asks for a conversion.
ASKS = {
    'snp': (INIT, VCPU, START, PRIVATE, step('update', size=2 * PAGE), step('code'), FINISH,
            step('ask')),
    'tdx': (*TD, step('update', size=2 * PAGE), step('code'), FINISH, step('ask')),
}
EINVAL, EIO, ENOTTY, EPERM, E2BIG = (errno.EINVAL, errno.EIO, errno.ENOTTY, errno.EPERM,
                                     errno.E2BIG)


class GuestMemfdLaunchModel(GuestMemfdTest):

    done = {}           # by kind and case: errnos, and the model's log

    def run_all(self, kind):
        log = self.scratch_file('log')
        library = self.module_file('guest-memfd-launch')
        process = subprocess.run(
            [sys.executable, CLIENT, kind, log], encoding='ascii', check=True,
            input=json.dumps({name: steps for name, of, _, *steps in ACCEPTED + REFUSED
                              if of == kind}), stdout=subprocess.PIPE,
            env=dict(os.environ, LD_PRELOAD=library, GUEST_MEMFD_LAUNCH=kind,
                     GUEST_MEMFD_LAUNCH_LOG=log,
                     GUEST_MEMFD_LAUNCH_START=f'{CODE},{TABLES}'))
        with open(log, encoding='ascii') as file:
            logs = dict(text.split('\n', 1) for text in file.read().split('case ')[1:])
        for name, errnos in json.loads(process.stdout).items():
            self.done[kind, name] = errnos, logs[name]

    @split_only
    def check(self, name, kind, error, *steps):
        """The last step is refused with that errno, or nothing is; those before work."""
        if (kind, name) not in self.done:
            self.run_all(kind)
        errnos, log = self.done[kind, name]
        last = 0 if error is None else error
        self.assertEqual(errnos, [0] * (len(steps) - 1) + [last], log)
        self.assertEqual(log.count('refused'), error is not None, log)
        if error is None:
            self.assertIn('finish pages=2', log)


ACCEPTED = (
    ('snp', 'snp', None, *OPEN, step('update', size=2 * PAGE), VCPU, FINISH),
    ('snp_kinds', 'snp', None, *OPEN, step('update', kind=3, source=None),
     step('update', at=PAGE, kind=6), FINISH),
    ('tdx', 'tdx', None, step('capabilities'), *TD, UPDATE,
     step('update', at=PAGE, flags=0), FINISH))

REFUSED = (
    ('snp_init_again', 'snp', EINVAL, INIT, INIT),
    ('snp_init_flags', 'snp', EINVAL, step('init', flags=1)),
    ('snp_init_features', 'snp', EINVAL, step('init', features=1)),
    ('snp_init_version_1', 'snp', EINVAL, step('init', version=1)),
    ('snp_init_version_3', 'snp', EINVAL, step('init', version=3)),
    ('snp_early_vcpu', 'snp', EIO, VCPU),
    ('snp_early_start', 'snp', ENOTTY, START),
    ('snp_start_again', 'snp', EINVAL, INIT, START, START),
    ('snp_start_flags', 'snp', EINVAL, INIT, step('start', flags=1)),
    ('snp_start_policy', 'snp', EINVAL, INIT, step('start', policy=0x10000)),
    ('snp_start_unknown_policy', 'snp', EINVAL, INIT, step('start', policy=1 << 40 | 0x30000)),
    ('snp_early_update', 'snp', EINVAL, INIT, PRIVATE, UPDATE),
    ('snp_update_nothing', 'snp', EINVAL, *OPEN, step('update', size=0)),
    ('snp_update_half_a_page', 'snp', EINVAL, *OPEN, step('update', size=PAGE // 2)),
    ('snp_update_flags', 'snp', EINVAL, *OPEN, step('update', flags=1)),
    ('snp_update_vmsa', 'snp', EINVAL, *OPEN, step('update', kind=2)),
    ('snp_update_no_source', 'snp', EINVAL, *OPEN, step('update', source=None)),
    ('snp_update_odd_source', 'snp', EINVAL, *OPEN, step('update', source=8)),
    ('snp_update_shared', 'snp', EIO, INIT, START, UPDATE),
    ('snp_update_shared_again', 'snp', EIO, *OPEN, step('set_private', private=False), UPDATE),
    ('snp_update_again', 'snp', EIO, *OPEN, UPDATE, UPDATE),
    ('snp_update_nowhere', 'snp', EINVAL, *OPEN, step('update', at=1 << 30)),
    ('snp_update_by_address', 'snp', EINVAL, *OPEN,
     step('slot', slot=1, at=1 << 30, flags=0), step('update', at=1 << 30)),
    ('snp_late_update', 'snp', EIO, *OPEN, FINISH, UPDATE),
    ('snp_early_finish', 'snp', EINVAL, INIT, FINISH),
    ('snp_finish_before_init', 'snp', ENOTTY, FINISH),
    ('snp_finish_flags', 'snp', EINVAL, *OPEN, step('finish', flags=1)),
    ('snp_finish_again', 'snp', EIO, *OPEN, FINISH, FINISH),
    ('snp_finish_without', 'snp', 0, *OPEN, UPDATE, step('punch', at=0), FINISH),
    ('snp_early_run', 'snp', EINVAL, INIT, VCPU, step('run')),
    ('snp_registers', 'snp', EINVAL, *OPEN, VCPU, step('get_regs'), FINISH, step('get_regs')),
    ('snp_other_command', 'snp', EPERM, INIT, step('other', id_=2)),
    ('snp_smm', 'snp', EINVAL, step('slot', slot=1 << 16, at=1 << 30)),
    ('tdx_init_again', 'tdx', EINVAL, INIT, INIT),
    ('tdx_init_flags', 'tdx', EINVAL, step('init', flags=1)),
    ('tdx_init_reserved', 'tdx', EINVAL, step('init', reserved=1)),
    ('tdx_init_attributes', 'tdx', EINVAL, step('init', attributes=2)),
    ('tdx_init_xfam', 'tdx', EINVAL, step('init', xfam=1 << 40)),
    ('tdx_init_answers', 'tdx', E2BIG, step('init', entries=257)),
    ('tdx_early_vcpu', 'tdx', EIO, VCPU),
    ('tdx_vcpu_again', 'tdx', EINVAL, *TD, INIT_VCPU),
    ('tdx_vcpu_flags', 'tdx', EINVAL, INIT, VCPU, step('init_vcpu', flags=1)),
    ('tdx_early_update', 'tdx', EINVAL, INIT, VCPU, PRIVATE, UPDATE),
    ('tdx_update_flags', 'tdx', EINVAL, *TD, step('update', flags=2)),
    ('tdx_update_no_source', 'tdx', EINVAL, *TD, step('update', source=None)),
    ('tdx_update_odd_source', 'tdx', EINVAL, *TD, step('update', source=8)),
    ('tdx_update_odd_address', 'tdx', EINVAL, *TD, step('update', at=8)),
    ('tdx_update_nothing', 'tdx', EINVAL, *TD, step('update', size=0)),
    ('tdx_update_shared_address', 'tdx', EINVAL, *TD, step('update', at=1 << 47)),
    ('tdx_update_shared', 'tdx', EINVAL, INIT, VCPU, INIT_VCPU, UPDATE),
    ('tdx_update_again', 'tdx', EIO, *TD, UPDATE, UPDATE),
    ('tdx_update_nowhere', 'tdx', EINVAL, *TD, step('update', at=1 << 30)),
    ('tdx_late_update', 'tdx', EINVAL, *TD, FINISH, UPDATE),
    ('tdx_early_finish', 'tdx', EINVAL, FINISH),
    ('tdx_finish_again', 'tdx', EINVAL, *TD, FINISH, FINISH),
    ('tdx_finish_without', 'tdx', 0, *TD, UPDATE, step('slot', size=0), FINISH),
    ('tdx_slot_deleted', 'tdx', 0, *TD, UPDATE, FINISH, step('slot', size=0)),
    ('tdx_early_run', 'tdx', EINVAL, *TD, step('run')),
    ('tdx_registers', 'tdx', EINVAL, INIT, VCPU, step('get_regs')),
    ('tdx_read_only', 'tdx', EINVAL, step('slot', slot=1, at=1 << 30, flags=2)),
    ('tdx_other_command', 'tdx', EINVAL, INIT, step('other', id_=9)),
    ('tdx_other_command_of_vcpu', 'tdx', EINVAL, *TD, step('other', id_=9, vcpu=True)))

# QEMU's answer to a conversion: KVM takes these for SEV-SNP and TDX.
for kind, asks in ASKS.items():
    ACCEPTED += tuple((f'{kind}_answer_{ret}', kind, None, *asks, step('answer', ret=ret))
                      for ret in (0, errno.EINVAL, errno.EAGAIN))
    REFUSED += tuple((f'{kind}_answer_{name}', kind, EINVAL, *asks, step('answer', ret=ret))
                     for name, ret in (('negative', (1 << 64) - errno.EINVAL),
                                       ('busy', errno.EBUSY), ('1', 1)))

GuestMemfdLaunchModel.add_cases('check', [(case[0], *case) for case in ACCEPTED + REFUSED])

if __name__ == '__main__':
    GuestMemfdTest.main()
