#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Private memory, as the monitor tells of it: statistics, events, dumps
#
# Copyright (c) 2026 The qemu-gmem developers

import struct

from guest_memfd import GuestMemfdPrivateTest, MIB

EVENT = 'GUEST_MEMFD_CONVERSION_FAILED'
PRIVATE = 'base=80M,size=1M'
OF_FILE = 'allocated', 'huge', 'huge-fallbacks', 'splits'


class GuestMemfdPrivateMonitor(GuestMemfdPrivateTest):

    def paused(self, payload, *args, **kwargs):
        """A VM that has run the payload."""
        vm, console = self.start('vm', *args, payload=payload, **kwargs)
        console.expect('^done 0 failed')
        vm.cmd('stop')
        return vm

    def test_stats(self):
        """query-stats has the same counters as query-guest-memfd."""
        vm = self.paused(f'convert,{PRIVATE},private=1 '
                         'convert,base=80M,size=4K,private=0 '
                         'convert,base=1G,size=4K,private=1,expect=22 '
                         'convert,base=254M,size=4M,private=1,expect=22',
                         '-object', 'memory-backend-ram,id=ram1,size=16M')
        results = vm.cmd('query-stats', target='vm',
                         providers=[{'provider': 'guest-memfd'}])
        self.assertEqual(sorted(result['qom-path'] for result in results
                                if '/ram' in result['qom-path']),
                         ['/objects/ram0', '/objects/ram1'])
        stats = {stat['name']: stat['value'] for result in results
                 if result['qom-path'] == '/objects/ram0'
                 for stat in result['stats']}
        # What the kernel keeps count of, if it does
        of_file = {name: stats.pop(name) for name in OF_FILE if name in stats}
        if of_file:
            self.assertEqual(of_file['allocated'], self.info(vm)['allocated'])
        info = self.info(vm)['conversion']
        self.assertEqual(stats.pop('time'), info.pop('time-ns'))
        failures = info.pop('failures')
        self.assertEqual([(f['errno'], f['count']) for f in failures], [(22, 1)])
        self.assertEqual(stats.pop('failures'), 1)
        self.assertEqual(stats, info)
        self.assertEqual(stats['private'], MIB - 4096)
        self.assertEqual(stats['pages-to-private'], 256)

        some, = [result for result in
                 vm.cmd('query-stats', target='vm', providers=[
                     {'provider': 'guest-memfd', 'names': ['private']}])
                 if result['qom-path'] == '/objects/ram0']
        self.assertEqual(some['stats'],
                         [{'name': 'private', 'value': MIB - 4096}])
        schema, = vm.cmd('query-stats-schemas', provider='guest-memfd')
        self.assertEqual(schema['target'], 'vm')
        self.assertEqual({stat['name'] for stat in schema['stats']},
                         {*stats, 'time', 'failures', *OF_FILE})
        text = vm.cmd('human-monitor-command', command_line='info stats vm')
        self.assertIn('pages-to-private (cumulative): 256', text)

    def test_event(self):
        """One a second, however often the guest asks for what cannot be."""
        bad = 'convert,base=1G,size=8K,private=1,expect=22 '
        vm = self.paused(30 * bad + 'convert,base=80M,size=4K,private=1')
        event = vm.event_wait(EVENT)
        self.assertEqual(event['data'], {
            'address': 1 << 30, 'size': 8192, 'to-private': True, 'errno': 22,
            'error': 'Invalid argument'})
        # One comes at once; of the others, the last one of each second.
        times = [event['timestamp']['seconds'] + event['timestamp']['microseconds'] / 1e6
                 for event in [event, *vm.get_qmp_events()]
                 if event['event'] == EVENT]
        self.assertLess(len(times) - 2, times[-1] - times[0] + 0.1, times)

    DUMPS = (('dump', False), ('dump_paging', True))

    def dump(self, paging):
        """There are zeros for private memory, and it is told how much."""
        vm = self.paused(f'fill,base=79M,size=1M,seed=4 convert,{PRIVATE},private=1 '
                         f'fill,{PRIVATE},seed=5 fill,base=81M,size=1M,seed=6')
        path = self.scratch_file('memory')
        vm.cmd('dump-guest-memory', paging=paging, protocol='file:' + path)
        dump = vm.cmd('query-dump')
        self.assertEqual(dump['status'], 'completed')
        if not paging:
            self.assertEqual(dump['private'], MIB)
            event = vm.event_wait('DUMP_COMPLETED')
            self.assertEqual(event['data']['result'], dump)
            self.check_dump(path)

    # Begin, size, and how much of that is private
    PARTS = (
        (0x5001800, 8192, 4096),
        (0x5001ff0, 32, 16),
        (0x5002800, 4096, 2048),
        (0x5002001, 4094, 4094),
        (0x5001001, 4095, 0),
    )

    def test_dump_part(self):
        """A part of memory in a dump is what pmemsave gives, to the byte."""
        vm = self.paused('fill,base=80M,size=1M,seed=3 '
                         'convert,base=0x5002000,size=4K,private=1')
        path = self.scratch_file('memory')
        for begin, size, private in self.PARTS:
            vm.cmd('pmemsave', val=begin, size=size, filename=path)
            with open(path, 'rb') as file:
                memory = file.read()
            vm.cmd('dump-guest-memory', paging=False, protocol='file:' + path,
                   begin=begin, length=size)
            self.assertEqual(vm.cmd('query-dump')['private'], private, f'{begin:x}')
            (address, offset, length), = self.segments(path)
            self.assertEqual((address, length), (begin, size))
            with open(path, 'rb') as file:
                file.seek(offset)
                self.assertEqual(file.read(size), memory, f'{begin:x}')
        vm.cmd('dump-guest-memory', paging=False, protocol='file:' + path,
               format='kdump-zlib')
        self.assertEqual(vm.cmd('query-dump')['private'], 4096)

    def segments(self, path):
        """Physical address, offset in the file and size, from an ELF header."""
        with open(path, 'rb') as file:
            header = file.read(64)
            start, = struct.unpack_from('<Q', header, 32)
            size, number = struct.unpack_from('<HH', header, 54)
            file.seek(start)
            for _ in range(number):
                kind, _, offset, _, address, length = struct.unpack_from(
                    '<IIQQQQ', file.read(size))
                if kind == 1:
                    yield address, offset, length

    def check_dump(self, path):
        def page(address):
            for start, offset, size in segments:
                if start <= address < start + size:
                    file.seek(offset + address - start)
                    return file.read(4096)
            return self.fail(f'no segment has {address:x}')

        segments = list(self.segments(path))
        with open(path, 'rb') as file:
            for address in range(79 * MIB, 82 * MIB, 4096):
                zero = not page(address).strip(b'\0')
                self.assertEqual(zero, 80 * MIB <= address < 81 * MIB,
                                 f'{address:x}')


GuestMemfdPrivateMonitor.add_cases('dump', GuestMemfdPrivateMonitor.DUMPS)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
