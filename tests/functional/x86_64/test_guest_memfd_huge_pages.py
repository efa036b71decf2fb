#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Pages of 2 MiB in a guest_memfd: what the guest, QEMU's mapping and the host have
# of them, and what is left of them after conversions, holes and migration
#
# Copyright (c) 2026 The qemu-gmem developers

import errno
import fcntl
import os
import re

from guest_memfd import GuestMemfdPrivateTest, GuestMemfdTest, MIB, PAGE

GMEM = 'memory-backend-guest-memfd'
HUGE = 2 * MIB
MEMORY = 256 * MIB
# From 16 MiB on the payload has nothing of its own.
FIRST = 16 * MIB
AREA = f'base={FIRST // MIB}M,size={(MEMORY - FIRST) // MIB}M'

KVM_CHECK_EXTENSION = 0xae03
KVM_CAP_GUEST_MEMFD_FLAGS = 244
GUEST_MEMFD_FLAG_HUGE_2M = 1 << 30


def kvm_has_huge_pages():
    try:
        fd = os.open('/dev/kvm', os.O_RDWR)
    except OSError:
        return False
    try:
        flags = fcntl.ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS)
        return bool(flags & GUEST_MEMFD_FLAG_HUGE_2M)
    finally:
        os.close(fd)


class HugePages:
    """What both kinds of guests need"""

    def setUp(self):
        super().setUp()
        if not kvm_has_huge_pages():
            self.skipTest("this host's KVM has no huge pages for guest_memfd")

    def huge(self, vm, backend='ram0'):
        return self.info(vm, backend)['huge-pages']

    @staticmethod
    def kvm_stats(vm, target, *names):
        """Their sums over the VM's vCPUs, or of the VM"""
        stats = vm.cmd('query-stats', target=target,
                       providers=[{'provider': 'kvm', 'names': list(names)}])
        sums = dict.fromkeys(names, 0)
        for entry in stats:
            for stat in entry['stats']:
                sums[stat['name']] += stat['value']
        return sums

    def large(self, vm):
        """Large pages that KVM maps into the guest"""
        return self.kvm_stats(vm, 'vm', 'pages_2m')['pages_2m']

    @staticmethod
    def map(vm):
        """What "info guest-memfd" prints for each part of the memory"""
        text = vm.cmd('human-monitor-command', command_line='info guest-memfd')
        return ''.join(re.findall(r'^  [0-9a-f]{12} (\S+)\s*$', text, re.M))

    def faults(self, vm):
        return self.kvm_stats(vm, 'vcpu', 'pf_fixed')['pf_fixed']

    @staticmethod
    def mapped_large(vm):
        """Bytes of guest_memfds that QEMU has mapped by large pages"""
        size, ours = 0, False
        with open(f'/proc/{vm.get_pid()}/smaps', encoding='ascii') as smaps:
            for line in smaps:
                if line.split(None, 1)[0].count('-') == 1 and ':' not in line.split()[0]:
                    ours = '[kvm-gmem]' in line
                elif ours and line.startswith('FilePmdMapped:'):
                    size += int(line.split()[1]) * 1024
        return size


class GuestMemfdHugePages(HugePages, GuestMemfdTest):

    def touch(self, huge_pages):
        """Stage-2 faults of a guest that touches its memory, and the VM after that"""
        vm, console = self.start('vm-' + huge_pages, backend=f'{GMEM},huge-pages={huge_pages}',
                                 payload=f'wait fill,{AREA},seed=1 wait verify,{AREA},seed=1')
        console.expect('^waiting')
        before = self.faults(vm)
        self.press_key(vm)
        console.expect('^waiting')
        return self.faults(vm) - before, vm, console

    def test_touch(self):
        small, vm, _ = self.touch('off')
        self.assertEqual(self.large(vm), 0)
        self.assertNotIn('huge-pages', self.info(vm))
        vm.shutdown()
        for huge_pages in 'on', 'auto':
            faults, vm, console = self.touch(huge_pages)
            pages = (MEMORY - FIRST) // HUGE
            self.log.info('%d stage-2 faults, with 4 KiB %d', faults, small)
            self.assertLess(faults, small / 500)
            self.assertGreaterEqual(self.large(vm), pages)
            self.assertGreaterEqual(self.huge(vm)['allocated'], pages * HUGE)
            self.assertEqual(self.huge(vm)['splits'], 0)
            self.press_key(vm)
            console.expect('^done 0 failed')
            vm.shutdown()

    def test_prealloc(self):
        """All of it, and QEMU maps it by large pages as well."""
        vm, _ = self.start('vm', '-S', backend=f'{GMEM},prealloc=on,huge-pages=on',
                           payload='wait')
        self.assertEqual(self.huge(vm), {'allocated': MEMORY, 'fallbacks': 0, 'splits': 0})
        info = self.info(vm)
        self.assertEqual(info['host-memory'], MEMORY)
        self.assertEqual(sum(node['allocated'] for node in info['host-nodes']), MEMORY)
        self.assertEqual(self.mapped_large(vm), MEMORY)
        self.assertIn('256 MiB in huge pages',
                      vm.cmd('human-monitor-command', command_line='info guest-memfd'))
        self.assertEqual(self.map(vm), 'H' * 1024)

    def test_map(self):
        """Which part of the memory has no huge pages"""
        vm, console = self.start(
            'vm', '-device', 'virtio-balloon-pci,id=balloon0', backend=f'{GMEM},prealloc=on',
            payload='wait balloon,base=64M,size=4K balloon,base=129M,size=1M wait')
        console.expect('^waiting')
        self.assertEqual(self.map(vm), 'H' * 1024)
        self.press_key(vm)
        console.expect('^waiting')
        # 256 KiB a character, and eight of them in a huge page
        self.assertEqual(self.map(vm), 'H' * 256 + 's' * 8 + 'H' * 248 + 's' * 4 + '.' * 4
                         + 'H' * 504)

    def test_stats(self):
        vm, _ = self.start('vm', '-S', backend=f'{GMEM},prealloc=on', payload='wait')
        (entry,) = vm.cmd('query-stats', target='vm', providers=[{'provider': 'guest-memfd'}])
        stats = {stat['name']: stat['value'] for stat in entry['stats']}
        self.assertEqual(stats, {'allocated': MEMORY, 'huge': MEMORY, 'huge-fallbacks': 0,
                                 'splits': 0})

    def test_balloon(self):
        """A page that the guest gives back splits its huge page, and no other."""
        vm, console = self.start(
            'vm', '-device', 'virtio-balloon-pci,id=balloon0', backend=GMEM,
            linux='gmem.mode=wait')
        console.expect('^guest: ready')
        before = self.allocated(vm)
        vm.cmd('balloon', value=128 * MIB)
        self.wait_for('the balloon', lambda: vm.cmd('query-balloon')['actual'] <= 130 * MIB)
        self.assertLess(self.allocated(vm), before)
        vm.cmd('stop')
        info = self.info(vm)
        self.assertEqual(info['allocated'], self.allocated(vm))
        self.assertGreater(info['huge-pages']['splits'], 0)
        vm.cmd('cont')
        console.run('true')

    def test_migration(self):
        """What nobody has touched is not allocated there either."""
        vm, console = self.start('source', backend=GMEM,
                                 payload='fill,base=64M,size=16M dirty,base=32M,size=8M')
        console.expect('^pass 2')
        vm.cmd('stop')
        path = self.scratch_file('state')
        before = self.allocated(vm)
        vm.cmd('dump-guest-memory', paging=False, protocol='file:' + path)
        self.assertEqual(self.allocated(vm), before)
        vm.cmd('migrate', uri='file:' + path)
        self.wait_for_migration(vm, 'completed')
        self.assertEqual(self.allocated(vm), before)
        to = self.machine_vm('destination', '-incoming', 'file:' + path, backend=GMEM,
                             payload='fill,base=64M,size=16M dirty,base=32M,size=8M')
        to.launch()
        self.wait_for_migration(to, 'completed')
        # As much as the payload and the firmware have, in whole huge pages
        self.assertLess(self.info(to)['allocated'], 48 * MIB)
        self.assertGreaterEqual(self.huge(to)['allocated'], 24 * MIB)
        to.cmd('cont')
        self.console(to).expect('^pass ')


class GuestMemfdHostMemory(GuestMemfdTest):

    def test_all(self):
        """What a guest costs, whatever its memory is"""
        touched, other = 64 * MIB, 8 * MIB
        file = self.scratch_file('memory')
        for name, backend in (
                ('guest-memfd', GMEM), ('memfd', 'memory-backend-memfd'),
                ('ram', 'memory-backend-ram'),
                ('shared', f'memory-backend-file,mem-path={file},share=on'),
                ('private', f'memory-backend-file,mem-path={file}2,share=off')):
            vm, console = self.start(
                name, '-object', f'memory-backend-ram,id=other,size={other},prealloc=on',
                backend=backend, payload=f'fill,base=32M,size={touched} wait')
            console.expect('^waiting')
            known = [info['id'] for info in vm.cmd('query-guest-memfd')]
            self.assertEqual(known, ['ram0'] if backend == GMEM else [])
            infos = {info['id']: info for info in vm.cmd('query-guest-memfd', all=True)}
            self.assertEqual(infos['ram0']['mode'], 'shared' if backend == GMEM else 'none')
            self.assertEqual('allocated' in infos['ram0'], backend == GMEM)
            # The firmware and the payload have some memory, too.
            self.assertGreaterEqual(infos['ram0']['host-memory'], touched, name)
            self.assertLess(infos['ram0']['host-memory'], touched + 32 * MIB, name)
            self.assertEqual(infos['other']['host-memory'], other)
            vm.shutdown()


class GuestMemfdHugePagesPrivate(HugePages, GuestMemfdPrivateTest):

    def setUp(self):
        super().setUp()
        if not self.in_place:
            self.skipTest("this host's KVM does not convert memory in place")

    def test_convert(self):
        """Private memory has huge pages, shared memory has none."""
        vm, console = self.start(
            'vm', backend=f'{GMEM},huge-pages=on',
            payload=f'convert,{AREA},private=1 fill,{AREA},seed=1 wait '
            'convert,base=32M,size=4K,private=0 verify,base=32M,size=4K,seed=1 wait '
            'convert,base=32M,size=4K,private=1 '
            'convert,base=67M,size=16M,private=0 wait '
            f'verify,base=16M,size=51M,seed=1')
        console.expect('^waiting')
        size = self.huge(vm)['allocated']
        # The firmware has been at the end of memory.
        self.assertGreaterEqual(size, MEMORY - FIRST - 3 * HUGE)
        self.assertEqual(self.large(vm), size // HUGE)
        self.press_key(vm)
        console.expect('^waiting')
        self.assertEqual(self.huge(vm), {'allocated': size - HUGE, 'fallbacks': 0, 'splits': 1})
        self.press_key(vm)
        console.expect('^waiting')
        # 67 to 83 MiB: nine of them
        self.assertEqual(self.huge(vm), {'allocated': size - 10 * HUGE, 'fallbacks': 0,
                                         'splits': 10})
        self.press_key(vm)
        console.expect('^done 0 failed')

    def test_busy_page(self):
        """A page that somebody has keeps its neighbours from nothing."""
        vm, console = self.start(
            'vm', payload='fill,base=32M,size=2M,seed=1 wait '
            f'convert,base=32M,size=2M,private=1,expect={errno.EAGAIN} '
            'convert,base=32M,size=20K,private=1 convert,base=32792K,size=64K,private=1 '
            'verify,base=32M,size=20K,seed=1 wait '
            'convert,base=32M,size=2M,private=1 verify,base=32M,size=20K,seed=1')
        console.expect('^waiting')
        with self.held(vm, 32 * MIB + 5 * PAGE):
            self.press_key(vm)
            console.expect('^waiting')
        self.press_key(vm)
        console.expect('^done 0 failed')


class GuestMemfdHugePagesRefused(GuestMemfdTest):

    def refused(self, message, *args, backend=f'{GMEM},huge-pages=on', machine=''):
        vm = self.machine_vm('vm', *args, machine='q35' + machine, backend=backend,
                             payload='wait')
        self.assert_refused(vm, message)

    def test_old_kernel(self):
        if kvm_has_huge_pages():
            self.skipTest("this host's KVM has huge pages for guest_memfd")
        self.refused("'huge-pages' is on, but the host's KVM has no huge pages")

    def test_split(self):
        if GuestMemfdPrivateTest.in_place:
            self.skipTest('memory that is converted in place has no halves')
        self.refused("'huge-pages' is on, but this VM keeps private and shared memory apart",
                     '-object', 'sw-protected-guest,id=cgs0',
                     machine=',confidential-guest-support=cgs0')

    def test_bad_value(self):
        self.refused("Parameter 'huge-pages' does not accept value '2M'|"
                     "Invalid parameter '2M'", backend=f'{GMEM},huge-pages=2M')

    def test_auto(self):
        """Never an error"""
        for name, backend in ('default', GMEM), ('auto', GMEM + ',huge-pages=auto'):
            vm, console = self.start(name, backend=backend, payload='fill,base=64M,size=4M')
            console.expect('^done 0 failed')
            self.assertEqual('huge-pages' in self.info(vm), kvm_has_huge_pages())
            vm.shutdown()


if __name__ == '__main__':
    GuestMemfdTest.main()
