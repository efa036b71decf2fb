"""What the project's Python programs share: where things are, how to talk, and
how to start a QEMU with a monitor."""
import contextlib, os, shlex, socket, subprocess, sys, time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, 'build')
LAB = os.path.join(BUILD, 'lab')
PROGRAM = os.path.relpath(os.path.abspath(sys.argv[0]), TOP)


def say(message):
    print(f'{PROGRAM}: {message}', file=sys.stderr, flush=True)


def die(message):
    sys.exit(f'{PROGRAM}: error: {message}')


def kernels(machine='x86_64'):
    """Names of the lab's kernels for a machine, the main one first; see lab/kernels."""
    folder = os.path.join(TOP, 'lab/kernels')
    main = os.readlink(os.path.join(folder, 'default' if machine == 'x86_64'
                                    else f'default-{machine}'))
    return [main, *sorted(name for name in os.listdir(folder)
                          if name != main and not name.startswith('default')
                          and kernel_machine(name) == machine)]


def lab_folder(machine='x86_64'):
    """What lab/build makes for a machine."""
    return LAB if machine == 'x86_64' else os.path.join(LAB, machine)


def kernel_value(kernel, name):
    """What lab/kernels/KERNEL, which a shell reads as well, sets NAME to."""
    with open(os.path.join(TOP, 'lab/kernels', kernel), encoding='utf-8') as file:
        for word in shlex.split(file.read(), comments=True):
            if word.startswith(name + '='):
                return word[len(name) + 1:]
    return ''


def kernel_machine(kernel):
    return kernel_value(kernel, 'machine') or 'x86_64'


def size_name(size):
    for shift, unit in (40, 'TiB'), (30, 'GiB'), (20, 'MiB'), (10, 'KiB'):
        if size >= 1 << shift:
            return f'{size / (1 << shift):.4g} {unit}'
    return f'{size} B'


class Machine:
    """A QEMU and its QMP monitor; ends with the block that has it."""

    def __init__(self, command, **options):
        ours, theirs = socket.socketpair()
        with theirs:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                [*command, '-chardev', f'socket,id=gmem,fd={theirs.fileno()}',
                 '-mon', 'chardev=gmem,mode=control'],
                pass_fds=[theirs.fileno()], **options)
        # The guest boots meanwhile: in the lab, this import takes two seconds.
        sys.path.insert(0, os.path.join(BUILD, 'src/qemu/python'))
        sys.dont_write_bytecode = True
        # pylint: disable=import-outside-toplevel,import-error
        from qemu.qmp.legacy import QEMUMonitorProtocol
        self.monitor = QEMUMonitorProtocol(ours)
        ours.settimeout(60)
        try:
            ours.recv(1, socket.MSG_PEEK)   # QEMU greets, or has ended
            self.monitor.connect()
        except Exception:   # pylint: disable=broad-except
            self.process.kill()
            die('QEMU did not start: its message is above')
        self.cmd = self.monitor.cmd

    def wait_migrated(self):
        """Until the migration that it sends, or receives, is completed"""
        while (status := self.cmd('query-migrate').get('status')) != 'completed':
            if status == 'failed':
                die(f'a migration failed: {self.cmd("query-migrate")}')
            time.sleep(0.005)

    def vcpu_stat(self, name):
        """One that KVM counts, of the only vCPU"""
        [vcpu] = self.cmd('query-stats', target='vcpu',
                          providers=[{'provider': 'kvm', 'names': [name]}])
        return vcpu['stats'][0]['value']

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(Exception):    # it is gone
            self.monitor.close()
