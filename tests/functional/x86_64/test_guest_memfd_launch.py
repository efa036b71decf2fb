#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# SEV-SNP and TDX guests: how QEMU makes and measures their first memory
#
# Copyright (c) 2026 The qemu-gmem developers
#
# KVM's side is a model, tests/qtest/guest-memfd-launch.c, over a software-protected
# VM.  It refuses what KVM refuses, and runs no vCPU.  The host's kernel says whether
# memory is split or converted in place: the digests are the same.

import base64
import os
import re

from guest_memfd import AssignedDevices, GuestMemfdTest, IS_LONG, MIB
from guest_memfd_digest import DIGEST, FOOTER, SEV, TDX, snp_digest, tdx_digest
from guest_memfd_launch import GuestMemfdLaunchTest, IN_PLACE, OVMF

NAMES = {'snp': 'SEV-SNP', 'tdx': 'TDX'}
# A page that no firmware wants
BUSY = 64 * MIB


def octets(size):
    """So many bytes, each of them 7, as options have them"""
    return base64.b64encode(bytes([7] * size)).decode()


class GuestMemfdLaunch(AssignedDevices, GuestMemfdLaunchTest):

    def test_snp(self):
        vm = self.guest('snp')
        self.run_guest(vm)
        self.assert_launched(*snp_digest(self.image()))
        self.assertEqual(vm.cmd('query-sev')['state'], 'running')
        self.assertEqual(vm.cmd('query-sev')['sev-type'], 'sev-snp')

    def test_tdx(self):
        vm = self.guest('tdx')
        self.run_guest(vm)
        self.assert_launched(*tdx_digest(self.image()))
        hob = self.events('vcpu')
        self.assertEqual(hob, ['vcpu hob=0x809000'])

    def memory(self, kind):
        """All of it is private, and QEMU cannot look at it once it is launched."""
        vm = self.guest(kind)
        self.run_guest(vm)
        info = self.info(vm)
        self.assertEqual(info['mode'], 'in-place' if IN_PLACE else 'split')
        self.assertEqual(info['conversion']['private'], 256 * MIB)
        for slot in self.slots(vm):
            self.assertEqual(slot['binding'], 'bound')
        if not IN_PLACE:
            return
        for address in 0x800000, 0xffe00000:
            self.assertIn('Cannot access memory', vm.cmd(
                'human-monitor-command', command_line=f'xp /1xw {address}'))

    def once(self, kind):
        """Memory that is there twice when it is split is there once in place: what
        prealloc=on allocates is what the guest is launched in."""
        if not IN_PLACE:
            self.skipTest('memory that is split has no preallocation')
        vm = self.guest(kind, backend='memory-backend-guest-memfd,prealloc=on,'
                                      'prealloc-threads=4')
        self.run_guest(vm)
        self.assertEqual(self.allocated(vm), 256 * MIB)
        self.assertLess(self.process_status(vm, 'RssAnon'), 128 * MIB)

    def plug(self, kind):
        """Memory that comes later is private from the start."""
        vm = self.guest(kind, '-m', '256M,slots=2,maxmem=1G')
        self.run_guest(vm)
        vm.cmd('object-add', {'qom-type': 'memory-backend-guest-memfd', 'id': 'more',
                              'size': 128 * MIB})
        vm.cmd('device_add', driver='pc-dimm', id='dimm', memdev='more')
        self.assertEqual(self.info(vm, 'more')['conversion']['private'], 128 * MIB)
        if IN_PLACE:
            self.assertRegex(self.events('file')[-1], 'size=0x8000000 flags=0x1$')
        self.assertEqual(self.events('refused|lost'), [])

    def assigned(self, kind, iommufd):
        """A device that is there from the start pins nothing of what is private."""
        self.take_edu()
        vm = self.guest(kind, *self.device(0, iommufd), memory=64)
        self.run_guest(vm)
        self.assertEqual(self.events('refused|lost'), [])
        self.assertEqual(len(self.events('finish')), 1)
        self.assertEqual(self.process_status(vm, 'VmPin' if iommufd else 'VmLck'), 0)

    def test_hosts_device(self):
        """The manual's script for hosts says how much is pinned."""
        self.take_edu()
        device = os.path.basename(self.edu[0])
        done = self.hosts_script('snp', firmware=OVMF, DEVICE=device)
        self.assertIn(f'ok: a guest runs with {device}\n', done.stdout)
        self.assertRegex(done.stdout, '\nok: [0-9]+ MiB are pinned, not all\n')

    def test_busy(self):
        """Something uses a page when it is to become private: the launch says which."""
        if not IN_PLACE:
            self.skipTest('memory that is split is used by nobody')
        vm = self.guest('snp', '-S', backend='memory-backend-guest-memfd,prealloc=on')
        vm.launch()
        with self.held(vm, BUSY):
            with self.assertRaises(Exception):
                vm.cmd('cont')
            vm.wait()
        self.assertRegex(vm.get_log(), 'cannot become private for the launch: page '
                         f'0x{BUSY:x}: .*(\n.*)?vhost-user')
        self.assertEqual(self.events('update|finish'), [])
        self._vms = {}

    def reset(self, kind):
        vm = self.guest(kind, '-no-shutdown')
        self.run_guest(vm)
        vm.cmd('system_reset')
        event = vm.event_wait('SHUTDOWN')
        self.assertEqual(event['data']['reason'], 'host-qmp-system-reset')
        vm.cmd('quit')
        vm.wait()
        self.assertIn('cpus are not resettable, terminating', vm.get_log())

    def reset_is_shutdown(self, kind):
        """The user wants that: QEMU has nothing to complain of."""
        vm = self.guest(kind, '-no-shutdown', '-action', 'reboot=shutdown')
        self.run_guest(vm)
        vm.cmd('system_reset')
        vm.event_wait('SHUTDOWN')
        vm.cmd('quit')
        vm.wait()
        self.assertNotIn('not resettable', vm.get_log())

    def fails(self, kind, what, message):
        """A command fails: QEMU says which, and ends."""
        vm = self.guest(kind, what=what)
        self.assert_refused(vm, message)
        self.assertEqual(len(self.events('fault')), 1)
        self.assertEqual(self.events('refused'), [])

    def goes_on(self, kind, what, digest):
        """A command is done in part: QEMU does the rest."""
        vm = self.guest(kind, what=what)
        self.run_guest(vm)
        self.assertEqual(len(self.events('fault')), 1)
        self.assert_launched(*digest(self.image()))

    def refused(self, kind, message, drive=(), **kwargs):
        self.assert_refused(self.guest(kind, *drive, **kwargs), message)

    def without(self, name):
        """The firmware, but without this table"""
        path = self.scratch_file('other.fd')
        with open(path, 'wb') as file:
            file.write(self.image().replace(name.bytes_le, bytes(16)))
        return path

    def test_snp_no_tables(self):
        self.refused('snp', 'Firmware GUID Table block not found(.*\n)*'
                     'Use -bios with firmware that is made for SEV',
                     firmware=self.without(FOOTER))

    def test_snp_other_firmware(self):
        self.refused('snp', 'Failed to locate SEV metadata header',
                     firmware=self.without(SEV))

    def test_tdx_other_firmware(self):
        self.refused('tdx', 'Cannot find TDX_METADATA_OFFSET_GUID(.*\n)*'
                     'Use -bios with firmware that is made for TDX',
                     firmware=self.without(TDX))

    def flash(self, kind):
        self.refused(kind, f'{kind}-guest has no flash memory to start from\n'
                     'Use -bios instead of pflash',
                     drive=('-drive', f'if=pflash,format=raw,readonly=on,file={OVMF}'))

    def unsupported(self, kind):
        """Without the model: this host's KVM has no such VMs."""
        vm = self.guest(kind)
        vm._wrapper = ()
        self.assert_refused(vm, 'vm-type .* not supported by KVM\nIt takes a processor with '
                            f'{NAMES[kind]}, ')

    def small(self, kind):
        """Less memory than the firmware wants"""
        self.refused(kind, '0x8[01]0000(.*\n)*.*[Gg]ive the guest more( memory)? with -m',
                     memory=4)

    def commands(self, kind, qemu):
        """What this QEMU tells KVM in the launch; attributes may come more than once."""
        vm = self.guest(kind, backend='memory-backend-memfd')
        vm._binary = qemu
        self.run_guest(vm)
        vm.cmd('quit')
        vm.wait()
        self._vms = {}
        return [re.sub('^file [0-9]+', 'file', event) for event in self.events()
                if not event.startswith('attributes')]

    def stock(self, kind):
        """QEMU without our patches gives KVM the same memory slots and commands."""
        commands = self.commands(kind, self.qemu_bin)
        self.assertEqual(len([line for line in commands if line.startswith('finish')]), 1)
        self.assertEqual(self.commands(kind, os.environ['QEMU_TEST_GMEM_STOCK']), commands)

    def identity(self, kind, prop, pattern):
        """What the user says of a guest's identity gets to the firmware."""
        vm = self.guest(kind, prop=prop)
        self.run_guest(vm)
        self.assertEqual(len(self.events(pattern)), 1, self.events())
        self.assert_launched(*DIGEST[kind](self.image()))

    def wrong_identity(self, kind, prop, message):
        self.refused(kind, message, prop=prop)

    def test_snp_no_area_for_hashes(self):
        self.refused('snp', 'hashes table area is invalid', prop=',kernel-hashes=on',
                     linux='gmem.run=true')


for name in 'snp', 'tdx':
    for case in 'memory', 'once', 'plug', 'reset', 'reset_is_shutdown', 'flash', 'unsupported', 'small':
        GuestMemfdLaunch.add_cases(case, [(f'{case}_{name}', name)])

GuestMemfdLaunch.add_cases('fails', (
    ('snp_init_fails', 'snp', 'init', 'failed to initialize ret=-5'),
    ('snp_start_fails', 'snp', 'start', 'LAUNCH_START ret=-5'),
    ('snp_first_update_fails', 'snp', 'update', 'SNP_LAUNCH_UPDATE ret=-5'),
    ('snp_later_update_fails', 'snp', 'update 4', 'SNP_LAUNCH_UPDATE ret=-5'),
    ('snp_finish_fails', 'snp', 'finish', 'SNP_LAUNCH_FINISH ret=-5'),
    ('snp_cpuid_differs', 'snp', 'cpuid-mismatch',
     'CPUID validation failed for function 0x.*provided: eax:0x.*expected: eax:0x'),
    ('tdx_init_fails', 'tdx', 'init', 'KVM_TDX_INIT_VM failed'),
    ('tdx_vcpu_fails', 'tdx', 'vcpu', 'KVM_TDX_INIT_VCPU failed'),
    ('tdx_cpuid_fails', 'tdx', 'cpuid', 'KVM_TDX_GET_CPUID failed'),
    ('tdx_update_fails', 'tdx', 'update 2', 'KVM_TDX_INIT_MEM_REGION failed'),
    ('tdx_finish_fails', 'tdx', 'finish', 'KVM_TDX_FINALIZE_VM failed'),
    ('tdx_busy', 'tdx', 'busy', 'KVM_TDX_FINALIZE_VM failed.*busy')))

GuestMemfdLaunch.add_cases('identity', (
    ('snp_policy', 'snp', ',policy=0xb0000', 'start policy=0xb0000 '),
    ('snp_id_block', 'snp', f',id-block={octets(96)},id-auth={octets(4096)}',
     'finish .* id-block=1 author-key=0 vcek-disabled=0 host-data=00'),
    ('snp_author_key', 'snp', f',id-block={octets(96)},id-auth={octets(4096)},'
     'author-key-enabled=on,vcek-disabled=on',
     'finish .* id-block=1 author-key=1 vcek-disabled=1'),
    ('snp_host_data', 'snp', f',host-data={octets(32)}', 'finish .* host-data=07$'),
    ('snp_workarounds', 'snp', f',guest-visible-workarounds={octets(16)}', 'start .*gosvw=07$'),
    ('tdx_identity', 'tdx', f',mrconfigid={octets(48)},mrowner={octets(48)},'
     f'mrownerconfig={octets(48)},sept-ve-disable=off',
     'init attributes=0x0 config=0x0*707.* owner=0x0*707.* owner-config=0x0*707')))

GuestMemfdLaunch.add_cases('wrong_identity', (
    ('snp_wrong_id_block', 'snp', f',id-block={octets(4)}', 'length of 4 .*96'),
    ('snp_wrong_id_auth', 'snp', f',id-auth={octets(5000)}', 'ID_AUTH 5000 .*4096'),
    ('snp_wrong_host_data', 'snp', f',host-data={octets(31)}', 'length of 31 .*32'),
    ('snp_wrong_workarounds', 'snp', f',guest-visible-workarounds={octets(15)}',
     'length of 15 .*16'),
    ('snp_wrong_base64', 'snp', ',host-data=?', 'Base64'),
    ('snp_wrong_policy', 'snp', ',policy=0', 'LAUNCH_START ret=-22'),
    ('tdx_wrong_config', 'tdx', f',mrconfigid={octets(47)}',
     "'mrconfigid' sha384 digest was 47 bytes, expected 48"),
    ('tdx_wrong_attributes', 'tdx', ',attributes=4', 'Invalid attributes 0x4 for TDX VM')))

if IS_LONG and not IN_PLACE:
    GuestMemfdLaunch.add_cases('stock', [(f'stock_{name}', name) for name in NAMES])

GuestMemfdLaunch.add_cases('assigned', (
    ('snp_type1', 'snp', False), ('snp_iommufd', 'snp', True),
    ('tdx_type1', 'tdx', False)))

GuestMemfdLaunch.add_cases('goes_on', (
    ('snp_partial', 'snp', 'partial', snp_digest),
    ('tdx_eagain', 'tdx', 'eagain', tdx_digest)))

if __name__ == '__main__':
    GuestMemfdTest.main()
