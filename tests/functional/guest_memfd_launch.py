# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests of launches: their base classes
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import re
import subprocess

from guest_memfd import GuestMemfdTest, converts_in_place

IN_PLACE = converts_in_place()
HERE = os.path.dirname(os.path.realpath(__file__))
# START and START_TABLES of the payload (lab/payload/x86_64/launch.h)
START = '0xfffff000,0xffffd000'
OVMF = '/usr/share/ovmf/OVMF.fd'


class GuestMemfdLaunchTest(GuestMemfdTest):
    """A guest whose launch the model takes"""

    host_cbitpos = None
    modules = 'guest-memfd-launch'
    environment = ()

    def setUp(self):
        super().setUp()
        if not os.path.exists(OVMF):
            self.skipTest(f'{OVMF} is not there: install ovmf')

    def guest(self, kind, *args, what=None, firmware=OVMF, prop='', **kwargs):
        """A VM with the model, not started"""
        if kind == 'snp':
            cgs = (f'sev-snp-guest,sev-device=/dev/null,cbitpos={self.cbitpos()},'
                   'reduced-phys-bits=1')
            self.machine_props = ',confidential-guest-support=cgs0'
        else:
            cgs = 'tdx-guest'
            self.machine_props = ',confidential-guest-support=cgs0,kernel-irqchip=split'
        vm = self.machine_vm('vm', '-object', f'{cgs},id=cgs0{prop}', '-bios', firmware,
                             *args, **kwargs)
        self.preload_model(vm, kind, what)
        return vm

    def preload_model(self, vm, kind, what=None):
        self.launch_log = self.scratch_file(f'launch-{len(os.listdir(self.workdir))}')
        self.preload(vm, self.modules, f'GUEST_MEMFD_LAUNCH={kind}',
                     f'GUEST_MEMFD_LAUNCH_LOG={self.launch_log}', *self.environment,
                     *([f'GUEST_MEMFD_LAUNCH_DO={what}'] if what else []))

    def cbitpos(self):
        """What this host's processor says, whether it has SEV or not"""
        if self.host_cbitpos is None:
            GuestMemfdLaunchTest.host_cbitpos = 63
            vm = self.guest('snp')
            self.assert_refused(vm, "cbitpos check failed, host '[0-9]+' requested '63'")
            GuestMemfdLaunchTest.host_cbitpos = re.search("host '([0-9]+)'", vm.get_log())[1]
        return self.host_cbitpos

    def events(self, pattern=''):
        with open(self.launch_log, encoding='ascii') as file:
            return [line.strip() for line in file if re.match(pattern, line)]

    def assert_launched(self, digest, pages):
        """As the firmware's file says, and nothing that KVM would refuse"""
        self.assertEqual(self.events('refused|lost'), [])
        finish, = self.events('finish')
        self.assertIn(f'pages={pages} digest={digest}', finish)
        for update in self.events('update'):
            self.assertEqual(update.endswith('in-place'), IN_PLACE, update)

    def run_guest(self, vm):
        vm.launch()
        self.wait_for('the launch', lambda: self.events('finish') or not vm.is_running())
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    @staticmethod
    def image():
        with open(OVMF, 'rb') as file:
            return file.read()

    def hosts_script(self, kind, *options, firmware, **environment):
        """What the manual gives to those who have the hardware; its verdicts"""
        self.launch_log = self.scratch_file('launch')
        library = self.module_file('guest-memfd-launch')
        return subprocess.run(
            ['sh', os.path.join(HERE, '../../docs/system/guest-memfd-hosts.sh'), kind,
             firmware, *options], check=False, capture_output=True, text=True,
            env={**os.environ, 'QEMU': self.qemu_bin, 'TIME': '15', 'SEV_DEVICE': '/dev/null',
                 'CBITPOS': self.cbitpos(), 'LD_PRELOAD': library, 'GUEST_MEMFD_LAUNCH': kind,
                 'GUEST_MEMFD_LAUNCH_LOG': self.launch_log, **environment})


class PayloadTest(GuestMemfdLaunchTest):
    """The payload runs, launched in place."""

    environment = (f'GUEST_MEMFD_LAUNCH_START={START}',)

    def setUp(self):
        super().setUp()
        if not IN_PLACE:
            self.skipTest('the model gives no contents to memory that is not launched '
                          'in place, as with kvm.gmem_in_place_conversion=1')

    def cases(self, words):
        """QEMU's arguments for the payload's cases"""
        path = self.scratch_file('cases')
        with open(path, 'w', encoding='ascii') as file:
            file.write(words)
        return '-fw_cfg', f'name=opt/gmem/cases,file={path}'

    def run_payload(self, kind, cases, *args, **kwargs):
        """Launches it; returns the VM and its console."""
        vm = self.guest(kind, *self.cases(cases), *args,
                        firmware=self.guest_file('payload.rom'), **kwargs)
        self.add_payload_console(vm, 'payload')
        vm.launch()
        return vm, self.console(vm)

    @staticmethod
    def launched_case(kind):
        return f'launched,tdx={int(kind == "tdx")}'
