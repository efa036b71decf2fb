#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Software-protected guests that do what they should not, and what happens to
# them meanwhile
#
# Copyright (c) 2026 The qemu-gmem developers

import json
import os
import signal
import socket
import threading
import time
import unittest

from guest_memfd import (GuestMemfdPrivateTest, HANG, IS_LONG, LONG, MIB, SLOW, VhostUserPeer,
                         converts_in_place)
from guest_memfd_operations import start_server

GMEM = 'memory-backend-guest-memfd'
LINUX_STARTED = 'guest: ready'
LIFE = 2000 * LONG if IS_LONG else 500      # requests of a hostile guest


class Watcher(threading.Thread):
    """Asks for all that there is to know of a VM's private memory, again and
    again, on a monitor of its own."""

    HMP = {'execute': 'human-monitor-command',
           'arguments': {'command-line': 'info guest-memfd'}}
    COMMANDS = {'execute': 'query-guest-memfd'}, HMP

    def __init__(self, path):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.file = self.sock.makefile('rw')
        self.answers = 0
        self.ending = False
        self.error = None

    def command(self, command):
        self.file.write(json.dumps(command) + '\n')
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise EOFError('QEMU has closed the monitor')
            answer = json.loads(line)
            if 'error' in answer:
                raise ValueError(answer['error'])
            if 'return' in answer:
                return answer['return']

    def check(self, blocks):
        for block in blocks:
            conversion = block['conversion']
            if conversion['private'] + conversion['shared'] != block['size']:
                raise ValueError(f'that does not add up: {block}')

    def run(self):
        try:
            self.file.readline()        # the greeting
            self.command({'execute': 'qmp_capabilities'})
            while not self.ending:
                blocks, text = map(self.command, self.COMMANDS)
                self.check(blocks)
                if f'ram0: {GuestMemfdPrivateTest.mode}' not in text:
                    raise ValueError(text)
                self.answers += 1
                time.sleep(0.05)
        except Exception as e:          # pylint: disable=broad-except
            if not self.ending:
                self.error = e


class GuestMemfdPrivateHostile(GuestMemfdPrivateTest):

    # Name, the payload's cases, backend, vCPUs, options of the second disk's file
    VIRTIO = (
        ('virtio', 'virtio,base=80M,size=64K', GMEM, 1),
        ('virtio_ram', 'virtio,base=80M,size=64K', 'memory-backend-ram', 1),
        ('virtio_flight', 'virtio,base=80M,size=64K,disk=1,flight=1', GMEM, 1),
        ('virtio_fuzz', f'fuzz,base=64M,size=64M,hole=3G,count={8000 * LONG} '
                        'virtio,base=80M,size=64K', GMEM, 4),
    )
    VIRTIO_LONG = (
        ('virtio_flight_ram', 'virtio,base=80M,size=64K,disk=1,flight=1',
         'memory-backend-ram', 1),
        # The guest's buffer is not aligned for that, so a thread of QEMU's copies.
        ('virtio_flight_copy', 'virtio,base=80M,size=64K,disk=1,flight=1', GMEM, 1,
         ',cache.direct=on'),
    )

    def disk(self, name, can_hold=False, options=''):
        """A small disk that is a file; the test may hold its requests."""
        path = self.scratch_file(name)
        with open(path, 'wb') as file:
            file.truncate(64 * 1024)
        args = ['-blockdev', f'file,node-name={name}-file,filename={path}{options}']
        node = f'{name}-file'
        if can_hold:
            args += ['-blockdev', f'blkdebug,node-name={name}-debug,image={node}',
                     '-blockdev', f'raw,node-name={name},file={name}-debug']
            node = name
        return [*args, '-device', f'virtio-blk-pci,id={name},drive={node}']

    def conversion(self, vm):
        return self.info(vm)['conversion']

    def requests(self, vm):
        """Conversions that the guest has asked for, good and bad."""
        conversion = self.conversion(vm)
        return (conversion['to-private'] + conversion['to-shared'] +
                sum(failure['count'] for failure in conversion['failures']))

    def virtio(self, cases, backend, cpus, options=''):
        """A device gets nothing of private memory, and lives on."""
        vm, console = self.start('vm', '-smp', str(cpus), *self.disk('disk0'),
                                 *self.disk('disk1', True, options), payload=cases,
                                 backend=backend)
        while (word := console.expect('^(hold|release|done 0 failed)')[1]) != b'done 0 failed':
            self.hold_disk(vm, word == b'hold')
        self.assertGreater(self.requests(vm), 100)
        if self.in_place and options:
            vm.shutdown()
            self.assertIn('has made memory private that QEMU', vm.get_log())

    def hostile_life(self, vm, console, seeds):
        """Until it has destroyed itself, or asked for enough; then from anew.
        It may just be slow, so each life is waited for a bit longer."""
        before = self.requests(vm)
        seeds.append(console.expect(r'^# fuzz: seed (\d+)')[1].decode())
        last = None
        while last != (last := self.requests(vm)) and last - before < LIFE:
            time.sleep(len(seeds))
        stopped = vm.cmd('query-status')['status'] != 'running'
        vm.cmd('system_reset')
        if stopped:
            self.wait_for('a reset', lambda: vm.cmd('query-status')['status']
                          in ('prelaunch', 'running'))
            vm.cmd('cont')

    def test_neighbour(self):
        """A guest does anything it can to QEMU; another one sees nothing."""
        victim = start_server(self, '-smp', '2')
        victim.run('fill,base=128M,size=16M,seed=5')
        hostile, console = self.start(
            'hostile', '-smp', '4', *self.disk('disk0'),
            '-device', 'virtio-balloon-pci', '-device', 'virtio-rng-pci',
            '-device', 'VGA',
            payload='fuzz,base=32M,size=192M,hole=256M,self=1,count=1000000')
        console.check = lambda end: None    # nothing it says is of interest
        seeds = []
        try:
            while len(seeds) < 3 or self.requests(hostile) < 200 * LONG:
                victim.send(f'storm,base=64M,size=32M,count={300 * LONG} '
                            'verify,base=128M,size=16M,seed=5')
                self.hostile_life(hostile, console, seeds)
                victim.served()
        except Exception as e:          # pylint: disable=broad-except
            hostile.kill()
            self.fail(f'{e!r} with one of {seeds[-3:]}: '
                      f'{(hostile.get_log() or "")[-500:]}')
        self.assertGreater(self.requests(victim.vm), 0)
        self.assertEqual(self.conversion(victim.vm)['failures'], [])
        self.assertTrue(hostile.is_running())

    def wait_for_conversions(self, vm):
        before = self.requests(vm)
        self.wait_for('there are conversions', lambda:
                      self.requests(vm) > before)

    def test_management(self):
        """Paused, continued, reset, given a DIMM, and at last quit, all of it
        in the middle of a storm."""
        monitor = os.path.join(self.socket_dir().name, 'monitor')
        vm, console = self.start(
            'vm', '-smp', '4', '-m', '256M,slots=16,maxmem=4G',
            '-chardev', f'socket,id=mon1,path={monitor},server=on,wait=off',
            '-mon', 'chardev=mon1,mode=control',
            payload='storm,base=64M,size=64M,hole=3G,holesize=16M,'
                    f'count={10 ** 6}')
        watcher = Watcher(monitor)
        watcher.start()
        for number in range(min(2 * LONG, 16)):
            console.expect('^# storm: seed')
            self.wait_for_conversions(vm)
            vm.cmd('stop')
            before = self.requests(vm)
            time.sleep(0.5)
            self.assertEqual(self.requests(vm), before)
            vm.cmd('cont')
            self.wait_for_conversions(vm)
            memory = f'mem{number}'
            vm.cmd('object-add', args_dict={
                'qom-type': GMEM, 'id': memory, 'size': 128 * MIB})
            vm.cmd('device_add', driver='pc-dimm', id=f'dimm{number}',
                   memdev=memory)
            self.assert_bound(vm, 'ram0')
            self.assertEqual([slot['binding'] for slot in
                              self.slots(vm, memory)], ['bound'])
            self.wait_for_conversions(vm)
            console.skip()
            vm.cmd('system_reset')
        console.expect('^# storm: seed')
        self.wait_for_conversions(vm)
        self.wait_for('there are answers', lambda:
                      watcher.error or watcher.answers > 10)
        self.assertIsNone(watcher.error, repr(watcher.error))
        watcher.ending = True
        vm.shutdown()
        watcher.join(HANG)
        self.assertEqual(vm.exitcode(), 0)

    def test_reboot(self):
        """Linux, several times; nothing is left over from any of them."""
        vm, console = self.start('vm', memory=128, linux='gmem.mode=wait')
        console.expect(LINUX_STARTED)
        slots = self.slots(vm)
        sizes = []
        for _ in range(20 if IS_LONG else 3):
            console.socket.sendall(b'reboot -f\n')
            console.expect(LINUX_STARTED)
            sizes.append(self.process_status(vm, 'VmRSS'))
        self.assertIn('Linux', console.run('uname -a'))
        self.assert_bound(vm)
        self.assertEqual(self.slots(vm), slots)
        self.assertEqual(len(self.guest_memfds(vm)), 1)
        self.assertEqual(self.conversion(vm)['private'], 0)
        if not self.in_place:
            self.assertEqual(self.info(vm)['allocated'], 0)
        if SLOW == 1:   # a sanitizer keeps what is freed
            self.assertLess(sizes[-1] - sizes[1], 8 * MIB, sizes)

    def balloon(self, backend):
        """What the guest gives away is freed, shared or private."""
        vm, console = self.start(
            'vm', '-device', 'virtio-balloon-pci', backend=backend,
            payload='fill,base=64M,size=8M balloon,base=64M,size=8M '
                    'zero,base=64M,size=8M '
                    'convert,base=80M,size=8M,private=1 '
                    'fill,base=80M,size=8M,seed=3 '
                    'balloon,base=80M,size=4M '
                    'verify,base=84M,size=4M,seed=3')
        console.expect('^done 0 failed')
        self.assertEqual(self.allocated(vm, 80 * MIB, 8 * MIB), 4 * MIB)
        self.assertEqual(self.conversion(vm)['private'], 8 * MIB)

    def end_wait(self, vm, console):
        self.press_key(vm)
        console.expect('^ok wait')

    def shared(self, vm):
        """Shared memory of the guest that the host has allocated; in place, all of
        its memory."""
        if self.in_place:
            return self.allocated(vm)
        return sum(self.process_status(vm, key) for key in ('RssAnon', 'RssShmem'))

    def report(self, backend):
        """Pages that are reported free are freed, in both halves, keep their
        state and read as zeros; no request stops the device."""
        vm, console = self.start(
            'vm', '-device', 'virtio-balloon-pci,free-page-reporting=on',
            backend=backend,
            payload='fill,base=64M,size=8M convert,base=80M,size=8M,private=1 '
                    'fill,base=80M,size=16M,seed=3 wait '
                    'report,base=64M,size=4M,step=1M '
                    # One piece of both, private and shared
                    'report,base=80M,size=12M wait '
                    'zero,base=64M,size=4M verify,base=68M,size=4M '
                    'zero,base=80M,size=12M verify,base=92M,size=4M,seed=3 wait '
                    # A part of a page is not freed.
                    'fill,base=80M,size=16K,seed=4 '
                    'report,base=0x5000800,size=0x2000 '
                    'verify,base=80M,size=4K,seed=4 '
                    'verify,base=0x5002000,size=8K,seed=4 '
                    'report,base=64M,size=0,broken=1 '
                    'report,base=64M,size=64M,any=1 '
                    'fill,base=80M,size=4K report,base=80M,size=4K '
                    'zero,base=80M,size=4K')
        private = 80 * MIB, 8 * MIB
        console.expect('^waiting')
        self.assertEqual(self.allocated(vm, *private), 8 * MIB)
        before = self.shared(vm)
        self.end_wait(vm, console)
        console.expect('^waiting')
        self.assertEqual(self.allocated(vm, *private), 0)
        self.assertAlmostEqual(before - self.shared(vm),
                               (16 if self.in_place else 8) * MIB, delta=512 * 1024)
        self.end_wait(vm, console)
        console.expect('^waiting')
        self.assertEqual(self.allocated(vm, *private), 8 * MIB)
        self.end_wait(vm, console)
        console.expect('^done 0 failed')
        self.assertEqual(self.conversion(vm)['private'], 8 * MIB)

    def test_hint(self):
        """Free page hints: nothing the guest can name stops the device, or QEMU,
        while a migration asks for them or at any other time."""
        vm, console = self.start(
            'vm', '-object', 'iothread,id=io', '-device',
            'virtio-balloon-pci,free-page-hint=on,iothread=io',
            payload='fill,base=16M,size=56M,seed=3 '
                    'hint,base=64M,size=8M,step=1M,any=1 '
                    'wait convert,base=80M,size=8M,private=1 '
                    'fill,base=80M,size=8M,seed=3 '
                    'hint,base=76M,size=16M,any=1,unasked=1 '
                    'verify,base=80M,size=8M,seed=3')
        # Ten pages a second of what is no hint: longer than anything here takes.
        vm.cmd('migrate-set-parameters', **{'max-bandwidth': 4096})
        console.expect('^hint: ready')
        vm.cmd('migrate', uri='exec:cat > /dev/null')
        console.expect('^waiting')
        self.assertEqual(vm.cmd('query-migrate')['status'], 'active')
        self.cancel_migration(vm)
        self.end_wait(vm, console)
        console.expect('^done 0 failed')

    def test_vhost_user(self):
        """A ring in private memory is not started, and memory that changes, or
        a daemon that ends, harms nobody."""
        path = os.path.join(self.socket_dir().name, 'vhost')
        peer = VhostUserPeer(path)
        self.addCleanup(peer.close)
        up = 'ring,type=26,base={} shadow '
        vm, console = self.start(
            'vm', '-chardev', f'socket,id=fs,path={path}',
            '-device', 'vhost-user-fs-pci,chardev=fs,tag=fs,iommu_platform=off',
            payload='convert,base=80M,size=8K,private=1 ' + up.format('80M')
                    + up.format('0x5001f00') + up.format('64M')
                    + 'convert,base=64M,size=4K,private=1 shadow '
                      'convert,base=64M,size=4K,private=0 shadow wait '
                      'convert,base=64M,size=4K,private=1 shadow '
                    + up.format('80M') + up.format('96M'))
        console.expect('^waiting')
        self.assertIn(peer.SET_MEM_TABLE, peer.requests)
        peer.close()
        self.end_wait(vm, console)
        console.expect('^done 0 failed')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    @unittest.skipUnless(converts_in_place(), 'the daemon has the shared half')
    def test_vhost_user_daemon(self):
        """One that touches a private page ends; QEMU and the guest live on."""
        disk = self.scratch_file('disk')
        with open(disk, 'wb') as file:
            file.truncate(64 * 1024)
        daemon, path = self.storage_daemon(disk)
        vm, console = self.start(
            'vm', '-chardev', f'socket,id=vhost,path={path}',
            '-device', 'vhost-user-blk-pci,chardev=vhost,iommu_platform=off',
            payload='fill,base=64M,size=64K ring,type=2,base=80M,private=1 wait '
                    'convert,base=64M,size=64K,private=1 verify,base=64M,size=64K')
        console.expect('^waiting')
        self.assertEqual(daemon.wait(), -signal.SIGBUS)
        self.end_wait(vm, console)
        console.expect('^done 0 failed')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def virtio_mem(self, backend):
        """Cannot have memory with a private half, and says so."""
        vm = self.machine_vm(
            'vm', '-m', '256M,maxmem=1G', '-object', f'{backend},id=mem1,size=128M',
            '-device', 'virtio-mem-pci,id=vmem,memdev=mem1,requested-size=64M',
            payload='hello')
        self.assert_refused(vm, 'virtio-mem.*private memory.*mem1')


GuestMemfdPrivateHostile.add_cases('virtio', GuestMemfdPrivateHostile.VIRTIO)
if IS_LONG:
    GuestMemfdPrivateHostile.add_cases('virtio', GuestMemfdPrivateHostile.VIRTIO_LONG)
GuestMemfdPrivateHostile.add_cases('balloon', (
    ('balloon', GMEM), ('balloon_ram', 'memory-backend-ram')))
GuestMemfdPrivateHostile.add_cases('report', (
    ('report', GMEM), ('report_ram', 'memory-backend-ram')))
GuestMemfdPrivateHostile.add_cases('virtio_mem', (
    ('virtio_mem', GMEM), ('virtio_mem_ram', 'memory-backend-ram')))

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
