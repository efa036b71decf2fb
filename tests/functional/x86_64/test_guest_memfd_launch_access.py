#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# SEV-SNP and TDX guests that access pages as the kind of memory that they are not
#
# Copyright (c) 2026 The qemu-gmem developers

from guest_memfd import GuestMemfdTest, kvm_parameter
from guest_memfd_launch import PayloadTest


class GuestMemfdLaunchAccess(PayloadTest):
    """Accesses of the wrong kind convert, as they do with such guests' bit of an
    address."""

    modules = 'guest-memfd-launch guest-memfd-twin'
    environment = PayloadTest.environment + ('GUEST_MEMFD_TWIN=shared',)

    def setUp(self):
        super().setUp()
        if not kvm_parameter('sw_protected_by_slot'):
            self.skipTest("this host's KVM does not say which kind of memory an access "
                          'means, as with kvm.sw_protected_by_slot=1')

    def fight(self, kind, cpus, size, count):
        """No processor's word in a page is lost, whoever else converts the page."""
        vm, console = self.run_payload(
            kind, f'access,base=80M,size={size},count={count} wait', '-smp', str(cpus))
        console.expect('^waiting')
        conversion = self.info(vm)['conversion']
        self.assertEqual(conversion['failures'], [])
        for direction in 'to-private', 'to-shared':
            self.assertGreater(conversion[direction], count // 4)
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.events('refused|lost'), [])


for name in 'snp', 'tdx':
    GuestMemfdLaunchAccess.add_cases('fight', (
        (f'fight_one_page_{name}', name, 2, '4K', 500),
        (f'fight_{name}', name, 4, '64K', 2000)))

if __name__ == '__main__':
    GuestMemfdTest.main()
