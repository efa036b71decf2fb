#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Launches a guest of no use, without QEMU: for the test of the model of launches
#
# Copyright (c) 2026 The qemu-gmem developers
#
# guest_memfd_launch_client.py snp|tdx LOG, with the model preloaded: on stdin comes, in
# JSON, {NAME: STEPS, ...}, where a step is [METHOD, ARGUMENTS]. Each list of steps gets a
# process, with a VM with one MiB of memory at 0, and "case NAME" in the model's log.
# Prints {NAME: ERRNOS}, of the steps, 0 where there is none.

import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys

MIB = 1 << 20
PAGE = 4096
PUNCH_HOLE_KEEP_SIZE = 3
# Where vCPUs start: shared memory behind the other, with code and page tables
CODE, TABLES = 2 * MIB, 2 * MIB + PAGE
# Reads the model's port 0x5e0, again and again
ASK = b'\xba\xe0\x05\x00\x00' b'\xed' b'\xeb\xf8'
# Of struct kvm_run
EXIT_REASON, HYPERCALL_RET, EXIT_HYPERCALL = 8, 88, 3
LIBC = ctypes.CDLL(None, use_errno=True)
# Of struct kvm_sev_cmd and struct kvm_tdx_cmd
SNP = {'init': 22, 'start': 100, 'update': 101, 'finish': 102}
TDX = {'capabilities': 0, 'init': 1, 'vcpu-init': 2, 'update': 3, 'finish': 4}


def number(direction, nr, size):
    """Of an ioctl of KVM's: 0 without data, 1 to, 2 from KVM, 3 both"""
    return direction << 30 | size << 16 | 0xae << 8 | nr


CREATE_VM = number(0, 0x01, 0)
GET_SUPPORTED_CPUID = number(3, 0x05, 8)
CREATE_VCPU = number(0, 0x41, 0)
SET_REGION = number(1, 0x49, 160)
RUN = number(0, 0x80, 0)
GET_REGS = number(2, 0x81, 144)
SET_CPUID2 = number(1, 0x90, 8)
ENCRYPT_OP = number(3, 0xba, 8)
SET_ATTRIBUTES = number(1, 0xd2, 32)
CREATE_GUEST_MEMFD = number(3, 0xd4, 64)


def address(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Vm:

    def __init__(self, kind):
        self.kvm = os.open('/dev/kvm', os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.kvm, CREATE_VM, 4 if kind == 'snp' else 5)
        self.vcpu = None
        self.memory = mmap.mmap(-1, MIB)
        file = bytearray(struct.pack('=QQ48x', MIB, 0))
        self.file = fcntl.ioctl(self.vm, CREATE_GUEST_MEMFD, file)
        self.slot()

    def slot(self, at=0, size=MIB, slot=0, flags=4):
        fcntl.ioctl(self.vm, SET_REGION, struct.pack(
            '=IIQQQQI116x', slot, flags, at, size, address(self.memory), 0, self.file))

    def set_private(self, at=0, size=MIB, private=True):
        fcntl.ioctl(self.vm, SET_ATTRIBUTES, struct.pack('=QQQQ', at, size, private << 3, 0))

    def punch(self, at, size=PAGE):
        LIBC.fallocate64(self.file, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(at), ctypes.c_long(size))

    def create_vcpu(self):
        self.vcpu = fcntl.ioctl(self.vm, CREATE_VCPU, 0)

    def code(self):
        """What the vCPU runs, after the launch"""
        self.state = mmap.mmap(self.vcpu, PAGE)
        cpuid = bytearray(struct.pack('=II', 256, 0) + bytes(40 * 256))
        fcntl.ioctl(self.kvm, GET_SUPPORTED_CPUID, cpuid)
        fcntl.ioctl(self.vcpu, SET_CPUID2, cpuid)
        self.code_memory = mmap.mmap(-1, 3 * PAGE)
        self.code_memory[:len(ASK)] = ASK
        # One page of 1 GiB, accessed and dirty
        struct.pack_into('=Q', self.code_memory, PAGE, TABLES + PAGE | 0x23)
        struct.pack_into('=Q', self.code_memory, 2 * PAGE, 0xe3)
        fcntl.ioctl(self.vm, SET_REGION, struct.pack(
            '=IIQQQQI116x', 1, 0, CODE, 3 * PAGE, address(self.code_memory), 0, 0))

    def ask(self):
        """The guest asks for a conversion."""
        self.run()
        reason, = struct.unpack_from('=I', self.state, EXIT_REASON)
        assert reason == EXIT_HYPERCALL, reason

    def answer(self, ret):
        struct.pack_into('=Q', self.state, HYPERCALL_RET, ret)
        self.ask()

    def run(self):
        fcntl.ioctl(self.vcpu, RUN, 0)

    def get_regs(self):
        fcntl.ioctl(self.vcpu, GET_REGS, bytearray(144))

    def command(self, id_, data, flags=0, fd=None):
        buffer = bytearray(data)
        command = bytearray(struct.pack('=IIQII', id_, flags, address(buffer), 0, 0))
        fcntl.ioctl(self.vm if fd is None else fd, ENCRYPT_OP, command)

    def source(self, offset):
        return 0 if offset is None else address(self.memory) + offset


class SnpVm(Vm):

    def init(self, features=0, flags=0, version=2):
        self.command(SNP['init'], struct.pack('=QIHH32x', features, flags, version, 0))

    def start(self, policy=0x30000, flags=0):
        self.command(SNP['start'], struct.pack('=Q16xH38x', policy, flags))

    def update(self, at=0, size=PAGE, kind=1, source=0, flags=0):
        self.command(SNP['update'], struct.pack(
            '=QQQBxH36x', at // PAGE, self.source(source), size, kind, flags))

    def finish(self, flags=0):
        self.command(SNP['finish'], struct.pack('=54xH32x', flags))

    def other(self, id_):
        self.command(id_, bytes(64))


class TdxVm(Vm):

    def capabilities(self, entries=16):
        self.command(TDX['capabilities'], struct.pack('=2048xII', entries, 0)
                     + bytes(40 * entries))

    def init(self, attributes=0, xfam=3, reserved=0, entries=0, flags=0):
        self.command(TDX['init'], struct.pack('=QQ144xQ88xII', attributes, xfam, reserved,
                                              entries, 0), flags)

    def init_vcpu(self, flags=0):
        self.command(TDX['vcpu-init'], bytes(8), flags, self.vcpu)

    def update(self, at=0, size=PAGE, source=0, flags=1):
        self.command(TDX['update'], struct.pack('=QQQ', self.source(source), at, size // PAGE),
                     flags, self.vcpu)

    def finish(self, flags=0):
        self.command(TDX['finish'], bytes(8), flags)

    def other(self, id_, vcpu=False):
        self.command(id_, bytes(64), 0, self.vcpu if vcpu else None)


def do_steps(kind, steps):
    errnos = []
    vm = (SnpVm if kind == 'snp' else TdxVm)(kind)
    for name, arguments in steps:
        try:
            getattr(vm, name)(**arguments)
            errnos.append(0)
        except OSError as error:
            errnos.append(error.errno)
    return errnos


def main():
    kind, log = sys.argv[1:]
    answers = {}
    for name, steps in json.load(sys.stdin).items():
        with open(log, 'a', encoding='ascii') as file:
            file.write(f'case {name}\n')
        ends = os.pipe()
        if not os.fork():
            os.write(ends[1], json.dumps(do_steps(kind, steps)).encode())
            os._exit(0)
        os.close(ends[1])
        with open(ends[0], encoding='ascii') as answer:
            answers[name] = json.load(answer)
        os.wait()
    print(json.dumps(answers))


if __name__ == '__main__':
    main()
