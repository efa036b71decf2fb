#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Shared memory of a software-protected guest in huge pages
#
# Copyright (c) 2026 The qemu-gmem developers

from guest_memfd import GuestMemfdTest, MIB

POOL = '/proc/sys/vm/nr_hugepages'
HUGE = 'hugetlb=on,hugetlbsize=2M'


def free_pages():
    with open('/proc/meminfo', encoding='ascii') as meminfo:
        return next(int(line.split()[1]) for line in meminfo
                    if line.startswith('HugePages_Free:'))


class GuestMemfdPrivateHuge(GuestMemfdTest):

    machine_args = ('-object', 'sw-protected-guest,id=cgs0')
    machine_props = ',confidential-guest-support=cgs0'

    def setUp(self):
        super().setUp()
        with open(POOL, encoding='ascii') as file:
            self.addCleanup(self.set_pool, int(file.read()))
        self.set_pool(72)

    def set_pool(self, pages):
        try:
            with open(POOL, 'w', encoding='ascii') as file:
                file.write(str(pages))
            with open(POOL, encoding='ascii') as file:
                pages -= int(file.read())
        except OSError:
            pages = -1
        if pages:
            self.skipTest('the host cannot set 144 MiB of huge pages aside')

    def backend(self, *properties, size=128):
        return ('-object', ','.join([f'memory-backend-guest-memfd,id=ram0,'
                                     f'size={size}M', *properties]),
                '-machine', 'memory-backend=ram0')

    def test_convert(self):
        """Small pages are converted; a huge one is freed as soon as all of it
        is private."""
        vm, console = self.start(
            'vm', *self.backend(HUGE, 'prealloc=on'), backend=None, memory=128,
            payload='private-share,base=64M,size=16M '
                    'fill,base=64M,size=32M '
                    'convert,base=64M,size=3M,private=1 wait '
                    'convert,base=67M,size=1M,private=1 wait '
                    'fuzz,base=64M,size=32M,count=1000')
        for pages in 1, 2:
            console.expect('^waiting')
            self.assertEqual(free_pages(), 72 - 64 + pages)
            vm.cmd('send-key', keys=[{'type': 'qcode', 'data': 'a'}])
        console.expect('^done 0 failed')
        self.assertGreater(self.info(vm)['conversion']['pages-to-private'], 4096)

    def refused(self, message, *args):
        self.assert_refused(
            self.machine_vm('vm', *args, backend=None, memory=128, payload='hello'),
            message)

    def test_refused(self):
        for message, *args in (
                ("'hugetlbsize' must be one that the host has",
                 *self.backend('hugetlb=on,hugetlbsize=3M')),
                ("'size' a multiple of it", *self.backend(HUGE, size=127)),
                ("free huge pages for 'size'", *self.backend(HUGE, size=256))):
            self.refused(message, *args)
        self.machine_args, self.machine_props = (), ''
        self.refused("'hugetlb' is on, but KVM has no huge pages|"
                     'it takes Linux 6.18', *self.backend(HUGE))


if __name__ == '__main__':
    GuestMemfdTest.main()
