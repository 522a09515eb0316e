"""`pyvision-rl sandbox trace`: run trusted code outside the sandbox and list the system calls that
it would be refused.

The filter of a runtime is installed, but asks this process instead of refusing, which notes the
call and lets it pass. For finding out what a new library needs; never for model code.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import runpy
import select
import signal
import socket
import struct
import sys
import traceback
from collections import Counter
from pathlib import Path

from pyvision_rl.errors import InputError, SandboxError
from pyvision_rl.sandbox.confine import seccomp
from pyvision_rl.sandbox.confine.libc import PR_SET_NO_NEW_PRIVS, call_libc
from pyvision_rl.sandbox.confine.syscall_names import name_of

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SYS_PIDFD_GETFD = 438
SET_MODE_FILTER, NEW_LISTENER = 1, 8
NOTIF_RECV, NOTIF_SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
NOTIF_BYTES = 80


def trace(script: str) -> str:
    """A table of the calls that the Python file `script` would be refused, and how often."""
    if not Path(script).is_file():
        raise InputError(f"script {script}: no such file")
    if not seccomp.has_seccomp():
        raise SandboxError("trace needs seccomp, which this kernel or machine does not offer")
    counts, status = run_traced(script)
    lines = [f"{name_of(number):24}{count:>8}" for number, count in counts.most_common()]
    end = "ended well" if status == 0 else f"ended with wait status {status}"
    return "\n".join([f"{script} {end}", *(lines or ["nothing would be refused"])])


def run_traced(script: str) -> tuple[Counter[int], int]:
    """Counts by call number, and the wait status of the script's process."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        run_script(script, theirs)
    theirs.close()
    with ours:
        sent = ours.recv(4)
        if len(sent) < 4:
            raise SandboxError("the filter could not be installed")
        process = os.pidfd_open(pid)
        listener = call_libc("syscall", SYS_PIDFD_GETFD, process, struct.unpack("<I", sent)[0], 0)
        ours.send(b"!")  # a script that nothing is refused to could end before this
    try:
        counts = answer_until_exit(listener, process)
    finally:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        os.close(listener)
        os.close(process)
    return counts, status


def run_script(script: str, tracer: socket.socket) -> None:
    """In the child: filter, say which descriptor listens, wait until it was taken, run, exit."""
    status = 1
    try:
        call_libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        refusal = struct.pack("<HBBI", *seccomp.refuse())
        asking = struct.pack("<HBBI", seccomp.RETURN, 0, 0, seccomp.USER_NOTIFY)
        program = seccomp.build_filter().replace(refusal, asking)
        view, address = seccomp.own_program(program, os.getpid())
        number = SYS_SECCOMP[os.uname().machine]
        listener = call_libc("syscall", number, SET_MODE_FILTER, NEW_LISTENER, address)
        del view
        tracer.send(struct.pack("<I", listener))
        tracer.recv(1)
        tracer.close()
        runpy.run_path(script, run_name="__main__")
        status = 0
    except BaseException:  # noqa: BLE001 - the script may raise anything; its process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def answer_until_exit(listener: int, process: int) -> Counter[int]:
    """Let every call pass and count it, until the process is gone."""
    counts: Counter[int] = Counter()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(process, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if process in ready:
            return counts
        notice = ctypes.create_string_buffer(NOTIF_BYTES)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, notice)
            identity, number = struct.unpack_from("<Q8xi", notice)
            counts[number] += 1
            answer = bytearray(struct.pack("<QqiI", identity, 0, 0, CONTINUE))
            fcntl.ioctl(listener, NOTIF_SEND, answer)
        except OSError:  # the calling thread has gone meanwhile
            continue
