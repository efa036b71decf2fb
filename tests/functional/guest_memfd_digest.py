# SPDX-License-Identifier: GPL-2.0-or-later
#
# What firmware wants launched, and the digest of that
#
# Copyright (c) 2026 The qemu-gmem developers
#
# The digest is computed from the firmware's file alone, so that it is no copy of what
# QEMU and the model (tests/qtest/guest-memfd-launch.c) do.  As a program: "python3
# guest_memfd_digest.py snp|tdx FIRMWARE".  SEV-SNP's firmware adds a page for each vCPU's
# registers, which this one leaves out.

import hashlib
import struct
import sys
import uuid

PAGE = 4096
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


DIGEST = {'snp': snp_digest, 'tdx': tdx_digest}

if __name__ == '__main__':
    if len(sys.argv) != 3 or sys.argv[1] not in DIGEST:
        sys.exit('usage: guest_memfd_digest.py snp|tdx FIRMWARE')
    with open(sys.argv[2], 'rb') as firmware:
        print(*DIGEST[sys.argv[1]](firmware.read()), 'pages')
