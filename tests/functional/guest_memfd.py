# SPDX-License-Identifier: GPL-2.0-or-later
#
# Base class of the tests of memory-backend-guest-memfd with whole guests
#
# Copyright (c) 2026 The qemu-gmem developers
#
# The guests are the lab's: QEMU_TEST_GMEM_GUESTS is a directory with kernel,
# guest-initramfs.cpio and payload, for the machine that QEMU emulates.  Where KVM
# cannot run them the tests are skipped, or fail if QEMU_TEST_GMEM_REQUIRED is set.
#
# No test depends on how fast anything is: what has to be under way is held, and
# what has to come is waited for.  The one time limit, HANG, is there to end a
# test that hangs; it is QEMU_TEST_GMEM_SLOW times as long for QEMU with a
# sanitizer.

import contextlib
import ctypes
import glob
import logging
import mmap
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import unittest

from qemu.machine import QEMUMachine
from qemu_test import QemuSystemTest

MIB = 1 << 20
SLOW = int(os.getenv('QEMU_TEST_GMEM_SLOW', '1'))
# What takes too long for "make check" runs in "make check-long", with so many times
# as many requests.
IS_LONG = 'QEMU_TEST_GMEM_LONG' in os.environ
LONG = int(os.getenv('QEMU_TEST_GMEM_LONG', '1'))
# Seconds, many times as many as anything takes on a machine that is overloaded;
# yet far fewer than scripts/check gives the whole program.
HANG = 600 * SLOW * min(LONG, 10)
# System calls without a function in Python; the numbers are the same on all
# architectures.
PIDFD_GETFD, CACHESTAT = 438, 451
NANOSLEEP = '35'        # of x86-64
LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
# In the guest: its memory in KiB
MEMTOTAL = "awk '/^MemTotal/ { print $2 }' /proc/meminfo"
# What Linux names the file
GUEST_MEMFD_LINK = '[kvm-gmem]'
GUEST_FAILED = re.compile(rb'Kernel panic.*|guest: FAIL.*|^FAIL.*|^not ok .*',
                          re.MULTILINE)

console_log = logging.getLogger('console')


class Pc:
    """The machine of x86-64's tests."""
    name, props = 'q35', ',vmport=off'
    console = 'ttyS0'           # Linux's
    payload_console = '-device', 'isa-debugcon,iobase=0xe9,chardev=debug'
    # KVM writes kvmclock's wall clock anew wherever the guest comes to.
    cpu_to_migrate = 'host,kvmclock=off'

    @staticmethod
    def ram(size):
        """Where a guest's memory is, but for the VGA window"""
        return (0, 0xa0000), (0xc0000, size)


class Virt:
    """The machine of arm64's tests."""
    name, props = 'virt', ',gic-version=host'
    console = 'ttyAMA0'
    payload_console = '-serial', 'chardev:debug'
    cpu_to_migrate = 'host'

    @staticmethod
    def ram(size):
        return ((1 << 30, (1 << 30) + size),)


PLATFORMS = {'x86_64': Pc, 'aarch64': Virt}


class Console:
    """What a guest writes, and how to answer."""

    def __init__(self, test, vm, path=None):
        self.test = test
        self.vm = vm
        self.pending = b''
        # The payload's port blocks QEMU until all is written: a file.
        self.file = open(path, 'rb') if path else None
        if path:
            test.addCleanup(self.file.close)
        else:
            self.socket = vm.console_socket

    def read(self, timeout):
        """Adds to what is pending; False if nothing came, or ever will."""
        if self.file:
            data = self.file.read(1 * MIB)
            if not data and timeout:
                time.sleep(min(timeout, 0.1))
                data = self.file.read(1 * MIB)
        else:
            self.socket.settimeout(timeout)
            try:
                data = self.socket.recv(65536)
            except (TimeoutError, BlockingIOError):
                data = b''
        console_log.debug(data)
        self.pending += data
        return bool(data)

    def check(self, end):
        """Did the guest find something wrong, up to there?"""
        failed = GUEST_FAILED.search(self.pending, 0, end)
        if failed:
            before = self.pending[max(0, failed.start() - 500):failed.end()]
            self.test.fail(f'the guest says: {before.decode()}')

    def skip(self):
        """Passes over all that has come so far."""
        while self.read(0):
            pass
        end = self.pending.rfind(b'\n') + 1
        self.check(end)
        self.pending = self.pending[end:]

    def expect(self, pattern):
        """Reads on until the pattern has come; returns its match. A pattern's $ is
        the end of a line, and not of what has been read of it."""
        pattern = re.compile(re.sub(r'\$$', r'(?=\n)', pattern).encode(), re.MULTILINE)
        deadline = time.monotonic() + HANG
        while True:
            match = pattern.search(self.pending)
            self.check(match.end() if match else len(self.pending))
            if match:
                self.pending = self.pending[match.end():]
                return match
            left = deadline - time.monotonic()
            if left <= 0:
                self.log_state()
                self.fail(f'nothing like {pattern.pattern} on the console '
                          f'within {HANG} s')
            if not self.read(left) and not self.vm.is_running():
                self.fail(f'QEMU ended before {pattern.pattern} on the console')

    def log_state(self):
        """Something hangs: what the vCPUs do, and QEMU's threads."""
        for path in glob.glob(f'/proc/{self.vm.get_pid()}/task/*/syscall'):
            with contextlib.suppress(OSError), open(path, encoding='ascii') as syscall:
                console_log.error('%s: %s', path, syscall.read().strip())
        with contextlib.suppress(Exception):    # it may be QEMU that hangs
            self.vm._qmp.settimeout(30)
            for command in 'info status', *['info registers -a'] * 3:
                console_log.error(self.vm.cmd('human-monitor-command', command_line=command))

    def fail(self, why):
        self.test.fail(f'{why}; the last was: {self.pending[-300:]}')

    def run(self, command):
        """Runs a command in the small Linux guest; returns its output."""
        self.socket.sendall(command.encode() + b'\n')
        match = self.expect(r'([^\0]*?)^guest: done (\d+)$')
        output = match[1].decode(errors='replace').strip()
        if match[2] != b'0':
            self.test.fail(f'"{command}" in the guest ended with status '
                           f'{match[2].decode()}: {output}')
        return output

    def number(self, command):
        """As run(), for a command that prints one number."""
        return int(self.run(command))


class Machine(QEMUMachine):
    """Waits for what QEMU does until that is a hang."""

    def shutdown(self, hard=False, timeout=HANG):
        super().shutdown(hard, timeout)

    def wait(self, timeout=HANG):
        super().wait(timeout)

    def event_wait(self, name, timeout=HANG, match=None):
        return super().event_wait(name, timeout, match)


class VhostUserPeer(threading.Thread):
    """A vhost-user daemon that agrees to all, and does nothing with it; or ends
    when it gets the request @fatal."""

    GET_FEATURES, SET_MEM_TABLE, GET_VRING_BASE = 1, 5, 11
    GET_PROTOCOL_FEATURES = 15
    FEATURES = 1 << 32 | 1 << 30        # version 1, protocol features
    REPLY_ACK = 1 << 3
    REPLY, NEED_REPLY = 4, 8            # flags

    def __init__(self, path, fatal=None, protocol=REPLY_ACK):
        super().__init__(daemon=True)
        self.fatal = fatal
        self.protocol = protocol
        self.requests = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.peer = None
        self.start()

    def receive(self, size):
        data = b''
        while len(data) < size:
            piece, fds, *_ = socket.recv_fds(self.peer, size - len(data), 16)
            for fd in fds:
                os.close(fd)
            if not piece:
                raise EOFError
            data += piece
        return data

    def answer(self, request, flags, payload):
        if request == self.GET_FEATURES:
            payload = struct.pack('=Q', self.FEATURES)
        elif request == self.GET_PROTOCOL_FEATURES:
            payload = struct.pack('=Q', self.protocol)
        elif request != self.GET_VRING_BASE:
            if not flags & self.NEED_REPLY:
                return
            payload = struct.pack('=Q', 0)
        self.peer.sendall(struct.pack('=III', request, 1 | self.REPLY,
                                      len(payload)) + payload)

    def run(self):
        try:
            self.peer = self.server.accept()[0]
            while True:
                request, flags, size = struct.unpack('=III', self.receive(12))
                payload = self.receive(size)
                self.requests.append(request)
                if request == self.fatal:
                    break
                self.answer(request, flags, payload)
        except (EOFError, OSError):
            pass
        self.close()

    def close(self):
        """Ends the connection, if there is one."""
        self.server.close()
        if self.peer:
            try:
                self.peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Relay:
    """Carries a migration from a socket to another; holds it after so many bytes."""

    def __init__(self, path, target, most):
        self.target = target
        self.most = most
        self.passed = 0
        self.go_on = threading.Event()
        self.lock = threading.Lock()
        self.sockets = [socket.socket(socket.AF_UNIX)]
        self.sockets[0].bind(path)
        self.sockets[0].listen()
        self.run(self.accept)

    @staticmethod
    def run(function, *args):
        threading.Thread(target=function, args=args, daemon=True).start()

    def accept(self):
        try:
            while True:
                source, _ = self.sockets[0].accept()
                target = socket.socket(socket.AF_UNIX)
                target.connect(self.target)
                self.sockets += source, target
                self.run(self.copy, source, target, True)
                self.run(self.copy, target, source, False)
        except OSError:
            pass        # closed

    def copy(self, source, target, hold):
        try:
            while True:
                if hold and self.passed >= self.most:
                    self.go_on.wait()
                data = source.recv(65536)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                if hold:
                    with self.lock:
                        self.passed += len(data)
                target.sendall(data)
        except OSError:
            self.shut_down(source, target)

    @staticmethod
    def shut_down(*sockets):
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)     # wakes its thread as well
            except OSError:
                pass        # it was not connected

    def close(self):
        """Both ends of what is connected see the end."""
        self.go_on.set()
        self.shut_down(*self.sockets)
        for sock in self.sockets:
            sock.close()


class GuestMemfdTest(QemuSystemTest):

    kvm_works = {}      # by class and QEMU binary: None, or why not
    machine_args = ()   # of each VM
    machine_props = ''  # of each machine
    payload_words = ''  # before each payload's cases
    module = None       # of tests/qtest, preloaded into each QEMU

    @classmethod
    def add_cases(cls, method, cases):
        """A test for each case: a name, and arguments of the method."""
        def add(name, args):
            def test(self):
                getattr(self, method)(*args)
            test.__name__ = f'test_{name}'
            setattr(cls, test.__name__, test)

        for name, *args in cases:
            add(name, args)

    def setUp(self):
        super().setUp()
        self.platform = PLATFORMS[self.arch]
        self.payload_output = {}
        self.guests = os.getenv('QEMU_TEST_GMEM_GUESTS')
        if not self.guests:
            self.skipTest('QEMU_TEST_GMEM_GUESTS is not set')
        kind = (type(self), self.qemu_bin)
        if kind not in self.kvm_works:
            self.kvm_works[kind] = self.probe()
        why = self.kvm_works[kind]
        if why and os.getenv('QEMU_TEST_GMEM_REQUIRED'):
            self.fail(why)
        if why:
            self.skipTest(why)

    def tearDown(self):
        ended = []
        result = self._outcome.result
        # A test that failed fails but once.
        good = self not in [test for test, _ in result.errors + result.failures]
        for name, vm in self._vms.items():
            try:
                vm.shutdown(hard=not good)
            except Exception as e:      # pylint: disable=broad-except
                ended.append(f'{name}: {e}')
            if good and vm.exitcode():
                ended.append(f'{name} ended with status {vm.exitcode()}: '
                             f'{vm.get_log()}')
        super().tearDown()
        if good:
            self.assertEqual(ended, [])

    def probe(self):
        """Runs the payload: None, or why KVM cannot run guests here."""
        if not os.access('/dev/kvm', os.R_OK | os.W_OK):
            return 'there is no usable /dev/kvm'
        vm = self.machine_vm('probe', memory=32, payload='hello')
        try:
            vm.launch()
            self.console(vm).expect('^done 0 failed')
        except Exception as e:          # pylint: disable=broad-except
            return f'KVM cannot run the guests here: {str(e).strip()}'
        finally:
            if vm.is_running():
                vm.kill()
            del self._vms['probe']
        return None

    def _new_vm(self, name, *args):
        vm = Machine(self.qemu_bin, name=name, base_temp_dir=self.workdir,
                     log_dir=self.log_file())
        vm.add_args(*args)
        return vm

    def guest_file(self, name):
        path = os.path.join(self.guests, name)
        self.assertTrue(os.path.exists(path), f'{path} is not there')
        return path

    def machine_vm(self, name, *args, machine=None, memory=256, payload=None,
                   linux=None, cpu='host', backend='memory-backend-guest-memfd',
                   accel='kvm'):
        """A VM, not launched, with its main memory in the backend 'ram0', or,
        if backend is None, where the further arguments say.

        It runs the payload with these cases, or Linux with these gmem.*
        parameters, with the console on the first serial port.
        """
        vm = self.get_vm(name=name)
        machine = (machine or self.platform.name) + self.platform.props + self.machine_props
        vm.add_args('-nodefaults', '-no-user-config', '-accel', accel,
                    '-cpu', cpu, '-m', f'{memory}M')
        if backend:
            machine += ',memory-backend=ram0'
            vm.add_args('-object', f'{backend},id=ram0,size={memory}M')
        vm.set_machine(machine)
        if payload:
            self.add_payload_console(vm, name)
            vm.add_args('-kernel', self.guest_file('payload'),
                        '-append', self.payload_words + payload)
        else:
            vm.set_console()
        if linux:
            vm.add_args('-kernel', self.guest_file('kernel'),
                        '-initrd', self.guest_file('guest-initramfs.cpio'),
                        '-append', f'console={self.platform.console} quiet panic=-1 '
                        'memhp_default_state=online_movable ' + linux)
        vm.add_args(*self.machine_args, *args)
        if self.module:
            self.preload(vm, self.module)
        return vm

    def firmware(self, folder, code, variables):
        """Arguments for firmware in flash memory, with variables of its own"""
        own = self.scratch_file('vars.fd')
        shutil.copyfile(os.path.join(folder, variables), own)
        return ['-drive', 'if=pflash,unit=0,format=raw,readonly=on,'
                          f'file={os.path.join(folder, code)}',
                '-drive', f'if=pflash,unit=1,format=raw,file={own}']

    def edk2(self):
        """The same for arm64's; it is what tells Linux of ACPI."""
        return self.firmware('/usr/share/AAVMF', 'AAVMF_CODE.fd', 'AAVMF_VARS.fd')

    def add_payload_console(self, vm, name):
        self.payload_output[vm] = self.scratch_file(f'{name}.console')
        vm.add_args('-chardev', f'file,id=debug,path={self.payload_output[vm]}',
                    *self.platform.payload_console)

    def console(self, vm):
        return Console(self, vm, self.payload_output.get(vm))

    def start(self, *args, **kwargs):
        """Launches a machine_vm(); returns it and its console."""
        vm = self.machine_vm(*args, **kwargs)
        vm.launch()
        return vm, self.console(vm)

    def daemon(self, *command):
        """A process that listens on a socket, '{}' in the command; returns both."""
        path = os.path.join(self.socket_dir().name, 'vhost')
        daemon = subprocess.Popen(      # pylint: disable=consider-using-with
            [word.replace('{}', path) for word in command])
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        self.wait_for('the daemon listens', lambda: os.path.exists(path))
        return daemon, path

    def storage_daemon(self, disk):
        """qemu-storage-daemon, which serves a disk by vhost-user; and its socket."""
        return self.daemon(
            os.getenv('QEMU_TEST_GMEM_QSD'),
            '--blockdev', f'driver=file,node-name=file,filename={disk}',
            '--export', 'type=vhost-user-blk,id=export,node-name=file,'
                        'writable=on,addr.type=unix,addr.path={}')

    def preload(self, vm, names, *environment):
        """That QEMU, not launched yet, runs with modules of tests/qtest: the first is
        the one that it calls."""
        libraries = ':'.join(map(self.module_file, names.split()))
        vm._wrapper = ('env', f'LD_PRELOAD={libraries}', *environment)

    def module_file(self, name):
        path = os.path.join(os.path.dirname(self.qemu_bin), f'tests/qtest/{name}.so')
        self.assertTrue(os.path.exists(path), f'{path} is not there')
        return path

    def inject_faults(self, vm):
        """System calls of that QEMU, not launched yet, fail as arm() says."""
        self.fault = self.scratch_file('fault')
        self.preload(vm, 'guest-memfd-fault', f'GUEST_MEMFD_FAULT={self.fault}')

    def start_faulty(self, *args, **kwargs):
        """As start(), with inject_faults()."""
        vm = self.machine_vm(*args, **kwargs)
        self.inject_faults(vm)
        vm.launch()
        return vm, self.console(vm)

    def arm(self, *words):
        """What is to fail, in the words of tests/qtest/guest-memfd-fault.c.
        disarm() ends that."""
        with open(self.fault + '.new', 'w', encoding='ascii') as file:
            file.write(' '.join(map(str, words)))
        os.rename(self.fault + '.new', self.fault)

    def disarm(self):
        os.unlink(self.fault)

    @staticmethod
    def press_key(vm):
        """The payload's case "wait" ends."""
        vm.cmd('send-key', keys=[{'type': 'qcode', 'data': 'a'}])

    @staticmethod
    def qemu_io(vm, command, disk='disk1'):
        vm.cmd('human-monitor-command',
               command_line=f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"')

    def hold_disk(self, vm, hold):
        """Its requests, or lets them go; it is below a blkdebug.  The guest waits for
        that."""
        for kind in 'read', 'write':
            self.qemu_io(vm, f'break {kind}_aio {kind}' if hold else f'remove_break {kind}')
        self.press_key(vm)

    def assert_refused(self, vm, message):
        """QEMU ends at once, with that message."""
        vm.set_qmp_monitor(False)
        vm.launch()
        vm.wait()
        self.assertEqual(vm.exitcode(), 1, vm.get_log())
        self.assertRegex(vm.get_log(), message)
        self._vms = {name: other for name, other in self._vms.items()
                     if other is not vm}

    def wait_for(self, what, condition):
        """Returns the first true value that condition() has."""
        deadline = time.monotonic() + HANG
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                self.fail(f'not within {HANG} s: {what}')
            time.sleep(0.2)

    def relay(self, name, most):
        """What holds a migration after that many bytes, where it comes from, and
        where it goes to."""
        source, target = (f'{self.socket_dir().name}/{name}-{end}'
                          for end in ('source', 'target'))
        relay = Relay(source, target, most)
        self.addCleanup(relay.close)
        return relay, f'unix:{source}', f'unix:{target}'

    def wait_for_migration(self, vm, *statuses):
        """It must not end in another way."""
        def reached():
            info = vm.cmd('query-migrate')
            if info.get('status') in statuses:
                return True
            self.assertNotIn(info.get('status'), (
                'failed', 'cancelled', 'completed'), info)
            return False

        self.wait_for(f'migration {statuses}', reached)

    def migrate_nowhere(self, vm):
        """Starts a migration to somebody who reads nothing: it goes on until it
        is cancelled."""
        path = os.path.join(self.socket_dir().name, 'nowhere')
        peer = socket.socket(socket.AF_UNIX)
        self.addCleanup(peer.close)
        peer.bind(path)
        peer.listen()
        vm.cmd('migrate', uri=f'unix:{path}')
        self.wait_for('a migration', lambda:
                      vm.cmd('query-migrate')['status'] == 'active')

    def cancel_migration(self, vm):
        vm.cmd('migrate_cancel')
        self.wait_for('the migration is cancelled', lambda:
                      vm.cmd('query-migrate')['status'] == 'cancelled')

    # The slots, as query-guest-memfd tells them

    def info(self, vm, backend='ram0'):
        for info in vm.cmd('query-guest-memfd'):
            if info['id'] == backend:
                return info
        return self.fail(f'{backend} is not in query-guest-memfd')

    def slots(self, vm, backend='ram0'):
        """Slots of the main address space, in order of address."""
        return sorted((slot for slot in self.info(vm, backend)['slots']
                       if slot['address-space'] == 0),
                      key=lambda slot: slot['address'])

    def assert_bindings(self, vm, binding, backend='ram0', hidden=0):
        """All memory but that of the lowest MiB (which has the shadow RAM, in
        read-only slots and aliases) and what SMRAM hides is registered in this
        way."""
        slots = self.slots(vm, backend)
        high = [slot for slot in slots if slot['address'] >= MIB]
        self.assertEqual({slot['binding'] for slot in high}, {binding}, slots)
        self.assertGreaterEqual(sum(slot['size'] for slot in high),
                                self.info(vm, backend)['size'] - MIB - hidden, slots)

    def assert_bound(self, vm, *backends, hidden=0):
        for backend in backends or ['ram0']:
            self.assert_bindings(vm, 'bound', backend, hidden)

    @staticmethod
    def process_status(vm, key):
        """A size of the QEMU process, in bytes, as VmRSS."""
        with open(f'/proc/{vm.get_pid()}/status', encoding='ascii') as status:
            for line in status:
                if line.startswith(key + ':'):
                    return int(line.split()[1]) * 1024
        raise KeyError(key)

    @staticmethod
    def guest_memfds(vm):
        """The guest_memfd files that the QEMU process has open."""
        found = []
        for path in glob.glob(f'/proc/{vm.get_pid()}/fd/*'):
            with contextlib.suppress(FileNotFoundError):    # closed meanwhile
                if GUEST_MEMFD_LINK in os.readlink(path):
                    found.append(int(os.path.basename(path)))
        return found

    @staticmethod
    def maps(vm):
        """The mappings of guest_memfds: their policies, and where their pages are"""
        with open(f'/proc/{vm.get_pid()}/numa_maps', encoding='ascii') as file:
            return [line.strip() for line in file if 'kvm-gmem' in line]

    def allocated(self, vm, start=0, size=0, fd=None):
        """Bytes that the host has of a part of the VM's main memory, or of all of
        it, as the kernel tells; or of another of its guest_memfds."""
        stat = (ctypes.c_uint64 * 5)()
        copy = self.guest_memfd_copy(vm, fd)
        self.assertEqual(LIBC.syscall(CACHESTAT, copy, (ctypes.c_uint64 * 2)(start, size),
                                      stat, 0),
                         0, os.strerror(ctypes.get_errno()))
        return stat[0] * 4096

    def host_memory(self, vm):
        """Bytes that the VM takes of the host's memory, for whatever; but for huge
        pages, and for files that the host could read again"""
        return (sum(self.allocated(vm, fd=fd) for fd in self.guest_memfds(vm))
                + self.process_status(vm, 'RssAnon') + self.process_status(vm, 'RssShmem'))

    def guest_memfd_copy(self, vm, fd=None):
        """A file descriptor of our own, until the test ends, of one of the VM's
        guest_memfds, or else of the largest: its main memory."""
        if fd is None:
            fd = max(self.guest_memfds(vm),
                     key=lambda fd: os.stat(f'/proc/{vm.get_pid()}/fd/{fd}').st_size)
        pidfd = os.pidfd_open(vm.get_pid())
        copy = LIBC.syscall(PIDFD_GETFD, pidfd, fd, 0)
        os.close(pidfd)
        self.assertGreaterEqual(copy, 0, os.strerror(ctypes.get_errno()))
        self.addCleanup(os.close, copy)
        return copy

    @contextlib.contextmanager
    def held(self, vm, offset):
        """Another process has the page in a pipe, as a backend that sends it."""
        class IoVec(ctypes.Structure):
            _fields_ = (('base', ctypes.c_void_p), ('length', ctypes.c_size_t))

        self.assertNotEqual(self.allocated(vm, offset, PAGE), 0)
        with contextlib.ExitStack() as stack:
            memory = mmap.mmap(self.guest_memfd_copy(vm), offset + PAGE)
            stack.callback(memory.close)
            ends = os.pipe()
            for end in ends:
                stack.callback(os.close, end)
            view = (ctypes.c_char * PAGE).from_buffer(memory, offset)
            iov = IoVec(ctypes.addressof(view), PAGE)
            done = LIBC.vmsplice(ends[1], ctypes.byref(iov), ctypes.c_ulong(1), 0)
            self.assertEqual(done, PAGE, os.strerror(ctypes.get_errno()))
            del iov, view
            yield

    @staticmethod
    def sleeps(vm):
        """Is a thread of QEMU in nanosleep()?"""
        for path in glob.glob(f'/proc/{vm.get_pid()}/task/*/syscall'):
            with open(path, encoding='ascii') as syscall:
                if syscall.read().split()[0] == NANOSLEEP:
                    return True
        return False


class AssignedDevices:
    """For a GuestMemfdTest: two "edu" devices of the host, behind its IOMMU"""

    EDU = ('0x1234', '0x11e8')

    @staticmethod
    def read_line(path):
        with open(path, encoding='ascii') as file:
            return file.readline().strip()

    def take_edu(self):
        self.edu = [path for path in sorted(glob.glob('/sys/bus/pci/devices/*'))
                    if (self.read_line(path + '/vendor'),
                        self.read_line(path + '/device')) == self.EDU
                    and os.path.exists(path + '/iommu_group')]
        if len(self.edu) < 2:
            self.skipTest('there are no two edu devices behind an IOMMU, as '
                          'lab/run --vfio has them')
        for path in self.edu:
            self.bind(path)

    @staticmethod
    def bind(path):
        """Hands the device over to vfio-pci."""
        if os.path.exists(path + '/driver'):
            return
        with open(path + '/driver_override', 'w', encoding='ascii') as file:
            file.write('vfio-pci')
        with open('/sys/bus/pci/drivers_probe', 'w', encoding='ascii') as file:
            file.write(os.path.basename(path))

    def device(self, number, iommufd):
        """Arguments for one of the edu devices."""
        host = os.path.basename(self.edu[number])
        if not iommufd:
            return ['-device', f'vfio-pci,host={host},id=edu{number}']
        return ['-object', f'iommufd,id=iommufd{number}', '-device',
                f'vfio-pci,host={host},id=edu{number},iommufd=iommufd{number}']


def kvm_parameter(name):
    """Is it on? A KVM that does not know it does not do it."""
    try:
        with open(f'/sys/module/kvm/parameters/{name}', encoding='ascii') as file:
            return file.read().strip() == 'Y'
    except FileNotFoundError:
        return False


def converts_in_place():
    return kvm_parameter('gmem_in_place_conversion')


def split_only(test):
    """A test of what there is only where shared memory has a half of its own."""
    return unittest.skipIf(converts_in_place(),
                           'memory that is converted in place has no halves')(test)


class GuestMemfdPrivateTest(GuestMemfdTest):
    """Each guest can make its memory private. The host's kernel says how: split, or
    in place."""

    in_place = converts_in_place()
    mode = 'in-place' if in_place else 'split'
    machine_args = ('-object', 'sw-protected-guest,id=cgs0')
    machine_props = ',confidential-guest-support=cgs0'
    payload_words = 'in-place ' if in_place else ''

    def private(self, vm, backend='ram0'):
        """Bytes of the backend's memory"""
        return self.info(vm, backend)['conversion']['private']
