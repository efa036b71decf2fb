#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Software-protected guests: private memory, its conversion, who may see it
#
# Copyright (c) 2026 The qemu-gmem developers

from guest_memfd import GuestMemfdTest, MIB

GMEM = 'memory-backend-guest-memfd'
AREA = 'base=64M,size=64M'
HOLE = 'hole=3G,holesize=16M'


class GuestMemfdPrivate(GuestMemfdTest):

    machine_args = ('-object', 'sw-protected-guest,id=cgs0')
    machine_props = ',confidential-guest-support=cgs0'

    # Name, the payload's cases, backend, vCPUs, other arguments.  The VGA
    # has its window where RAM would be otherwise.
    PAYLOADS = (
        ('requests', 'cpuid-map-gpa requests,base=224M,size=32M,hole=256M',
         GMEM, 1, '-device', 'VGA'),
        ('memfd', 'private-share,base=64M,size=16M', 'memory-backend-memfd', 1),
        ('ram', 'private-share,base=64M,size=16M', 'memory-backend-ram', 1),
        ('storm', f'storm,{AREA},{HOLE},count=8000', GMEM, 4),
        ('storm_ram', f'storm,{AREA},{HOLE},count=4000',
         'memory-backend-ram', 4),
        ('fuzz', f'fuzz,{AREA},count=8000', GMEM, 4),
    )
    LINUX = (('boot', GMEM), ('boot_ram', 'memory-backend-ram'))

    def conversion(self, vm, backend='ram0'):
        info = self.info(vm, backend)
        self.assertEqual(info['mode'], 'split')
        conversion = info['conversion']
        self.assertEqual(conversion['private'] + conversion['shared'],
                         info['size'])
        return conversion

    def payload(self, cases, backend, cpus, *args):
        vm, console = self.start('vm', '-smp', str(cpus), *args,
                                 payload=cases, backend=backend)
        console.expect('^done 0 failed', 300)
        self.assert_bound(vm)
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
                    'storm,base=64M,size=64M,base2=128M,size2=64M,count=3000')
        console.expect('^done 0 failed', 200)
        for backend in 'node0', 'node1':
            self.assertGreater(self.conversion(vm, backend)['to-private'], 0)

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
            self.assertEqual(self.info(vm)['allocated'], 4 * MIB)
            vm.cmd('system_reset')
            self.wait_for('all is shared again', lambda number=number:
                          self.conversion(vm)['to-shared'] == number + 1)
        console.expect('^done 0 failed')
        self.assert_bound(vm)

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

    def test_busy(self):
        """Nothing becomes private while a migration runs."""
        vm, console = self.start(
            'vm', payload='dirty,base=32M,size=8M,passes=2000 '
                          'convert,base=80M,size=4K,private=1,expect=16')
        console.expect('^pass 0')
        vm.cmd('migrate-set-parameters', max_bandwidth=1 * MIB,
               downtime_limit=1)
        vm.cmd('migrate', uri='file:' + self.scratch_file('migration'))
        console.expect('^done 0 failed', 60)
        self.assertEqual(vm.cmd('query-migrate')['status'], 'active')
        self.assertEqual(self.conversion(vm)['private'], 0)
        self.assertEqual(self.conversion(vm)['failures'][0]['errno'], 16)
        vm.cmd('migrate_cancel')
        self.wait_for('cancelled', lambda: vm.cmd('query-migrate')['status']
                      == 'cancelled')


GuestMemfdPrivate.add_cases('payload', GuestMemfdPrivate.PAYLOADS)
GuestMemfdPrivate.add_cases('linux', GuestMemfdPrivate.LINUX)

if __name__ == '__main__':
    GuestMemfdTest.main()
