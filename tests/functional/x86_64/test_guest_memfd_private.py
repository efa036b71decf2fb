#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Software-protected guests: private memory, its conversion, who may see it
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import re
import socket

from guest_memfd import GuestMemfdPrivateTest, IS_LONG, LONG, MIB

GMEM = 'memory-backend-guest-memfd'
AREA = 'base=64M,size=64M'
HOLE = 'hole=3G,holesize=16M'
ROUNDS = 8000 * LONG if IS_LONG else 4000      # of a storm


class GuestMemfdPrivate(GuestMemfdPrivateTest):

    # Name, the payload's cases, backend, vCPUs, other arguments.  The VGA
    # has its window where RAM would be otherwise.
    PAYLOADS = (
        ('requests', 'cpuid-map-gpa requests,base=255M,size=1M,hole=256M',
         GMEM, 1, '-device', 'VGA'),
        ('memfd', 'private-share,base=64M,size=16M', 'memory-backend-memfd', 1),
        ('ram', 'private-share,base=64M,size=16M', 'memory-backend-ram', 1),
        ('dma', 'dma,at=80M convert,base=80M,size=8K,private=1 '
                'dma,at=80M,refused=1 dma,at=0x5001ffc,refused=1 dma,at=0x5002000 '
                'convert,base=80M,size=4K,private=0 dma,at=80M '
                'dma,at=0x5001000,refused=1',
         GMEM, 1),
        ('storm', f'storm,{AREA},{HOLE},show=1,count={ROUNDS}', GMEM, 4),
        ('storm_shadow', f'storm,{AREA},{HOLE},show=1,shadows=50,count={ROUNDS // 4}',
         GMEM, 4),
        ('storm_ram', f'storm,{AREA},{HOLE},show=1,count={ROUNDS // 2}',
         'memory-backend-ram', 4),
        ('fuzz', f'fuzz,{AREA},count={ROUNDS}', GMEM, 4),
    )
    LINUX = (('boot', GMEM), ('boot_ram', 'memory-backend-ram'))
    COSTS = (('cost', GMEM), ('cost_ram', 'memory-backend-ram'))
    LONG_COSTS = (('cost_prealloc', GMEM + ',prealloc=on'),
                  ('cost_memfd', 'memory-backend-memfd'),
                  ('cost_ram_prealloc', 'memory-backend-ram,prealloc=on'))

    def conversion(self, vm, backend='ram0'):
        info = self.info(vm, backend)
        self.assertEqual(info['mode'], self.mode)
        conversion = info['conversion']
        self.assertEqual(conversion['private'] + conversion['shared'],
                         info['size'])
        return conversion

    def compare_views(self, vm, *backends):
        """QEMU takes the same pages to be private as a storm's guest does: it
        saves zeros for them. All others have a mark."""
        views = []
        with open(self.payload_output[vm], encoding='ascii') as output:
            for line in output:
                if line.startswith('private '):
                    _, first, bits = line.split()
                    views += [(int(first, 0) + page * 4096, int(bits, 0) >> page & 1)
                              for page in range(64)]
        path = self.scratch_file('memory')
        start, end = views[0][0], views[-1][0] + 4096
        self.assertEqual(end - start, 4096 * len(views))
        vm.cmd('pmemsave', val=start, size=end - start, filename=path)
        with open(path, 'rb') as memory:
            for address, private in views:
                zero = not memory.read(4096).strip(b'\0')
                self.assertEqual(zero, private, f'page {address:x}')
        self.assertEqual(
            sum(self.conversion(vm, backend)['private']
                for backend in backends or ['ram0']),
            4096 * sum(private for _, private in views))

    def payload(self, cases, backend, cpus, *args):
        vm, console = self.start('vm', '-smp', str(cpus), *args,
                                 payload=cases, backend=backend)
        console.expect('^done 0 failed')
        self.assert_bound(vm)
        if 'show=1' in cases:
            self.compare_views(vm)
        conversion = self.conversion(vm)
        self.assertGreater(conversion['to-private'], 0)
        self.assertGreater(conversion['pages-to-shared'], 0)
        self.assertLessEqual(
            {failure['errno'] for failure in conversion['failures']},
            {22}, 'only EINVAL is to be expected')

    def test_two_backends(self):
        """A request may lie in several backends."""
        vm, console = self.start(
            'vm', '-smp', '2',
            '-object', f'{GMEM},id=node0,size=128M',
            '-object', f'{GMEM},id=node1,size=128M',
            '-numa', 'node,memdev=node0', '-numa', 'node,memdev=node1',
            backend=None,
            payload='convert,base=96M,size=64M,private=1 '
                    'zero,base=96M,size=64M '
                    'convert,base=112M,size=32M,private=0 '
                    'storm,base=64M,size=64M,base2=128M,size2=64M,show=1,'
                    f'count={3000 if IS_LONG else 1500}')
        console.expect('^done 0 failed')
        self.compare_views(vm, 'node0', 'node1')
        for backend in 'node0', 'node1':
            self.assertGreater(self.conversion(vm, backend)['to-private'], 0)

    def cost(self, backend):
        """A guest that makes all memory private, but for its own code, takes the host's
        memory once."""
        size = 128 * MIB
        area = f'base=2M,size={size // MIB - 2}M'
        vm = self.machine_vm('vm', '-S', memory=size // MIB, backend=backend,
                             payload=f'fill,{area} convert,{area},private=1 fill,{area} wait')
        vm.launch()
        before = self.host_memory(vm)
        if 'prealloc' in backend:
            before -= size
        vm.cmd('cont')
        console = self.console(vm)
        console.expect('^waiting')
        self.assertEqual(self.conversion(vm)['private'], size - 2 * MIB)
        taken = self.host_memory(vm) - before
        self.log.info('%s: %.3f of the memory', backend, taken / size)
        self.assertGreaterEqual(taken, 0.98 * size)
        # What QEMU takes for itself is in it.
        self.assertLessEqual(taken, 1.05 * size)
        if self.in_place:
            self.assertLessEqual(self.allocated(vm), size)
        self.press_key(vm)
        console.expect('^done 0 failed')

    def linux(self, backend):
        vm, console = self.start('vm', linux='gmem.mode=wait', backend=backend)
        console.expect('^guest: ready')
        self.assertIn('Linux', console.run('uname -a'))
        self.assert_bound(vm)
        self.assertEqual(self.conversion(vm)['private'], 0)

    def test_reset(self):
        """All pages are shared again, and private contents are gone."""
        vm, console = self.start(
            'vm', payload='zero,base=80M,size=4M '
                          'convert,base=80M,size=4M,private=1 '
                          'zero,base=80M,size=4M '
                          'fill,base=80M,size=4M,seed=9 '
                          'verify,base=80M,size=4M,seed=9')
        for number in range(20):
            console.expect('^done 0 failed')
            conversion = self.conversion(vm)
            self.assertEqual(conversion['private'], 4 * MIB)
            self.assertEqual(conversion['to-private'], number + 1)
            self.assertEqual(self.allocated(vm, 80 * MIB, 4 * MIB), 4 * MIB)
            self.assertEqual(self.allocated(vm), self.info(vm)['allocated'])
            vm.cmd('system_reset')
            self.wait_for('all is shared again', lambda number=number:
                          self.conversion(vm)['to-shared'] == number + 1)
        console.expect('^done 0 failed')
        self.assert_bound(vm)

    def test_sandbox(self):
        """Private memory needs no system call that a sandbox forbids."""
        with open('/proc/self/status', encoding='ascii') as status:
            if 'Seccomp:' not in status.read():
                self.skipTest('this kernel has no seccomp')
        vm, console = self.start(
            'vm', '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,'
                              'spawn=deny,resourcecontrol=deny',
            payload='convert,base=80M,size=32M,private=1 '
                    'fill,base=80M,size=4M,seed=9 '
                    'convert,base=80M,size=8K,private=0')
        for number in range(2):
            console.expect('^done 0 failed')
            self.assertEqual(self.conversion(vm)['private'], 32 * MIB - 8192)
            vm.cmd('system_reset')
            self.wait_for('all is shared again', lambda number=number:
                          self.conversion(vm)['to-shared'] >= 2 * number + 2)

    def test_migration(self):
        """Refused as long as there is private memory."""
        vm, console = self.start(
            'vm', payload='convert,base=80M,size=3M,private=1 '
                          'reset,count=1')
        console.expect('^boot 0')
        console.expect('^done 0 failed')
        uri = 'file:' + self.scratch_file('migration')
        with self.assertRaisesRegex(Exception, '3145728 bytes'):
            vm.cmd('migrate', uri=uri)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        self.assertIn('3145728 bytes', vm.cmd(
            'human-monitor-command', command_line='savevm one'))
        vm.cmd('stop')
        vm.cmd('system_reset')
        self.assertEqual(self.conversion(vm)['private'], 0)
        vm.cmd('migrate', uri=uri)
        self.wait_for('the migration is over', lambda: vm.cmd('query-migrate')
                      ['status'] == 'completed')

    @staticmethod
    def gdb_read(sock, address, size):
        """What gdb's packet for reading memory is answered with."""
        packet = f'm{address:x},{size:x}'
        sock.sendall(f'${packet}#{sum(packet.encode()) % 256:02x}'.encode())
        data = b''
        while not re.search(b'#..', data):
            data += sock.recv(4096)
        sock.sendall(b'+')
        return re.search(rb'\$(.*)#..', data)[1].decode()

    def test_access(self):
        """QEMU itself gets at shared memory alone."""
        gdb = os.path.join(self.socket_dir().name, 'gdb')
        vm, console = self.start(
            'vm', '-chardev', f'socket,id=gdb,path={gdb},server=on,wait=off',
            '-gdb', 'chardev:gdb',
            payload='convert,base=80M,size=1M,private=1 '
                    'fill,base=80M,size=1M,seed=7 fill,base=81M,size=1M,seed=7 '
                    'verify,base=80M,size=1M,seed=7')
        console.expect('^done 0 failed')
        vm.cmd('stop')

        dump = self.scratch_file('memory')
        vm.cmd('pmemsave', val=80 * MIB - 4096, size=2 * MIB + 4096,
               filename=dump)
        with open(dump, 'rb') as memory:
            memory.read(4096)
            self.assertEqual(memory.read(MIB).strip(b'\0'), b'')
            self.assertNotIn(0, [sum(memory.read(4096)) for _ in range(256)])

        def xp(address):
            return vm.cmd('human-monitor-command',
                          command_line=f'xp /1xg {address}')

        self.assertIn('Cannot access memory', xp(80 * MIB))
        self.assertIn('Cannot access memory', xp(81 * MIB - 8))
        self.assertRegex(xp(81 * MIB), ': 0x[0-9a-f]{16}')
        text = vm.cmd('human-monitor-command', command_line='info guest-memfd')
        self.assertIn('private 1 MiB, shared 255 MiB', text)
        # 256 KiB a character: the MiB that is private, and one that is shared
        self.assertIn('000005000000 PPPPssss....', text)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(gdb)
            self.assertRegex(self.gdb_read(sock, 80 * MIB, 8), '^E..$')
            self.assertRegex(self.gdb_read(sock, 81 * MIB - 4, 8), '^E..$')
            self.assertRegex(self.gdb_read(sock, 81 * MIB, 8), '^[0-9a-f]{16}$')
            self.assertEqual(self.conversion(vm)['private'], 1 * MIB)
        vm.cmd('cont')

    def test_busy(self):
        """Nothing becomes private while a migration runs."""
        vm, console = self.start(
            'vm', payload='fill,base=32M,size=8M wait '
                          'convert,base=80M,size=4K,private=1,expect=16 wait '
                          'convert,base=80M,size=4K,private=1')
        console.expect('^waiting')
        self.migrate_nowhere(vm)
        self.press_key(vm)
        console.expect('^waiting')
        self.assertEqual(vm.cmd('query-migrate')['status'], 'active')
        self.assertEqual(self.conversion(vm)['private'], 0)
        self.cancel_migration(vm)
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.conversion(vm)['private'], 4096)
        self.assertEqual(self.conversion(vm)['failures'][0]['errno'], 16)


GuestMemfdPrivate.add_cases('payload', GuestMemfdPrivate.PAYLOADS)
GuestMemfdPrivate.add_cases('linux', GuestMemfdPrivate.LINUX)
GuestMemfdPrivate.add_cases('cost', GuestMemfdPrivate.COSTS)
if IS_LONG:
    GuestMemfdPrivate.add_cases('cost', GuestMemfdPrivate.LONG_COSTS)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
