"""Runs test programs that speak TAP, several side by side, and counts their tests."""
import collections, concurrent.futures, glob, os, re, shlex, subprocess, threading, time

from gmem import BUILD, TOP

LOGS = os.path.join(BUILD, 'check')
# Of the sanitizers, where the lab can write as well.
REPORTS = os.path.join(BUILD, 'lab-out/sanitizer')
# Seconds for a test program: only what hangs takes so long.  Our own tests end
# what hangs by themselves, after a fraction of it.
LIMIT = 3000

TAP = re.compile(r'(?P<verdict>ok|not ok) +(?P<number>\d+) *(?:- )?(?P<name>[^#]*)'
                 r'(?:# *(?P<directive>SKIP|skip|TODO)\S* *(?P<reason>.*))?')
PLAN = re.compile(r'1\.\.(?P<count>\d+)(?: *# *(?:SKIP|skip)\S* *(?P<reason>.*))?$')


class Results:
    """What came out, and the programs that are still to run."""

    only_list = False   # say what would run, and run nothing
    # Seconds since the epoch: what has not begun by then is skipped.
    until = float(os.getenv('QEMU_TEST_GMEM_UNTIL', 'inf'))

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()
        self.later = []

    def say(self, text):
        with self.lock:
            print(text, flush=True)

    def add(self, verdict, where, name, reason=''):
        with self.lock:
            if verdict == 'ok':
                self.passed += 1
            elif verdict == 'skip':
                self.skipped += 1
            else:
                self.failed += 1
        self.say(f'{verdict:7} {where}: {name}' + (f' ({reason})' if reason else ''))

    def run_later(self, *args):
        """Arguments of run_tap() after the first."""
        self.later.append(args)

    def run_all(self):
        """As many at once as there are processors, but only one lab that emulates several: in
        two of them, processors would wait for others that do not run."""
        if self.only_list:
            for where, command, *_ in self.later:
                print(f'{where}: {shlex.join(command)}')
            return
        # The ends have what takes longest.
        several = [args for args in self.later if has_several_processors(args[1])]
        others = [args for args in self.later if not has_several_processors(args[1])]
        queue = collections.deque(several + others[::-1])

        def work(take):
            while True:
                try:
                    args = take()
                except IndexError:
                    return
                run_tap(self, *args)

        takes = [queue.popleft] + [queue.pop] * (os.cpu_count() - 1)
        with concurrent.futures.ThreadPoolExecutor(len(takes)) as pool:
            for done in [pool.submit(work, take) for take in takes]:
                done.result()


def has_several_processors(command):
    return any(re.match('--smp=(?!1$)', argument) for argument in command)


def file_name(where):
    return re.sub(r'\W+', '-', where)


def run_tap(results, where, command, env=None, timeout=LIMIT):
    """One test program. A program that ends early, says nothing, or fails
    without a failed test counts as a failed test of its own, and so does each
    report of a sanitizer, whatever the test made of the program that wrote it."""
    if time.time() > results.until:
        results.add('skip', where, 'all', 'no time is left')
        return
    log_path = os.path.join(LOGS, file_name(where) + '.log')
    done = failed = skipped = 0
    planned = None
    start = time.monotonic()
    with open(log_path, 'w') as log:
        log.write('$ ' + shlex.join(command) + '\n')
        log.flush()
        try:
            process = subprocess.Popen(
                ['timeout', '--kill-after=20', str(timeout), *command], cwd=TOP,
                env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True, errors='replace')
        except OSError as e:
            results.add('not ok', where, str(e))
            return
        for line in process.stdout:
            log.write(line)
            log.flush()
            line = line.rstrip()
            if plan := PLAN.match(line):
                planned = int(plan['count'])
                if planned == 0 and plan['reason']:
                    results.add('skip', where, 'all', plan['reason'])
                    skipped += 1
            elif test := TAP.match(line):
                done += 1
                name, verdict = test['name'].strip(), test['verdict']
                if (test['directive'] or '').upper() == 'SKIP':
                    verdict = 'skip'
                failed += verdict == 'not ok'
                results.add(verdict, where, name, test['reason'] or '')
        status = process.wait()
        for path in sorted(glob.glob(f'{REPORTS}/{file_name(where)}.[0-9]*')):
            with open(path, errors='replace') as report:
                lines = report.readlines()
            # Without one there are but warnings that sanitizers have limits.
            for summary in (line for line in lines if line.startswith('SUMMARY')):
                log.writelines(lines)
                failed += 1
                results.add('not ok', where, 'sanitizer', summary.strip())
    why = None
    if status == 124 or status == 137:
        why = f'it took longer than {timeout} s'
    elif planned is None:
        why = f'it ended with status {status}, before the end of its tests'
    elif planned == done == 0 and not skipped:
        why = 'it has no such test'
    elif done != planned:
        why = f'{done} of {planned} tests ran, status {status}'
    elif status and not failed:
        why = f'it ended with status {status}'
    if why:
        results.add('not ok', where, 'the whole program', why)
    text = f'        {where}: {time.monotonic() - start:.0f} s'
    if why or failed:
        with open(log_path, errors='replace') as log:
            text = '        | '.join([
                f'        its log, the end of {os.path.relpath(log_path, TOP)}:\n',
                *log.readlines()[-30:]]).rstrip() + '\n' + text
    results.say(text)


def run_plain(results, where, command):
    """One command that only has an exit status."""
    if results.only_list:
        return results.run_later(where, command)
    process = subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    last = (process.stdout.strip().splitlines() or [''])[-1]
    if process.returncode:
        results.say(process.stdout)
    results.add('not ok' if process.returncode else 'ok', where, last)
