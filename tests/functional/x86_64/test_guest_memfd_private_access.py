#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Accesses of a guest to pages of the other kind, which convert them, as those of
# SEV-SNP and TDX guests do
#
# Copyright (c) 2026 The qemu-gmem developers

from guest_memfd import GuestMemfdPrivateTest, MIB, kvm_parameter

AREA = 'base=80M,size=64K'
BUSY = 80 * MIB             # a page of it
EVENT = 'GUEST_MEMFD_CONVERSION_FAILED'


class GuestMemfdPrivateAccess(GuestMemfdPrivateTest):

    cgs = 'sw-protected-guest,id=cgs0'
    machine_args = ('-object', f'{cgs},x-convert-on-access=on')
    # Each address of RAM has a twin, where accesses mean private memory.
    module = 'guest-memfd-twin'

    def setUp(self):
        super().setUp()
        if not (self.in_place and kvm_parameter('sw_protected_by_slot')):
            self.skipTest("this host's KVM does not say which kind of memory an access "
                          'means, as with kvm.sw_protected_by_slot=1')

    def fight(self, size, count):
        """No processor's word in a page is lost, whoever else converts the page."""
        vm, console = self.start(
            'vm', '-smp', '4', payload=f'access,base=80M,size={size},count={count}')
        console.expect('^done 0 failed')
        conversion = self.info(vm)['conversion']
        self.assertEqual(conversion['private'], 0)
        self.assertEqual(conversion['failures'], [])
        for direction in 'to-private', 'to-shared':
            self.assertGreater(conversion[direction], count // 4)

    def test_busy_page(self):
        """A page that something uses for long: the guest waits, and does not fail."""
        vm, console = self.start('vm', payload=f'fill,{AREA} wait access,{AREA},count=100')
        console.expect('^waiting')
        with self.held(vm, BUSY):
            self.press_key(vm)
            for _ in range(2):
                self.assertEqual(vm.event_wait(EVENT)['data']['busy-address'], BUSY)
            vm.cmd('stop')
            self.assertEqual(vm.cmd('query-status')['status'], 'paused')
            vm.cmd('cont')
        console.expect('^done 0 failed')

    def test_no_request(self):
        """Where an access is no request, one that cannot succeed ends the guest."""
        self.machine_args = ('-object', self.cgs)
        vm, _ = self.start('vm', payload=f'access,{AREA},count=100')
        vm.event_wait('STOP')
        self.assertEqual(vm.cmd('query-status')['status'], 'internal-error')
        vm.shutdown()
        self.assertIn('as private memory, however often it tries', vm.get_log())


GuestMemfdPrivateAccess.add_cases('fight', (
    ('fight_one_page', '4K', 500),
    ('fight', '64K', 2000)))

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
