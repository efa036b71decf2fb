#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Shared memory of a software-protected guest in huge pages
#
# Copyright (c) 2026 The qemu-gmem developers

import mmap
import os
import subprocess
import tempfile

from guest_memfd import GuestMemfdPrivateTest, MIB

POOL = '/proc/sys/vm/nr_hugepages'
HUGE = 'hugetlb=on,hugetlbsize=2M'
HUGE_PAGE = 2 * MIB
MAP_HUGETLB = 0x40000
ENOMEM = 12
# The payload is in a node of its own; each backend is the next node.
FIRST = 16
NODE = 8


def available_pages():
    """Huge pages of the pool that are neither in use nor reserved."""
    with open('/proc/meminfo', encoding='ascii') as meminfo:
        pages = {line.split(':')[0]: int(line.split()[1]) for line in meminfo
                 if line.startswith('HugePages_')}
    return pages['HugePages_Free'] - pages['HugePages_Rsvd']


class GuestMemfdPrivateHuge(GuestMemfdPrivateTest):

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

    # Backends of huge pages, and whether those are reserved for the VM
    BACKENDS = (
        (f'guest-memfd,{HUGE},prealloc=on', True),
        (f'guest-memfd,{HUGE}', True),
        (f'guest-memfd,{HUGE},reserve=off', False),
        (f'memfd,{HUGE},share=on', True),
        (f'memfd,{HUGE},share=on,reserve=off', False),
        (f'memfd,{HUGE},share=off,prealloc=on', True),
        (f'memfd,{HUGE},share=off', True),
        (f'memfd,{HUGE},share=off,reserve=off', False),
        ('file,mem-path={hugetlbfs},prealloc=on', True),
        ('file,mem-path={hugetlbfs},share=on', True),
        ('file,mem-path={hugetlbfs},reserve=off', False),
    )

    def hugetlbfs(self):
        place = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, place)
        subprocess.run(['mount', '-t', 'hugetlbfs', '-o', 'pagesize=2M', 'none',
                        place], check=True)
        self.addCleanup(subprocess.run, ['umount', place], check=True)
        return place

    def nodes(self):
        """Number, first MiB, and whether pages are reserved"""
        return ((i, FIRST + i * NODE, reserved)
                for i, (_, reserved) in enumerate(self.BACKENDS))

    def start_all(self, *cases):
        """A VM that has all backends, and runs the cases."""
        place = self.hugetlbfs()
        args = ['-object', f'memory-backend-ram,id=ram,size={FIRST}M',
                '-numa', 'node,memdev=ram']
        for i, (backend, _) in enumerate(self.BACKENDS):
            args += ['-object', 'memory-backend-' + backend.format(hugetlbfs=place)
                                + f',id=ram{i},size={NODE}M',
                     '-numa', f'node,memdev=ram{i}']
        vm, console = self.start(
            'vm', *args, backend=None, memory=FIRST + NODE * len(self.BACKENDS),
            payload=' '.join(cases))
        console.expect('^waiting')
        return vm, console

    def test_backends(self):
        """What is private and becomes shared again is zero.  Pages that are
        reserved stay so; others are freed when all of them is private."""
        vm, console = self.start_all(*(
            f'fill,base={base}M,size=8M wait '
            f'convert,base={base}M,size=3M,private=1 wait '
            f'convert,base={base + 3}M,size=1M,private=1 wait '
            f'convert,base={base}M,size=4M,private=0 wait '
            f'zero,base={base}M,size=4M verify,base={base + 4}M,size=4M '
            f'private-share,base={base + 1}M,size=2M'
            for _, base, _ in self.nodes()))
        for i, _, reserved in self.nodes():
            self.log.info('%s', self.BACKENDS[i])
            before = available_pages()
            for freed in 1, 2, 0:
                self.press_key(vm)
                console.expect('^waiting')
                self.assertEqual(available_pages() - before,
                                 0 if reserved else freed)
            self.press_key(vm)
            console.expect('^done' if i == len(self.BACKENDS) - 1 else
                           '^waiting')

    def take(self, left):
        """Takes all huge pages but so many, as the next VM might."""
        return mmap.mmap(-1, (available_pages() - left) * HUGE_PAGE,
                         mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)

    def test_others_take_all(self):
        """Whoever else wants huge pages: no access of the guest fails, but a
        request does if there is no memory for it."""
        vm, console = self.start_all(*(
            f'fill,base={base}M,size=8M convert,base={base}M,size=8M,private=1 '
            f'fill,base={base}M,size=8M,seed=5'
            for _, base, _ in self.nodes()), 'wait', *(
            f'convert,base={base}M,size=8M,private=0,expect='
            f'{0 if reserved else ENOMEM} wait'
            for _, base, reserved in self.nodes()), *(
            ('' if reserved else f'verify,base={base}M,size=8M,seed=5 '
             f'convert,base={base}M,size=8M,private=0 ') +
            f'zero,base={base}M,size=8M fill,base={base}M,size=8M '
            f'verify,base={base}M,size=8M'
            for _, base, reserved in self.nodes()))
        left = 2    # half of what is asked for is there
        taken = self.take(left)
        for i, _, reserved in self.nodes():
            self.log.info('%s', self.BACKENDS[i])
            self.press_key(vm)
            console.expect('^waiting')
            self.assertEqual(available_pages(), left)
            self.assertEqual(self.info(vm, f'ram{i}')['conversion']['private'],
                             0 if reserved else NODE * MIB)
        taken.close()
        self.press_key(vm)
        console.expect('^done 0 failed')

    def test_fuzz(self):
        vm, console = self.start(
            'vm', *self.backend(HUGE, 'prealloc=on'), backend=None, memory=128,
            payload='fuzz,base=64M,size=32M,count=1000')
        console.expect('^done 0 failed')
        self.assertGreater(self.info(vm)['conversion']['pages-to-private'], 4096)

    def test_reset(self):
        """A reset cannot share memory that others have taken: the VM stops."""
        area = 'base=16M,size=8M'
        vm, console = self.start(
            'vm', '-object', f'memory-backend-memfd,id=ram0,{HUGE},share=on,'
            'reserve=off,size=32M', '-machine', 'memory-backend=ram0',
            backend=None, memory=32,
            payload=f'fill,{area} convert,{area},private=1 wait')
        console.expect('^waiting')
        taken = self.take(0)
        vm.cmd('system_reset')
        self.wait_for('the VM stops', lambda:
                      vm.cmd('query-status')['status'] == 'internal-error')
        taken.close()
        vm.shutdown()
        self.assertIn('memory of ram0 could not be reset: Cannot allocate '
                      'memory', vm.get_log())

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
        self.refused("'hugetlb' is on, but a guest_memfd has no pages of the host's hugetlb pool|"
                     'which takes Linux 6.18', *self.backend(HUGE))


if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
