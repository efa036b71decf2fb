#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Private memory that is converted in place: pages that something else uses, NUMA,
# and what the host's memory holds
#
# Copyright (c) 2026 The qemu-gmem developers

import errno
import os
import re

from guest_memfd import GuestMemfdPrivateTest, MIB, PAGE

AREA = 'base=80M,size=64K'
BUSY = 80 * MIB + 5 * PAGE          # a page of it
EVENT = 'GUEST_MEMFD_CONVERSION_FAILED'
HOUR = 3600             # in seconds: until something kicks the vCPU
NODES = '/sys/devices/system/node'


class GuestMemfdPrivateInPlace(GuestMemfdPrivateTest):

    def setUp(self):
        super().setUp()
        if not self.in_place:
            self.skipTest("this host's KVM does not convert memory in place")

    def waiting_for_page(self, *then, **kwargs):
        """A VM whose guest wants to make the area private, of which a page is
        used: it waits until something kicks its vCPU."""
        vm, console = self.start_faulty(
            'vm', payload=f'fill,{AREA},seed=3 wait convert,{AREA},private=1'
            + ''.join(then), **kwargs)
        console.expect('^waiting')
        self.arm('busy', HOUR)
        return vm, console

    def wait_for_sleep(self, vm):
        self.wait_for('the request waits', lambda: self.sleeps(vm))

    def test_busy_page(self):
        """The request fails when the page stays in use; nothing has changed, and
        who asks is told which page it is.  When it is free, the next one works."""
        vm, console = self.start(
            'vm', payload=f'fill,{AREA},seed=3 wait '
            f'convert,{AREA},private=1,expect={errno.EAGAIN} verify,{AREA},seed=3 '
            f'convert,base=80M,size=20K,private=1 verify,base=80M,size=20K,seed=3 '
            f'convert,{AREA},private=0 wait '
            f'convert,{AREA},private=1 verify,{AREA},seed=3')
        console.expect('^waiting')
        with self.held(vm, BUSY):
            self.press_key(vm)
            console.expect('^waiting')
            event = vm.event_wait(EVENT)
            self.assertEqual(event['data'], {
                'address': 80 * MIB, 'size': 64 * 1024, 'to-private': True,
                'errno': errno.EAGAIN, 'error': os.strerror(errno.EAGAIN),
                'busy-address': BUSY})
            conversion = self.info(vm)['conversion']
            self.assertEqual([(failure['errno'], failure['count']) for failure in
                              conversion['failures']], [(errno.EAGAIN, 1)])
            self.assertEqual(conversion['private'], 0)
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), 64 * 1024)
        vm.shutdown()
        self.assertIn(f'at {BUSY:#x} cannot become private while', vm.get_log())

    def test_wait(self):
        """The request goes on when the page is free; others go on meanwhile."""
        vm, console = self.waiting_for_page(f' verify,{AREA},seed=3', accel='kvm')
        with self.held(vm, BUSY):
            self.press_key(vm)
            self.wait_for_sleep(vm)
            # Nobody uses what may be private in a moment.
            self.assertEqual(self.private(vm), 64 * 1024)
            path = self.scratch_file('memory')
            vm.cmd('pmemsave', val=80 * MIB, size=64 * 1024, filename=path)
            with open(path, 'rb') as file:
                self.assertEqual(file.read().strip(b'\0'), b'')
            self.assertEqual(self.private(vm), 64 * 1024)
        self.disarm()
        vm.cmd('stop')
        vm.cmd('cont')
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), 64 * 1024)

    def test_stop(self):
        """A VM that stops in the middle of it has no page in between."""
        vm, console = self.waiting_for_page()
        with self.held(vm, BUSY):
            self.press_key(vm)
            self.wait_for_sleep(vm)
            vm.cmd('stop')
            self.assertEqual(self.private(vm), 0)
            self.assertNotIn('Cannot access memory', vm.cmd(
                'human-monitor-command', command_line=f'xp /1xg {BUSY}'))
            vm.cmd('cont')
            self.wait_for_sleep(vm)
            vm.cmd('stop')
        self.disarm()
        vm.cmd('cont')
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), 64 * 1024)

    def test_reset(self):
        vm, console = self.waiting_for_page()
        with self.held(vm, BUSY):
            self.press_key(vm)
            self.wait_for_sleep(vm)
            vm.cmd('system_reset')
            console.expect('^waiting')
            self.assertEqual(self.private(vm), 0)
        self.disarm()
        self.press_key(vm)
        console.expect('^done 0 failed')

    def test_quit(self):
        vm, _ = self.waiting_for_page()
        with self.held(vm, BUSY):
            self.press_key(vm)
            self.wait_for_sleep(vm)
            vm.cmd('quit')
            vm.wait()
        self.assertEqual(vm.exitcode(), 0)

    def test_background_snapshot(self):
        """userfaultfd, which it needs, does not support a guest_memfd."""
        vm, console = self.start('vm', payload='hello')
        console.expect('^done 0 failed')
        with self.assertRaisesRegex(Exception, 'Background-snapshot is not compatible'):
            vm.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'background-snapshot', 'state': True}])

    def test_share_needs_nobody(self):
        """Who uses a page does not keep it from being shared."""
        vm, console = self.start(
            'vm', payload=f'fill,{AREA},seed=3 wait convert,{AREA},private=0 '
            f'convert,base=96M,size=64K,private=1 verify,{AREA},seed=3')
        console.expect('^waiting')
        with self.held(vm, BUSY):
            self.press_key(vm)
            console.expect('^done 0 failed')

    def mapped_by_node(self, vm):
        """Bytes of guest_memfds that QEMU has touched, by the node that gave them"""
        maps = ' '.join(self.maps(vm))
        return [sum(map(int, re.findall(f' N{node}=([0-9]+)', maps))) * PAGE
                for node in range(2)]

    def private_by_node(self, size, options):
        """Bytes that each node gives for 64 MiB of private pages.  QEMU counts what it
        touches, so they are shared again then, where they are."""
        if not os.path.exists(f'{NODES}/node1'):
            self.skipTest('this host has no two NUMA nodes, as with numa=fake=2U')
        vm, console = self.start(
            'vm', '-m', size, '-object', f'memory-backend-guest-memfd,id=ram0,size={size},'
            + options, '-machine', 'memory-backend=ram0',
            backend=None, payload='convert,base=64M,size=64M,private=1 '
            'fill,base=64M,size=64M,seed=3 verify,base=64M,size=64M,seed=3 '
            'convert,base=64M,size=64M,private=0 wait')
        console.expect('^waiting')
        self.assertEqual(self.allocated(vm, 64 * MIB, 64 * MIB), 64 * MIB)
        before = self.mapped_by_node(vm)
        vm.cmd('pmemsave', val=64 * MIB, size=64 * MIB, filename='/dev/null')
        after = self.mapped_by_node(vm)
        self.press_key(vm)
        console.expect('^done 0 failed')
        return [after[i] - before[i] for i in range(2)]

    def numa(self, node):
        """Private pages come from the node that the policy says."""
        grown = self.private_by_node('256M', f'host-nodes={node},policy=bind')
        self.assertEqual((grown[node], grown[1 - node]), (64 * MIB, 0))

    def test_numa_amd(self):
        """As AMD's testers write it, with another guest than theirs"""
        self.machine_args = ('-object', 'sw-protected-guest,id=cgs0,convert-in-place=on')
        grown = self.private_by_node('60G', 'share=on,host-nodes=0-1,policy=interleave')
        self.assertEqual(grown, [32 * MIB, 32 * MIB])

    def test_prealloc(self):
        """All memory is there from the start, and stays what it was: once."""
        vm, console = self.start(
            'vm', '-object', 'memory-backend-guest-memfd,id=ram0,size=256M,prealloc=on',
            '-machine', 'memory-backend=ram0', backend=None,
            payload='convert,base=64M,size=128M,private=1 '
                    'fill,base=64M,size=128M convert,base=64M,size=128M,private=0 '
                    'verify,base=64M,size=128M')
        self.assertEqual(self.allocated(vm), 256 * MIB)
        console.expect('^done 0 failed')
        self.assertEqual(self.allocated(vm), 256 * MIB)
        self.assertEqual(len(self.guest_memfds(vm)), 1)
        self.assertLess(self.process_status(vm, 'RssAnon'), 128 * MIB)

    def test_slots(self):
        """Memory slots that come and go change no page's state."""
        vm, console = self.start(
            'vm', '-trace', 'kvm_gmem_set_file_attribute',
            payload='convert,base=64K,size=64K,private=1 fill,base=64K,size=64K,seed=3 '
                    f'convert,{AREA},private=1 fill,{AREA},seed=4 '
                    'shadow shadow shadow '
                    f'verify,base=64K,size=64K,seed=3 verify,{AREA},seed=4')
        console.expect('^done 0 failed')
        vm.shutdown()
        self.assertEqual(vm.get_log().count('kvm_gmem_set_file_attribute'), 2,
                         vm.get_log())


GuestMemfdPrivateInPlace.add_cases('numa', (('numa_0', 0), ('numa_1', 1)))

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
