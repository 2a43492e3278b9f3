"""The other side of the sandbox: the script that shuts itself in, then runs a program and its tests. Linux only.

Started by :mod:`corea.grading.sandbox` as ``python -S confined.py`` with a job on standard input; imports nothing of
corea's. What holds it, for root as for anybody, without special rights, in ordinary containers too:

- seccomp: only the system calls in the list below. There is none to make a socket, process or thread, to signal or
  trace another process, or to change a file's owner, mode or times.
- Landlock: files can be read only where Python lives, and written only in the job's folder, which holds no folders.
- Limits on processor time, address space, size and number of files; no capabilities, none to be gained.

Success is told with a word that the program was not given, after the tests ran. A program shares the interpreter with
that word and with its tests, so one that is written to cheat can: by looking through the interpreter's frames, or by
returning things that claim to be equal to everything. This holds malice in; it does not make it honest. Where only
values are asked for, there is nothing to find: what they should be stays outside.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from types import ModuleType, TracebackType
from typing import Any

#: System calls that are allowed as they are; numbers from the kernel's headers (x86-64, arm64), None where there is no
#: such call. Calls that act on another process, on paths without Landlock's leave, or on the network are left out.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "fadvise64": (221, 223),
    "sendfile": (40, 71),
    "umask": (95, 166),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "shutdown": (48, 210),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "msync": (26, 227),
    "brk": (12, 214),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "pause": (34, None),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "restart_syscall": (219, 128),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getcpu": (309, 168),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "wait4": (61, 260),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

_OPENING = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC)
_ANY = 0xFFFFFFFF
#: System calls allowed for some arguments only: numbers as above, then (argument, mask, values after masking), all of
#: which must hold.
_CONDITIONAL: dict[str, tuple[tuple[int | None, int | None], tuple[tuple[int, int, tuple[int, ...]], ...]]] = {
    # Opening for reading with O_TRUNC empties the file, which Landlock notices only from Linux 6.2 on.
    "open": ((2, None), ((1, os.O_ACCMODE | os.O_TRUNC, _OPENING),)),
    "openat": ((257, 56), ((2, os.O_ACCMODE | os.O_TRUNC, _OPENING),)),
    # Copying, flags and locks; F_SETOWN and F_SETSIG would have the kernel signal another process.
    "fcntl": ((72, 25), ((1, _ANY, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),)),
    # FIONBIO, FIONCLEX, FIOCLEX.
    "ioctl": ((16, 29), ((1, _ANY, (0x5421, 0x5450, 0x5451)),)),
    # AF_UNIX streams, which asyncio wakes itself with. A datagram socket could be made to write to others.
    "socketpair": ((53, 199), ((0, _ANY, (1,)), (1, 0xF, (1,)))),
    # Of this process only.
    "prlimit64": ((302, 261), ((0, _ANY, (0,)),)),
}
#: Machine → its column above and its AUDIT_ARCH.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
#: First number of the calls that are younger than the lists: the C library has other ways where they do not exist.
_YOUNG = 425

# Landlock's rights on files, <linux/landlock.h>.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
#: How many rights each version of Landlock knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
#: Shared libraries and time zones, beside Python's own folders.
_READABLE = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
)
_MAX_WHY_CHARS = 300
#: A longer value is not told: all of them must fit into one report.
_MAX_VALUE_CHARS = 1000


class _Refused(Exception):
    """The sandbox cannot be had here."""


def _main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    job: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    channel = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    try:
        _shut_in(libc, job)
    except (_Refused, OSError, ValueError) as exc:
        _tell(channel, {"refused": str(exc)})
        return
    _tell(channel, {"ready": True})
    why = _why(job) if "tests" in job else _asked(job, channel)
    _tell(channel, {"word": job["word"], "why": why})
    os._exit(0)


def _tell(channel: int, message: dict[str, Any], dumps: Any = json.dumps, write: Any = os.write) -> None:
    # Bound early: a program may put its own functions in their place.
    write(channel, dumps(message).encode() + b"\n")


def _why(job: dict[str, Any]) -> str | None:
    """Run the program, then its tests. None when all passed, otherwise what went wrong."""
    spare = bytearray(8 << 20)
    originals = dict(vars(builtins))
    # Not called __main__, so that what a program does when it is started as a script is not done here.
    module = ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        tests = compile(job["tests"], "<tests>", "exec")
        exec(compile(job["program"], "<program>", "exec"), vars(module))  # noqa: S102 - what all this is for
        vars(builtins).update(originals)
        vars(module)["__builtins__"] = builtins
        exec(tests, vars(module))  # noqa: S102
    except SystemExit:
        return "exited before the tests were done"
    except BaseException as exc:  # noqa: BLE001 - whatever a program may raise
        # Room to say so, when the program has used up all there is.
        del spare
        vars(builtins).update(originals)
        return _told(exc, job["tests"], job["memory_mib"])
    return None


def _asked(job: dict[str, Any], channel: int, tell: Any = _tell) -> str | None:
    """Run the program, then tell what each expression gives, one by one. None when all were asked.

    What the values should be is not known here, so a program can look where it likes.
    """
    originals = dict(vars(builtins))
    module = ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        exec(compile(job["program"], "<program>", "exec"), vars(module))  # noqa: S102
        for expression in job["expressions"]:
            vars(builtins).update(originals)
            vars(module)["__builtins__"] = builtins
            tell(channel, {"word": job["word"], "value": _value(expression, vars(module))})
    except BaseException as exc:  # noqa: BLE001
        vars(builtins).update(originals)
        return _told(exc, "", job["memory_mib"])
    return None


def _value(expression: str, names: dict[str, Any]) -> str | None:
    """A plain value as Python writes it; None where there is none, or one too long to tell."""
    try:
        written = repr(_plain(eval(compile(expression, "<tests>", "eval"), names)))  # noqa: S307
    except BaseException:  # noqa: BLE001
        return None
    return written if len(written) <= _MAX_VALUE_CHARS else None


def _plain(value: Any) -> Any:
    """Named tuples, counters, enumerations and the like as what they are equal to."""
    if value is None or isinstance(value, bool):
        return value
    kind: Any
    for kind in (int, float, complex, str, bytes):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_plain(one) for one in value)
    return set(value) if isinstance(value, frozenset | set) else value


def _told(exc: BaseException, tests: str, memory_mib: int) -> str:
    if isinstance(exc, MemoryError):
        return f"used more than {memory_mib} MiB"
    try:
        said = str(exc)
    except BaseException:  # noqa: BLE001 - the program's own exception, with a __str__ of its own
        said = ""
    said = said or _test_line(exc.__traceback__, tests.splitlines())
    return " ".join(f"{type(exc).__name__}: {said}"[:_MAX_WHY_CHARS].split()).rstrip(":")


def _test_line(at: TracebackType | None, lines: list[str]) -> str:
    """The line of the tests that was being run."""
    found = ""
    while at is not None:
        if at.tb_frame.f_code.co_filename == "<tests>" and 0 < at.tb_lineno <= len(lines):
            found = lines[at.tb_lineno - 1].strip()
        at = at.tb_next
    return found


def _shut_in(libc: ctypes.CDLL, job: dict[str, Any]) -> None:
    _check(libc.prctl(1, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != job["parent"]:
        raise _Refused("whoever started it is gone")
    mib = 1 << 20
    for limit, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, job["cpu_s"]),
        (resource.RLIMIT_AS, job["memory_mib"] * mib),
        (resource.RLIMIT_FSIZE, job["file_mib"] * mib),
        (resource.RLIMIT_NOFILE, job["open_files"]),
    ):
        most = resource.getrlimit(limit)[1]
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(limit, (value, value))
    _check(libc.prctl(38, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _restrict_files(libc, job["folder"])
    _drop_capabilities(libc)
    _restrict_calls(libc)


def _restrict_files(libc: ctypes.CDLL, folder: str) -> None:
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        raise _Refused("the kernel has no Landlock, or it is switched off (Linux 5.13 or newer; lsm=landlock,…)")
    handled = (1 << _RIGHTS.get(version, _RIGHTS[max(_RIGHTS)])) - 1
    attributes = struct.pack("Q", handled)
    ruleset = _check(libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset")
    own = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
    rights = dict.fromkeys((*sys.path, f"{sys.base_prefix}/lib", *_READABLE), _READ_FILE | _READ_DIR)
    for path, wanted in {**rights, os.devnull: _READ_FILE | _WRITE_FILE, folder: own}.items():
        if not path or not os.path.exists(path):  # noqa: PTH110 - no pathlib in here
            continue
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = wanted & handled if os.path.isdir(path) else wanted & handled & ~_READ_DIR  # noqa: PTH112
        _check(libc.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, at), 0), f"landlock_add_rule({path})")
        os.close(at)
    _check(libc.syscall(446, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    # Version 3 of the header, this process; effective, permitted and inheritable sets of 64 bits, all empty.
    _check(libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)), "capset")


def _restrict_calls(libc: ctypes.CDLL) -> None:
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in _filter(platform.machine()))
    code = ctypes.create_string_buffer(instructions, len(instructions))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(instructions) // 8, ctypes.addressof(code))
    _check(libc.prctl(22, 2, ctypes.byref(program), 0, 0), "prctl(PR_SET_SECCOMP)")


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """The seccomp filter in classic BPF: (code, jump if true, jump if false, constant)."""
    if machine not in _MACHINES:
        raise _Refused(f"it is made for {' and '.join(_MACHINES)}, and this machine is {machine}")
    column, arch = _MACHINES[machine]

    def load(offset: int) -> tuple[int, int, int, int]:
        return (0x20, 0, 0, offset)

    def equal(value: int, then: int, otherwise: int) -> tuple[int, int, int, int]:
        return (0x15, then, otherwise, value)

    def give(verdict: int) -> tuple[int, int, int, int]:
        return (0x06, 0, 0, verdict)

    code = [load(4), equal(arch, 1, 0), give(_KILL), load(0)]
    for number in (numbers[column] for numbers in _ALLOWED.values()):
        if number is not None:
            code += [equal(number, 0, 1), give(_ALLOW)]
    for numbers, conditions in _CONDITIONAL.values():
        if (number := numbers[column]) is None:
            continue
        checks = []
        for argument, mask, values in conditions:
            # The low half of the argument: the kernel takes all of these as 32 bits.
            checks += [load(16 + 8 * argument), (0x54, 0, 0, mask)]
            checks += [equal(value, len(values) - at, 0) for at, value in enumerate(values)]
            checks.append(give(_EPERM))
        code += [equal(number, 0, len(checks) + 1), *checks, give(_ALLOW)]
    return [*code, (0x35, 0, 1, _YOUNG), give(_ENOSYS), give(_EPERM)]


def _check(result: int, call: str) -> int:
    if result < 0:
        raise _Refused(f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    _main()
