# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests of launches: their base class; and what firmware wants launched, with
# its digest
#
# Copyright (c) 2026 The qemu-gmem developers
#
# The digest is computed from the firmware's file alone, so that it is no copy of what
# QEMU and the model (tests/qtest/guest-memfd-launch.c) do.

import hashlib
import os
import re
import struct
import uuid

from guest_memfd import GuestMemfdTest, PAGE, converts_in_place

IN_PLACE = converts_in_place()
OVMF = '/usr/share/ovmf/OVMF.fd'
GIB4 = 1 << 32
ZEROS = bytes(48)
# Tables of OVMF, which end before its reset vector
FOOTER = uuid.UUID('96b582de-1fb2-45f7-baea-a366c55a082d')
SEV = uuid.UUID('dc886566-984a-4798-a75e-5585a7bf67cc')
TDX = uuid.UUID('e47a6535-984a-4798-865e-4685a7bf8ec2')
# Kinds of pages: of SEV-SNP's firmware, and of the firmware's sections
NORMAL, ZERO, SECRETS, CPUID = 1, 3, 5, 6
HASHES = 0              # NORMAL, or ZERO if there are none
SNP_KIND = {1: ZERO, 2: SECRETS, 3: CPUID, 4: ZERO, 0x10: HASHES}
BFV, CFV, TD_HOB, TEMP_MEM = range(4)


def tables(image):
    """The OVMF tables of an image: contents by UUID."""
    end = len(image) - 32
    size, name = struct.unpack('<H16s', image[end - 18:end])
    assert name == FOOTER.bytes_le, 'no OVMF tables in this firmware'
    start, end = end - size, end - 18
    found = {}
    while end > start:
        size, name = struct.unpack('<H16s', image[end - 18:end])
        found[uuid.UUID(bytes_le=name)] = image[end - size:end - 18]
        end -= size
    return found


def metadata(image, name):
    """A description that a table points to, from the end of the image."""
    return image[len(image) - struct.unpack('<I', tables(image)[name])[0]:]


def pages(address, size):
    return range(address, address + size, PAGE)


def snp_sections(image):
    """(address, size, kind of page)"""
    data = metadata(image, SEV)
    magic, _, _, count = struct.unpack_from('<4sIII', data)
    assert magic == b'ASEV'
    for i in range(count):
        address, size, kind = struct.unpack_from('<III', data, 16 + 12 * i)
        yield address, size, SNP_KIND[kind]


def hashes_page(kernel, initrd, command_line):
    """The page of hashes that QEMU gives to SEV's firmware: AMD's table, of three"""
    def entry(name, data):
        return struct.pack('<16sH', uuid.UUID(name).bytes_le, len(data) + 18) + data

    def of_file(path):
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).digest()

    table = entry('9438d606-4f22-4cc9-b479-a793d411fd21', b''.join((
        entry('97d02dd8-bd20-4c94-aa78-e7714d36ab2a',
              hashlib.sha256(command_line + b'\0').digest()),
        entry('44baf731-3a2f-4bd7-9af1-41e29169781d', of_file(initrd)),
        entry('4de79437-abd2-427f-b835-d5b172d2045b', of_file(kernel)))))
    return table.ljust(PAGE, b'\0')


def snp_digest(image, hashes=None):
    """Of a guest without vCPUs; and the number of pages"""
    launched = [(GIB4 - len(image) + at, NORMAL, image[at:at + PAGE])
                for at in range(0, len(image), PAGE)]
    for address, size, kind in snp_sections(image):
        if kind == HASHES:
            kind = NORMAL if hashes else ZERO
        launched += [(page, kind, hashes) for page in pages(address, size)]
    digest = ZEROS
    for address, kind, contents in launched:
        contents = hashlib.sha384(contents).digest() if kind == NORMAL else ZEROS
        digest = hashlib.sha384(digest + contents + struct.pack(
            '<HB5xQ', 0x70, kind, address)).digest()
    return digest.hex(), len(launched)


def tdx_sections(image):
    """(contents, address, size, type, measured)"""
    data = metadata(image, TDX)
    magic, _, _, count = struct.unpack_from('<4sIII', data)
    assert magic == b'TDVF'
    for i in range(count):
        offset, raw, address, size, kind, flags = struct.unpack_from(
            '<IIQQII', data, 16 + 32 * i)
        yield image[offset:offset + raw].ljust(size, b'\0'), address, size, kind, flags & 1


def tdx_digest(image):
    """MRTD, and the number of pages; the HOB is not measured."""
    digest = hashlib.sha384()
    count = 0
    for contents, address, size, kind, measured in tdx_sections(image):
        assert not (measured and kind == TD_HOB)
        for page in pages(address, size):
            count += 1
            digest.update(struct.pack('<16sQ104x', b'MEM.PAGE.ADD', page))
            for at in range(page, page + PAGE, 256) if measured else ():
                digest.update(struct.pack('<16sQ104x', b'MR.EXTEND', at))
                digest.update(contents[at - address:at - address + 256])
    return digest.hexdigest(), count


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


class PayloadTest(GuestMemfdLaunchTest):
    """The payload runs, launched in place."""

    # START and START_TABLES of the payload (lab/payload/x86_64/launch.h)
    environment = ('GUEST_MEMFD_LAUNCH_START=0xfffff000,0xffffd000',)

    def setUp(self):
        super().setUp()
        if not IN_PLACE:
            self.skipTest('the model gives no contents to memory that is not launched '
                          'in place, as with kvm.gmem_in_place_conversion=1')

    def run_payload(self, kind, cases, *args, **kwargs):
        """Launches it; returns the VM and its console."""
        path = self.scratch_file('cases')
        with open(path, 'w', encoding='ascii') as file:
            file.write(cases)
        vm = self.guest(kind, '-fw_cfg', f'name=opt/gmem/cases,file={path}', *args,
                        firmware=self.guest_file('payload.rom'), **kwargs)
        self.add_payload_console(vm, 'payload')
        vm.launch()
        return vm, self.console(vm)

    @staticmethod
    def launched_case(kind):
        return f'launched,tdx={int(kind == "tdx")}'
