"""Cells that reach for processes, the network, secrets, files and each other. All of it is
refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyvision_rl.sandbox import CellResult
from tests.sandbox.conftest import Sandbox

LIBC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print('done', result)
"""


def refused(result: CellResult) -> bool:
    """The cell failed for want of permission (or because what it wanted is not there, or
    read-only).
    """
    last = result.text.strip().splitlines()[-1]
    reasons = (
        "PermissionError",
        "FileNotFoundError",
        "OSError: [Errno 38]",
        "OSError: [Errno 30]",
        "OSError: [Errno 18]",
    )
    return result.kind == "error" and last.startswith(reasons)


PROCESSES = {
    "fork": "os.fork()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "subprocess shell": "import subprocess; subprocess.check_output('id', shell=True)",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec own interpreter": "os.execv(sys.executable, ['python', '-c', '0'])",
    "multiprocessing": "import multiprocessing as m; m.Process(target=print).start()",
    "vfork": LIBC + "call(58)",
    "clone": LIBC + "call(56, 17, 0, 0, 0, 0)",
    "clone into namespaces": LIBC + "call(56, 0x10000 | 0x10000000, 0, 0, 0, 0)",
    "clone3": LIBC + "call(435, ctypes.create_string_buffer(88), 88)",
    "clone3 into namespaces": LIBC + "call(435, (ctypes.c_ulong * 11)(0x10000000), 88)",
    "exec of memory": LIBC + "call(322, os.memfd_create('x'), b'', 0, 0, 0x1000)",
    "exec of a scratch file": "open('x', 'w').write('#!/bin/sh'); os.execv('./x', ['x'])",
    "execveat": LIBC + "call(322, -100, b'/bin/true', 0, 0, 0)",
}

NETWORK = {
    "tcp": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix": "import socket; socket.socket(socket.AF_UNIX)",
    "datagram pair": "import socket; socket.socketpair(type=socket.SOCK_DGRAM)",
    "netlink": "import socket; socket.socket(16, socket.SOCK_RAW, 0)",
    "raw": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "abstract": "import socket; socket.socketpair()[0].connect('\\0x')",
    "bind": "import socket; socket.socketpair()[0].bind('\\0pyvision')",
    "listen": "import socket; socket.socketpair()[0].listen()",
    "credentials": "import socket; socket.socketpair()[0].sendmsg([b'x'], [(1, 2, bytes(12))])",
    "send elsewhere": "import socket; a, b = socket.socketpair(); a.sendto(b'x', '/tmp/x')",
    "send descriptors": (
        "import socket; a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [1])"
    ),
}

KERNEL = {
    "ptrace": LIBC + "call(101, 16, os.getppid(), 0, 0)",
    "process_vm_readv": LIBC + "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "process_vm_writev": LIBC + "call(311, os.getppid(), 0, 0, 0, 0, 0)",
    "process_madvise": LIBC + "call(440, 3, 0, 0, 4, 0)",
    "kcmp": LIBC + "call(312, os.getpid(), os.getppid(), 0, 0, 0)",
    "setuid": "os.setuid(0)",
    "setgroups": "os.setgroups([0])",
    "capset": LIBC + "call(126, 0, 0)",
    "unshare": LIBC + "call(272, 0x10000000)",
    "setns": LIBC + "call(308, 0, 0)",
    "mount": LIBC + "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "pivot_root": LIBC + "call(155, b'.', b'.')",
    "chroot": "os.chroot('.')",
    "keyctl": LIBC + "call(250, 0, -3, 1)",
    "add_key": LIBC + "call(248, b'user', b'k', b'v', 1, -3)",
    "io_uring": LIBC + "call(425, 8, ctypes.create_string_buffer(120))",
    "userfaultfd": LIBC + "call(323, 1)",
    "bpf": LIBC + "call(321, 0, 0, 0)",
    "perf_event_open": LIBC + "call(298, 0, 0, -1, -1, 0)",
    "personality": LIBC + "call(135, 0x0040000)",
    "memfd": "os.memfd_create('x')",
    "pidfd_open": "os.pidfd_open(os.getppid())",
    "pidfd_getfd": LIBC + "call(438, 0, 0, 0)",
    "shmget": LIBC + "call(29, 0, 4096, 0o1600)",
    "message queue": LIBC + "call(68, 0, 0o1600)",
    "posix message queue": LIBC + "call(240, b'x', 0o102, 0o600, 0)",
    "semaphores": LIBC + "call(64, 0, 1, 0o1600)",
    "named shared memory": (
        "from multiprocessing import shared_memory\n"
        "shared_memory.SharedMemory('pyvision', create=True, size=4096)"
    ),
    "secret memory": LIBC + "call(447, 0)",
    "locked memory": LIBC + "call(151, 3)",
    "timer signals": LIBC + "call(222, 1, 0, 0)",
    "signalfd": LIBC + "call(289, -1, 0, 8, 0)",
    "vmsplice": LIBC + "call(278, 1, 0, 0, 0)",
    "mount_setattr": LIBC + "call(442, 0, 0, 0, 0, 0)",
    "open_tree": LIBC + "call(428, -100, b'/', 1)",
    "fsopen": LIBC + "call(430, b'tmpfs', 0)",
    "landlock": LIBC + "call(444, 0, 0, 1)",
    "module": LIBC + "call(175, 0, 0, 0)",
    "quota": LIBC + "call(179, 0, 0, 0, 0)",
    "accounting": LIBC + "call(163, 0)",
    "a call newer than the list": LIBC + "call(460, 0, 0, 0)",
    "x32 table": LIBC + "call(0x40000000 + 39)",
    "another filter": LIBC + "call(157, 22, 2, 0, 0, 0)",
    "privileges again": LIBC + "call(157, 38, 0, 0, 0, 0)",
    "ambient capability": LIBC + "call(157, 47, 2, 1, 0, 0)",
    "subreaper": LIBC + "call(157, 36, 1, 0, 0, 0)",
    "memory map": LIBC + "call(157, 35, 1, 0, 0, 0)",
    "seccomp": LIBC + "call(317, 0, 0, 0)",
    "dumpable again": LIBC + "call(157, 4, 1, 0, 0, 0)",
    "no parent-death signal": LIBC + "call(157, 1, 0, 0, 0, 0)",
    "ptrace me": LIBC + "call(157, 0x59616D61, -1, 0, 0, 0)",
    "limit of another": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
    "affinity of another": "os.sched_setaffinity(os.getppid(), [0])",
    "priority": "os.nice(-5)",
    "session": "os.setsid()",
    "process group": "os.setpgid(0, 0)",
    "real-time": "os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))",
    "disk priority": LIBC + "call(251, 1, 0, 0)",
    "lease": "import fcntl; fcntl.fcntl(open('x', 'w'), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "folder notices": "import fcntl; fcntl.fcntl(os.open('.', 0), fcntl.F_NOTIFY, 1)",
    "larger pipe": "import fcntl; fcntl.fcntl(os.pipe()[1], 1031, 2**20)",
    "signal owner": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "terminal input": "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "inotify": LIBC + "call(294, 0)",
    "fanotify": LIBC + "call(300, 0, 0)",
    "open by handle": LIBC + "call(304, -100, 0, 0)",
    "kernel log": LIBC + "call(103, 3, 0, 0)",
    "swap": LIBC + "call(167, b'x', 0)",
    "reboot": LIBC + "call(169, 0, 0, 0, 0)",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "host name": "import socket; socket.sethostname('x')",
}

SIGNALS = {
    "parent": "os.kill(os.getppid(), 0)",
    "everyone": "os.kill(-1, 0)",
    "own group": "os.killpg(0, 0)",
    "first process": "os.kill(1, 0)",
    "a thread of the parent": LIBC + "call(200, os.getppid(), 0)",
    "by descriptor": LIBC + "call(424, 3, 0, 0, 0)",
    "queued": LIBC + "call(129, os.getppid(), 0, ctypes.create_string_buffer(128))",
}

FILES = {
    "password file": "open('/etc/passwd').read()",
    "shadow": "open('/etc/shadow').read()",
    "home": "os.listdir(os.path.expanduser('~root'))",
    "root folder": "os.listdir('/')",
    "temporary folder": "os.listdir('/tmp')",
    "shared memory": "open('/dev/shm/x', 'w')",
    "processes": "os.listdir('/proc')",
    "environment of the parent": "open(f'/proc/{os.getppid()}/environ').read()",
    "own memory": "open('/proc/self/mem', 'r+b')",
    "own descriptors": "os.listdir('/proc/self/fd')",
    "own first environment": "open('/proc/self/environ').read()",
    "memory of the parent": "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "descriptors of the parent": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "maps of the first process": "open('/proc/1/maps').read()",
    "kernel symbols": "open('/proc/kallsyms').read(1)",
    "kernel settings": "open('/proc/sys/kernel/core_pattern').read()",
    "up from scratch": "open('../../../../../../../etc/passwd').read()",
    "link to a secret": "os.symlink('/etc/passwd', 'p'); open('p').read()",
    "link to a folder": "os.symlink('/etc', 'e'); os.listdir('e')",
    "link through a process": "os.symlink('/proc/1/root', 'r'); os.listdir('r')",
    "beside an open folder": ("os.open('etc/passwd', os.O_RDONLY, dir_fd=os.open('/', os.O_PATH))"),
    "hard link to a secret": "os.link('/etc/passwd', 'h')",
    "through the root link": "open('/proc/self/root/etc/passwd').read()",
    "through the cwd link": "open('/proc/self/cwd/../../etc/passwd').read()",
    "connections": "open('/proc/self/net/tcp').read()",
    "mounts": "open('/proc/self/mountinfo').read()",
    "control groups": "open('/proc/self/cgroup').read()",
    "disk": "open('/dev/sda', 'rb').read(1)",
    "kernel memory": "open('/dev/mem', 'rb').read(1)",
    "terminal": "open('/dev/tty', 'w')",
    "new terminal": "os.openpty()",
    "kernel messages": "open('/dev/kmsg', 'w')",
    "fuse": "open('/dev/fuse', 'rb')",
    "kvm": "open('/dev/kvm', 'rb')",
    "shared memory files": "os.listdir('/dev/shm')",
    "move out": "open('a', 'w').close(); os.rename('a', '/tmp/pyvision-moved')",
    "mode of a scratch file": "open('a', 'w').close(); os.chmod('a', 0o4777)",
    "write beside scratch": "open('../other', 'w')",
    "write to /tmp": "open('/tmp/pyvision-escape', 'w')",
    "write to site-packages": "open(np.__file__, 'a')",
    "replace a library": "os.rename(np.__file__, 'numpy.py')",
    "remove a library": "os.remove(np.__file__)",
    "new folder": "os.mkdir('/tmp/pyvision-folder')",
    "mode of a library": "os.chmod(np.__file__, 0o777)",
    "owner": "os.chown('.', 0, 0)",
    "times of a library": "os.utime(np.__file__)",
    "attribute": "os.setxattr('.', 'user.x', b'1')",
    "device node": "os.mknod('null', 0o20666, os.makedev(1, 3))",
}


def parametrize(cases: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("code", cases.values(), ids=cases.keys())


@parametrize(PROCESSES)
def test_no_process_is_made(sandbox: Sandbox, code: str) -> None:
    assert refused(sandbox.run(code))


def test_a_shell_command_does_not_run(sandbox: Sandbox) -> None:
    result = sandbox.run("print(os.system('exit 3') != 3 << 8, os.path.exists('made'))")
    assert result.text == "True False\n"


@parametrize(NETWORK)
def test_no_socket_reaches_out(sandbox: Sandbox, code: str) -> None:
    assert refused(sandbox.run(code))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="call numbers of x86_64")
@parametrize(KERNEL)
def test_the_kernel_refuses(sandbox: Sandbox, code: str) -> None:
    assert refused(sandbox.run(code))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="call numbers of x86_64")
@parametrize(SIGNALS)
def test_no_signal_reaches_another_process(sandbox: Sandbox, code: str) -> None:
    """Signal 0 is enough to see it, and harms nobody should the test fail."""
    assert refused(sandbox.run(code))


@parametrize(FILES)
def test_host_files_are_out_of_reach(sandbox: Sandbox, code: str) -> None:
    assert refused(sandbox.run(code))
    assert not list(Path("/tmp").glob("pyvision-escape"))


def test_a_foreign_system_call_table_kills(sandbox: Sandbox) -> None:
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid of i386); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""
    if os.uname().machine != "x86_64":
        pytest.skip("i386 system calls exist on x86_64 only")
    assert sandbox.run(code).kind == "dead"


def test_a_secret_file_of_the_host_cannot_be_read(sandbox: Sandbox, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text('["42"]')
    answers.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.owner() == Path("/proc/self").owner() and folder != Path("/tmp"):
            folder.chmod(0o755)
    assert refused(sandbox.run(f"open({str(answers)!r}).read()"))
    assert refused(sandbox.run(f"open({str(answers)!r}, 'w')"))
    assert refused(sandbox.run(f"os.truncate({str(answers)!r}, 0)"))
    assert refused(sandbox.run(f"os.open({str(answers)!r}, os.O_RDONLY | os.O_TRUNC)"))
    assert answers.read_text() == '["42"]'


def test_the_package_itself_cannot_be_read(sandbox: Sandbox) -> None:
    import pyvision_rl

    assert refused(sandbox.run(f"open({pyvision_rl.__file__!r}).read()"))


def test_nothing_of_the_host_environment_is_seen(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVISION_SECRET", "hunter2")
    names = sandbox.run("print(sorted(os.environ))").text
    assert "SECRET" not in names
    assert "LANG" in names
    assert "hunter2" not in sandbox.run("print(open('/proc/self/environ').read())").text


def test_another_runtime_is_out_of_reach(sandbox: Sandbox) -> None:
    one, other = sandbox.runtime(), sandbox.runtime()
    where = one.run("open('mine', 'w').write('x'); print(os.getcwd(), os.getpid())").text.split()
    assert refused(other.run(f"open({where[0] + '/mine'!r})"))
    assert refused(other.run(f"os.kill({where[1]}, 0)"))
    assert refused(other.run(f"open('/proc/{where[1]}/mem', 'rb')"))
    assert one.run("print(open('mine').read())").text == "x\n"
    one.close()
    other.close()


def test_only_its_own_descriptors_are_open(sandbox: Sandbox) -> None:
    code = """
found = []
for descriptor in range(1024):
    try:
        os.fstat(descriptor)
        found.append(descriptor)
    except OSError:
        pass
print(len(found))
"""
    assert sandbox.run(code).text == "5\n"  # standard three, the file behind them, the channel


@pytest.mark.parametrize("limit", ["AS", "NOFILE", "FSIZE", "CORE", "MEMLOCK"])
def test_no_limit_can_be_raised(sandbox: Sandbox, limit: str) -> None:
    raised = f"resource.setrlimit(resource.RLIMIT_{limit}, (resource.RLIM_INFINITY,) * 2)"
    result = sandbox.run("import resource; " + raised)
    assert (result.kind, "not allowed to raise maximum limit" in result.text) == ("error", True)


def test_it_runs_without_rights(sandbox: Sandbox) -> None:
    code = "print([line.split()[1] for line in open('/proc/self/status') if 'Cap' in line])"
    result = sandbox.run(code)
    assert result.kind == "error" or set(eval(result.text)[:3]) == {"0000000000000000"}
    assert sandbox.run("print(os.getgroups() in ([], [os.getgid()]))").text == "True\n"
