#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# SEV-SNP and TDX guests: command lines of others, each memory backend, what the monitor
# says
#
# Copyright (c) 2026 The qemu-gmem developers
#
# KVM's side is the model, as in test_guest_memfd_launch.py.

import base64
import json
import os
import re
import tempfile

from qemu.qmp import QMPError

from guest_memfd import GuestMemfdTest, MIB, PAGE
from guest_memfd_digest import DIGEST, snp_digest
from guest_memfd_launch import GuestMemfdLaunchTest, IN_PLACE, OVMF

GMEM = 'memory-backend-guest-memfd'
MEMORY = 256 * MIB
HUGE_PAGE = 2 * MIB
KINDS = 'snp', 'tdx'
NAMES = {'snp': 'sev-snp-guest', 'tdx': 'tdx-guest'}
HUGE_POOL = '/proc/sys/vm/nr_hugepages'
SECRET = {'packet-header': '', 'secret': '', 'gpa': 0x100000}
NODES = '/sys/devices/system/node'

# With what message QEMU ends
NOT_IN_PLACE = ("'convert-in-place' is on, but this host's KVM cannot convert memory in "
                'place(.*\n)*.*gmem_in_place_conversion=1')
ONLY_IN_PLACE = ("'convert-in-place' is off, but this host's KVM only converts in place"
                 '(.*\n)*.*gmem_in_place_conversion=0')
NO_POLICY = ("'policy' and 'host-nodes' have no effect on private memory(.*\n)*"
             'Leave them out, or load kvm with gmem_in_place_conversion=1')
STAYS = 'cannot be converted in place, as this VM'
NO_HUGE_PAGES = ("'hugetlb' is on, but a guest_memfd has no pages of the host's hugetlb "
                 'pool')
NO_VIRTIO_MEM = 'private memory, which virtio-mem cannot manage'


class GuestMemfdLaunchOptions(GuestMemfdLaunchTest):

    def launched(self, vm, kind):
        self.run_guest(vm)
        self.assert_launched(*DIGEST[kind](self.image()))

    def assert_all_private(self, vm, *blocks, size=MEMORY):
        infos = [self.info(vm, block) for block in blocks]
        for info in infos:
            self.assertEqual(info['mode'], 'in-place' if IN_PLACE else 'split')
            self.assertEqual(info['conversion']['shared'], 0)
        self.assertEqual(sum(info['size'] for info in infos), size)

    def need_nodes(self):
        if not os.path.exists(f'{NODES}/node1'):
            self.skipTest('this host has no two NUMA nodes, as with numa=fake=2U')

    # Command lines of others, as they write them, but for the names of files and the
    # position of the C-bit, which is the host's
    AMD_TESTERS = ('-machine q35,confidential-guest-support=sev0,memory-backend=ram0 '
                   '-cpu EPYC-v4 -m 60G '
                   f'-object {GMEM},id=ram0,size=60G,share=on,host-nodes=0-1,policy=interleave '
                   '-object sev-snp-guest,id=sev0,policy=0x30000,{{sev}}{0}')
    AMDSEV = ('-cpu EPYC-v4 -machine q35 -smp 4,maxcpus=255 -m 2048M,slots=5,maxmem=10240M -no-reboot '
              '-machine {0}=sev0,vmport=off '
              '-object memory-backend-memfd,id=ram1,size=2048M,share=true,prealloc=false '
              '-machine memory-backend=ram1 '
              '-object sev-snp-guest,id=sev0,policy=0x30000,{{sev}}{1}')
    # Name, arguments, main memory and its size; with what QEMU ends where memory is split
    LINES = (
        ('amd_on', AMD_TESTERS.format(',convert-in-place=on'), 'ram0', 60 << 30, NOT_IN_PLACE),
        ('amd_true', AMD_TESTERS.format(',convert-in-place=true'), 'ram0', 60 << 30,
         NOT_IN_PLACE),
        ('amd', AMD_TESTERS.format(''), 'ram0', 60 << 30, NO_POLICY),
        ('amdsev', AMDSEV.format('memory-encryption', ''), 'ram1', 2 << 30),
        ('amdsev_confidential', AMDSEV.format('confidential-guest-support', ''), 'ram1',
         2 << 30),
        # Without -kernel, there is nothing to hash.
        ('amdsev_hashes_off', AMDSEV.format('memory-encryption', ',kernel-hashes=off'),
         'ram1', 2 << 30),
        ('amdsev_hashes_on', AMDSEV.format('memory-encryption', ',kernel-hashes=on'),
         'ram1', 2 << 30),
        # As in QEMU's own manual
        ('manual_snp', '-machine q35,confidential-guest-support=sev0 -m 4G -cpu host '
         '-object sev-snp-guest,id=sev0,{sev}', 'pc.ram', 4 << 30),
        ('manual_tdx', '-machine q35,confidential-guest-support=tdx0 -m 4G -cpu host '
         '-object tdx-guest,id=tdx0', 'pc.ram', 4 << 30),
    )

    def line(self, words, block, size, split=None):
        if 'host-nodes' in words:
            self.need_nodes()
        kind = 'snp' if '{sev}' in words else 'tdx'
        sev = f'sev-device=/dev/null,cbitpos={self.cbitpos()},reduced-phys-bits=1'
        vm = self.get_vm(name='vm')
        vm.add_args('-enable-kvm', *words.format(sev=sev).split(), '-bios', OVMF)
        self.preload_model(vm, kind)
        if split and not IN_PLACE:
            self.assert_refused(vm, split)
            return
        self.launched(vm, kind)
        self.assert_all_private(vm, block, size=size)
        if 'host-nodes' in words:
            self.assertRegex(' '.join(self.maps(vm)), ' interleave:0-1 ')

    # What is set; with what QEMU ends where memory is split, and where it is not
    MODES = (
        ('unset', '', None, None),
        ('on', ',convert-in-place=on', NOT_IN_PLACE, None),
        ('true', ',convert-in-place=true', NOT_IN_PLACE, None),
        ('off', ',convert-in-place=off', None, ONLY_IN_PLACE),
        ('false', ',convert-in-place=false', None, ONLY_IN_PLACE),
    )

    def mode(self, prop, split, in_place, kind):
        message = in_place if IN_PLACE else split
        vm = self.guest(kind, prop=prop)
        if message:
            self.assert_refused(vm, message)
            self.assertEqual(self.events('update|finish'), [])
            return
        self.launched(vm, kind)
        self.assert_all_private(vm, 'ram0')
        self.assertEqual(vm.cmd('qom-get', path='/objects/cgs0', property='convert-in-place'),
                         IN_PLACE)

    def without(self, kind):
        """The host's KVM has no private memory, split or in place."""
        self.assert_refused(self.guest(kind, what='no-private'),
                            f"{NAMES[kind]} needs private memory, which this host's KVM "
                            'does not offer for it(.*\n)*.*CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES')
        self.assertEqual(self.events('update|finish'), [])

    def test_json(self):
        """As libvirt writes it"""
        self.machine_props = ',confidential-guest-support=lsec0'
        vm = self.machine_vm('vm', '-bios', OVMF, '-object', json.dumps({
            'qom-type': 'sev-snp-guest', 'id': 'lsec0', 'cbitpos': int(self.cbitpos()),
            'reduced-phys-bits': 1, 'policy': 0x30000, 'sev-device': '/dev/null',
            'convert-in-place': IN_PLACE}))
        self.preload_model(vm, 'snp')
        self.launched(vm, 'snp')

    def test_plain_sev(self):
        """It has no memory that could be converted."""
        self.machine_props = ',confidential-guest-support=cgs0'
        vm = self.machine_vm('vm', '-object', 'sev-guest,id=cgs0,sev-device=/dev/null,'
                             f'cbitpos={self.cbitpos()},reduced-phys-bits=1,'
                             'convert-in-place=on', backend='memory-backend-memfd')
        self.preload_model(vm, 'snp')
        self.assert_refused(vm, "'convert-in-place' has no meaning for sev-guest, which has "
                            'no private memory of this kind(.*\n)*.*use sev-snp-guest')

    # The backend of ram0, or None; other arguments; with what QEMU ends where memory is
    # split, and where it is not
    BACKENDS = (
        ('guest_memfd', GMEM, '', None, None),
        ('reserve_off', f'{GMEM},reserve=off', '', None, None),
        ('host_nodes', f'{GMEM},share=on,host-nodes=0-1,policy=interleave', '', NO_POLICY,
         None),
        ('bound', f'{GMEM},host-nodes=1,policy=bind', '', NO_POLICY, None),
        ('huge', f'{GMEM},hugetlb=on,hugetlbsize=2M', '', None, NO_HUGE_PAGES),
        ('huge_pages', f'{GMEM},huge-pages=on', '', ("'huge-pages' is on, but this VM keeps "
         'private and shared memory apart'),
         "'huge-pages' is on, but .* no huge pages for a guest_memfd of this type of VM"),
        ('default', None, '', None, None),
        ('path', None, '-mem-path {dir}', None, STAYS),
        ('ram', 'memory-backend-ram', '', None, None),
        ('ram_shared', 'memory-backend-ram,share=on', '', None, None),
        ('memfd', 'memory-backend-memfd', '', None, None),
        ('memfd_on', 'memory-backend-memfd,guest-memfd=on', '', None, None),
        ('memfd_off', 'memory-backend-memfd,guest-memfd=off', '', None, STAYS),
        ('memfd_private', 'memory-backend-memfd,share=off', '', None, STAYS),
        ('memfd_huge', 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M', '', None, STAYS),
        ('file', 'memory-backend-file,mem-path={dir},share=on', '', None, STAYS),
        ('shm', 'memory-backend-shm', '', None, STAYS),
        ('virtio_mem', GMEM, f'-m 256M,maxmem=1G -object {GMEM},id=more,size=128M '
         '-device virtio-mem-pci,memdev=more', NO_VIRTIO_MEM, NO_VIRTIO_MEM),
    )

    def backend(self, backend, args, split, in_place, kind):
        message = in_place if IN_PLACE else split
        words = f'{backend} {args}'
        if 'host-nodes' in words:
            self.need_nodes()
        if '{dir}' in words:
            path = tempfile.mkdtemp()
            self.addCleanup(os.rmdir, path)
            backend, args = (text and text.replace('{dir}', path) for text in (backend, args))
        if 'hugetlb=on' in words:
            self.set_pool(MEMORY // HUGE_PAGE)
        vm = self.guest(kind, *args.split(), backend=backend)
        if message:
            self.assert_refused(vm, message)
            self.assertEqual(self.events('update|finish'), [])
            return
        self.launched(vm, kind)
        self.assert_all_private(vm, 'ram0' if backend else 'pc.ram')

    def set_pool(self, pages):
        """So many huge pages of the host, until the test ends"""
        with open(HUGE_POOL, encoding='ascii') as file:
            self.addCleanup(self.write_pool, file.read())
        self.write_pool(pages)
        with open(HUGE_POOL, encoding='ascii') as file:
            self.assertEqual(int(file.read()), pages)

    @staticmethod
    def write_pool(pages):
        with open(HUGE_POOL, 'w', encoding='ascii') as file:
            file.write(str(pages))

    # The backend, and what it takes of the host's memory when the guest starts, in parts
    # of the guest's: where memory is split, and where it is not
    COSTS = (
        ('guest_memfd', GMEM, 0, 0),
        ('guest_memfd_prealloc', f'{GMEM},prealloc=on', 0, 1),
        ('ram', 'memory-backend-ram', 0, 0),
        ('ram_prealloc', 'memory-backend-ram,prealloc=on', 0, 1),
        ('memfd', 'memory-backend-memfd', 0, 0),
        ('memfd_prealloc', 'memory-backend-memfd,prealloc=on', 0, 1),
        ('huge', f'{GMEM},hugetlb=on,hugetlbsize=2M', 1, None),
        ('memfd_huge_prealloc',
         'memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on', 1, None),
        ('memfd_huge_off', 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M,reserve=off', 0,
         None),
    )

    def cost(self, backend, split, in_place, kind):
        expected = in_place if IN_PLACE else split
        if expected is None:
            self.skipTest('memory that is converted in place has no huge pages')
        if 'hugetlb' in backend:
            self.set_pool(MEMORY // HUGE_PAGE)
        free = self.huge_pages()
        taken = []
        # What is left of the first has nothing to do with the memory's size.
        for memory, of in (16, GMEM), (MEMORY // MIB, backend):
            vm = self.guest(kind, memory=memory, backend=of)
            self.launched(vm, kind)
            taken.append(self.host_memory(vm))
            if memory == 16:
                vm.shutdown()
                del self._vms['vm']
        taken = taken[1] - taken[0] + (free - self.huge_pages()) * HUGE_PAGE
        self.log.info('%s: %.3f of the memory', backend, taken / MEMORY)
        # Where memory is anonymous, what QEMU writes at the start may take huge pages.
        self.assertAlmostEqual(taken / MEMORY, expected, delta=0.05)
        vm.shutdown()
        self.assertEqual("'prealloc' of 'ram0' has no effect" in vm.get_log(),
                         'prealloc' in backend and not expected)

    @staticmethod
    def huge_pages():
        """Those that are neither in use nor reserved"""
        with open('/proc/meminfo', encoding='ascii') as meminfo:
            pages = {line.split(':')[0]: int(line.split()[1]) for line in meminfo
                     if line.startswith('HugePages_')}
        return pages['HugePages_Free'] - pages['HugePages_Rsvd']

    def two_nodes(self, kind):
        """Memory of two backends is launched as that of one."""
        vm = self.guest(kind, '-object', f'{GMEM},id=node0,size=8M',
                        '-object', f'{GMEM},id=node1,size=248M',
                        '-numa', 'node,memdev=node0', '-numa', 'node,memdev=node1',
                        backend=None)
        self.launched(vm, kind)
        self.assert_all_private(vm, 'node0', 'node1')

    def test_placed(self):
        """What prealloc=on allocates is where the policy says, and stays there when it
        becomes private."""
        self.need_nodes()
        if not IN_PLACE:
            self.skipTest('memory that is split is placed by no policy')
        args = ' '.join(
            f'-object {GMEM},id=node{i},size=128M,prealloc=on,host-nodes={i},policy=bind '
            f'-numa node,memdev=node{i}' for i in range(2))
        vm = self.guest('snp', '-S', *args.split(), backend=None)
        vm.launch()
        nodes = [(re.search(r' bind:(\d) ', line)[1], re.findall(r' N(\d)=(\d+)', line))
                 for line in self.maps(vm) if ' bind:' in line]
        self.assertEqual(sorted(nodes), [(str(i), [(str(i), str(128 * MIB // PAGE))])
                                         for i in range(2)])
        vm.cmd('cont')
        self.assert_launched(*snp_digest(self.image()))
        for i in range(2):
            self.assertEqual(self.info(vm, f'node{i}')['allocated'], 128 * MIB)

    # What the monitor says

    def test_capabilities(self):
        vm = self.guest('snp')
        self.run_guest(vm)
        answer = vm.cmd('query-sev-capabilities')
        self.assertEqual({name: base64.b64decode(answer.pop(name))
                          for name in ('pdh', 'cert-chain', 'cpu0-id')},
                         {'pdh': b'the key', 'cert-chain': b'its certificates',
                          'cpu0-id': b'the processor'})
        self.assertEqual(answer, {'cbitpos': int(self.cbitpos()), 'reduced-phys-bits': 1})
        self.assertEqual(self.events('refused'), [])

    def test_sev(self):
        vm = self.guest('snp')
        self.run_guest(vm)
        self.assertEqual(vm.cmd('query-sev'), {
            'enabled': True, 'api-major': 1, 'api-minor': 55, 'build-id': 1,
            'state': 'running', 'sev-type': 'sev-snp', 'snp-policy': 0x30000})
        self.assertIn('SEV type: sev-snp', self.hmp(vm, 'info sev'))
        with self.assertRaisesRegex(QMPError, 'measurement is not available'):
            vm.cmd('query-sev-launch-measure')
        with self.assertRaisesRegex(QMPError, 'Not in correct state'):
            vm.cmd('sev-inject-launch-secret', **SECRET)
        self.assertEqual(self.events('refused'), [])

    def test_tdx_is_no_sev(self):
        vm = self.guest('tdx')
        self.run_guest(vm)
        self.assertEqual(vm.cmd('query-sev')['enabled'], False)
        self.assertIn('SEV is not enabled', self.hmp(vm, 'info sev'))
        for command, arguments, message in (
                ('query-sev-capabilities', {}, 'SEV is not enabled in KVM'),
                ('query-sev-launch-measure', {}, 'measurement is not available'),
                ('query-sev-attestation-report', {'mnonce': ''}, 'SEV is not enabled'),
                ('sev-inject-launch-secret', SECRET, 'SEV not enabled for guest')):
            with self.assertRaisesRegex(QMPError, message):
                vm.cmd(command, **arguments)
        self.assertEqual(self.events('refused'), [])

    @staticmethod
    def hmp(vm, command):
        return vm.cmd('human-monitor-command', command_line=command)

    def monitor(self, kind):
        vm = self.guest(kind)
        self.run_guest(vm)
        blocks = {info['id']: info for info in vm.cmd('query-guest-memfd')}
        self.assertIn('ram0', blocks)
        for info in blocks.values():
            self.assertEqual(info['conversion']['shared'], 0, info)
            self.assertEqual(info['conversion']['private'], info['size'], info)
        text = self.hmp(vm, 'info guest-memfd')
        self.assertIn('in-place' if IN_PLACE else 'split', text)
        stats = vm.cmd('query-stats', target='vm', providers=[{'provider': 'guest-memfd'}])
        self.assertEqual({stat['value'] for result in stats for stat in result['stats']
                          if stat['name'] == 'shared'}, {0})
        self.assertEqual(self.events('refused|lost'), [])

    def dump(self, kind, *args):
        """Shared memory only is in it, of which there is none at first."""
        vm = self.guest(kind, *args)
        self.run_guest(vm)
        path = self.scratch_file('memory')
        for paging in False, True:
            arguments = {'paging': paging, 'protocol': 'file:' + path}
            if not args:
                with self.assertRaisesRegex(QMPError, 'no guest memory to dump'):
                    vm.cmd('dump-guest-memory', **arguments)
                continue
            vm.cmd('dump-guest-memory', **arguments)
            dump = vm.cmd('query-dump')
            self.assertEqual((dump['status'], dump['total'], dump['private']),
                             ('completed', PAGE, 0))
            self.assertLess(os.stat(path).st_size, 2 * PAGE)
        self.assertEqual(self.events('refused|lost'), [])
        self.assertEqual(vm.cmd('query-status')['status'], 'running')


GuestMemfdLaunchOptions.add_cases('line', GuestMemfdLaunchOptions.LINES)
GuestMemfdLaunchOptions.add_cases('dump', [
    (f'{kind_}_dump{name}', kind_, *args) for kind_ in KINDS
    for name, *args in (('',), ('_shared', '-device', 'vmclock'))])
for kind_ in KINDS:
    for case in 'without', 'two_nodes', 'monitor':
        GuestMemfdLaunchOptions.add_cases(case, [(f'{kind_}_{case}', kind_)])
    for case, rows in (('mode', GuestMemfdLaunchOptions.MODES),
                       ('backend', GuestMemfdLaunchOptions.BACKENDS),
                       ('cost', GuestMemfdLaunchOptions.COSTS)):
        GuestMemfdLaunchOptions.add_cases(case, [(f'{kind_}_{case}_{row[0]}', *row[1:], kind_)
                                                 for row in rows])

if __name__ == '__main__':
    GuestMemfdTest.main()
