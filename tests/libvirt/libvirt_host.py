# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests of libvirt: a host, that is a daemon of libvirt, and its guests
#
# Copyright (c) 2026 The qemu-gmem developers
#
# A Host is a process virtqemud with directories, sockets and an UUID of its own, so
# that two of them on one machine can migrate guests to each other.  It is root's, has
# no security driver, no cgroups, and needs no other daemon.  Guests are the lab's:
# the payload, which answers on its serial port, and the small Linux.

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BUILD = os.path.join(TOP, 'build')
LIBVIRT = os.getenv('LIBVIRT_TEST_GMEM_BUILD', os.path.join(BUILD, 'libvirt'))
QEMU = os.path.join(BUILD, 'qemu/qemu-system-x86_64')
LAB = os.path.join(BUILD, 'lab')
# There to end a test that hangs: nothing depends on how fast anything is.
HANG = 600
MIB = 1 << 20
# What the daemon writes to, each in the host's own memory
OWN = '/run', '/var/lib', '/var/cache', '/var/log'
QEMU_CONF = os.path.join(TOP, 'tests/libvirt/qemu.conf')
DAEMON_CONF = '''
host_uuid = "{uuid}"
unix_sock_dir = "{folder}"
unix_sock_group = "root"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{folder}/log"
'''


class Failed(Exception):
    """virsh says no, and why."""


def wait_for(what, condition):
    deadline = time.monotonic() + HANG
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what} did not come within {HANG} s')
        time.sleep(0.2)


class Host:

    def __init__(self, name):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix=f'libvirt-{name}-', dir='/tmp')
        self.uri = f'qemu+unix:///system?socket={self.folder}/virtqemud-sock'
        self.daemon = None
        with open(os.path.join(self.folder, 'daemon.conf'), 'w', encoding='ascii') as conf:
            conf.write(DAEMON_CONF.format(uuid=uuid.uuid4(), folder=self.folder))
        # The directories stay when the daemon does not.  /etc, which the lab cannot write
        # to, has to have a folder for libvirt, and the user whom Debian's packages make:
        # the daemon looks for it before it reads its configuration.
        self.holder = subprocess.Popen(
            ['unshare', '-m', 'sh', '-ec', '; '.join(
                [f'mount -t tmpfs tmpfs {path}' for path in OWN]
                + ['mkdir /run/guests', 'cp -a /etc /run/etc', 'mkdir -p /run/etc/libvirt',
                   'echo libvirt-qemu:x:64055:64055::/:/bin/false >> /run/etc/passwd',
                   'echo libvirt-qemu:x:64055: >> /run/etc/group',
                   f'cp {QEMU_CONF} /run/etc/libvirt', 'mount --bind /run/etc /etc',
                   f'touch {self.folder}/ready', 'exec sleep infinity'])])
        wait_for('a place for the daemon', self.is_ready)
        self.start()

    def is_ready(self):
        if self.holder.poll() is not None:
            raise RuntimeError('no place for the daemon: see the messages above')
        return os.path.exists(self.folder + '/ready')

    def inside(self, path):
        """A path of the host's, for the test"""
        return f'/proc/{self.holder.pid}/root{path}'

    def start(self):
        self.daemon = subprocess.Popen(
            ['nsenter', '-m', '-r', '-w', '-t', str(self.holder.pid), f'{LIBVIRT}/run',
             f'{LIBVIRT}/src/virtqemud', '-f', self.folder + '/daemon.conf'])
        wait_for('the daemon', self.answers)

    def answers(self):
        if self.daemon.poll() is not None:
            raise RuntimeError(f'virtqemud ended with {self.daemon.returncode}')
        with contextlib.suppress(Failed):
            return self.virsh('uri')

    def restart(self):
        """The daemon alone: guests run on."""
        self.daemon.terminate()
        self.daemon.wait(HANG)
        self.start()

    def end(self):
        for name in self.virsh('list', '--name').split():
            with contextlib.suppress(Failed):
                self.virsh('destroy', name)
        self.daemon.terminate()
        self.daemon.wait(HANG)
        self.holder.kill()
        self.holder.wait()
        shutil.rmtree(self.folder)

    def popen(self, *args):
        return subprocess.Popen(
            [f'{LIBVIRT}/run', f'{LIBVIRT}/tools/virsh', '-q', '-c', self.uri, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding='utf-8', env=dict(os.environ, HOME=self.folder))

    def virsh(self, *args):
        process = self.popen(*args)
        out, err = process.communicate(timeout=HANG)
        if process.returncode:
            raise Failed(err.strip())
        return out.strip()


class Guest:
    """A domain of a host's, that runs the payload or, with these parameters, Linux."""

    def __init__(self, host, name, memory=64, backing="<source type='guest-memfd'/>", sec='',
                 linux=None, numa='', devices='', more='', vcpus=1):
        self.host = host
        self.name = name
        self.output = os.path.join(host.folder, name + '.out')
        # What a guest of this name has said in a test before
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.output)
        self.taken = 0
        self.port = None
        if linux is None:
            kernel = f'<kernel>{LAB}/payload.elf</kernel><cmdline>serve</cmdline>'
            log = ''
            devices += f"""
                <serial type='file'>
                  <source path='{self.output}' append='on'/>
                  <target type='isa-debug'/><address type='isa' iobase='0xe9'/>
                </serial>"""
        else:
            kernel = (f'<kernel>{LAB}/bzImage-7.3</kernel>'
                      f'<initrd>{LAB}/guest-initramfs.cpio</initrd><cmdline>console=ttyS0 quiet '
                      f'panic=-1 memhp_default_state=online_movable {linux}</cmdline>')
            log = f"<log file='{self.output}' append='on'/>"
        self.xml = f"""
            <domain type='kvm'>
              <name>{name}</name>
              <memory unit='MiB'>{memory}</memory>
              <memoryBacking>{backing}</memoryBacking>
              <vcpu>{vcpus}</vcpu>
              <os><type arch='x86_64' machine='q35'>hvm</type>{kernel}</os>
              <features><acpi/></features>
              <cpu mode='host-passthrough' migratable='off'>{numa}</cpu>
              {more}
              <devices>
                <emulator>{QEMU}</emulator>
                <controller type='usb' model='none'/>
                <serial type='unix'>
                  <source mode='bind' path='/run/guests/{name}'/>{log}
                  <target type='isa-serial'/>
                </serial>
                {devices}
              </devices>
              {sec}
            </domain>"""

    def define(self):
        path = os.path.join(self.host.folder, self.name + '.xml')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(self.xml)
        self.host.virsh('define', '--validate', path)
        return self

    def start(self):
        self.virsh('start')
        return self

    def forget(self):
        for command in ('destroy',), ('undefine', '--managed-save', '--nvram'):
            with contextlib.suppress(Failed):
                self.virsh(*command)

    def virsh(self, command, *args):
        return self.host.virsh(command, self.name, *args)

    def state(self):
        return self.virsh('domstate', '--reason')

    def qmp(self, command, **args):
        return json.loads(self.virsh('qemu-monitor-command', json.dumps(
            {'execute': command, 'arguments': args})))['return']

    def connect(self):
        self.port = socket.socket(socket.AF_UNIX)
        self.port.connect(self.host.inside(f'/run/guests/{self.name}'))

    def send(self, line):
        """The connection stays: QEMU forgets what the guest has not read when it ends."""
        if not self.port:
            self.connect()
        try:
            self.port.sendall(line.encode() + b'\n')
        except BrokenPipeError:     # another QEMU's by now
            self.connect()
            self.port.sendall(line.encode() + b'\n')

    def said(self):
        with open(self.output, encoding='utf-8', errors='replace') as file:
            return file.read()

    def expect(self, pattern):
        """Waits until the guest says it, behind what was expected before."""
        def look():
            text = self.said()[self.taken:]
            bad = re.search(r'^(not ok|FAIL|guest: FAIL|Kernel panic).*', text, re.M)
            if bad:
                raise AssertionError(f'the guest says: {bad[0]}')
            match = re.search(pattern, text, re.M)
            if match:
                self.taken += match.end()
            return match
        return wait_for(f'{pattern} of {self.name}', look)

    def run(self, words):
        """Cases of the payload's, or a command of Linux's"""
        self.send(words)
        self.expect(r'^(served|guest: done 0)\r?$')

    def backends(self):
        return {backend['id']: backend for backend in self.qmp('query-guest-memfd')}

    def bindings(self):
        """Of each backend: how KVM's slots are registered"""
        return {name: {slot['binding'] for slot in backend['slots']}
                for name, backend in self.backends().items()}
