"""The sandbox, against real nasty programs. Each of them really runs."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from corea.errors import InputError
from corea.grading import confined, sandbox
from corea.grading.sandbox import Limits, check, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")

PATIENT = Limits(timeout_s=20.0)
QUICK = Limits(timeout_s=0.5)
SMALL = Limits(memory_mib=128, file_mib=1, folder_mib=4, open_files=16)


def outcome(program: str, tests: str = "", limits: Limits = PATIENT) -> str | None:
    return run(program, tests, limits=limits)


def test_programs_can_be_shut_in_on_this_machine() -> None:
    check()


def test_a_right_program_passes_and_a_wrong_one_does_not() -> None:
    tests = "assert add(1, 2) == 3\nassert add(2, 2) == 4, 'two and two'"
    assert outcome("def add(a, b):\n    return a + b", tests) is None
    assert outcome("def add(a, b):\n    return a * b", tests) == "AssertionError: assert add(1, 2) == 3"
    assert outcome("def add(a, b):\n    return 3", tests) == "AssertionError: two and two"
    assert outcome("def add(a, b:", tests) == "SyntaxError: '(' was never closed (<program>, line 1)"
    assert outcome("", tests) == "NameError: name 'add' is not defined"


def done(attempts: tuple[str, ...], prelude: str) -> list[str]:
    """Which of them were not refused. All in one process: each start of Python costs a tenth of a second."""
    program = f"""
{prelude}
done = []
for attempt in {attempts!r}:
    try:
        exec(attempt)
        done.append(attempt)
    except Exception as exc:
        # ENOSYS is the answer to system calls that are younger than the filter.
        if not isinstance(exc, (PermissionError, ValueError)) and getattr(exc, "errno", 0) != 38:
            done.append(f"{{attempt}}: {{type(exc).__name__}}: {{exc}}")
if done: raise RuntimeError(done)
"""
    why = outcome(program)
    return [] if why is None else [why]


def test_ordinary_programs_work_as_they_do_outside() -> None:
    assert outcome(ORDINARY) is None


ORDINARY = """
from __future__ import annotations
import asyncio, collections, csv, dataclasses, datetime, decimal, enum, fractions, functools, hashlib, heapq, io, json
import logging, math, os, random, re, sqlite3, statistics, string, tempfile, time, typing, unittest, zoneinfo

@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: list[int] = dataclasses.field(default_factory=list)

async def later():
    await asyncio.sleep(0.001)
    return Point(1)

assert asyncio.run(later()) == Point(1)
assert typing.get_type_hints(Point)["x"] is int
assert __name__ != "__main__"
with open("notes.csv", "w") as file:
    csv.writer(file).writerow(["a", "ü"])
assert open("notes.csv", encoding="utf-8").read().strip() == "a,ü"
os.rename("notes.csv", "other.csv")
assert os.listdir() == ["other.csv"]
os.remove("other.csv")
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x")
database = sqlite3.connect(":memory:")
assert database.execute("select 1 + 1").fetchone() == (2,)
zoneinfo.ZoneInfo("UTC"), time.localtime(), hashlib.sha256(b"x"), random.random(), datetime.datetime.now()
print("nobody reads this")
"""


def test_the_order_of_a_set_is_the_same_every_time() -> None:
    program = "raise RuntimeError(list(set('abcdefgh')))"
    assert outcome(program) == outcome(program)


def test_an_infinite_loop_is_stopped() -> None:
    assert outcome("while True: pass", limits=QUICK) == "timed out after 0.5 s"


def test_a_program_that_ignores_every_signal_is_stopped() -> None:
    program = """
import signal, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True: time.sleep(60)
"""
    assert outcome(program, limits=QUICK) == "timed out after 0.5 s"


def test_time_in_the_tests_counts_too() -> None:
    assert outcome("def f():\n    while True: pass", "f()", limits=QUICK) == "timed out after 0.5 s"


#: Every way to a second process or thread.
CHILDREN = {
    "fork": "os.fork()",
    "forkpty": "os.forkpty()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "os.execv('/bin/true', ['true'])",
    "subprocess": "subprocess.run(['/bin/true'])",
    "system": "assert os.system('true') == 0, 'no shell'",
    "multiprocessing": "multiprocessing.get_context('fork').Process(target=print).start()",
    "thread": "threading.Thread(target=print).start()",
    "clone": "assert ctypes.CDLL(None).syscall(CLONE, 17, 0, 0, 0, 0) >= 0, 'no'",
    "vfork": "assert ctypes.CDLL(None).vfork() >= 0, 'no'",
}
MODULES = {
    "subprocess": "subprocess",
    "multiprocessing": "multiprocessing",
    "thread": "threading",
    "clone": "ctypes",
    "vfork": "ctypes",
}


@pytest.mark.parametrize("way", CHILDREN)
def test_no_process_and_no_thread_can_be_started(way: str) -> None:
    assert_no_children(way)


def assert_no_children(way: str) -> None:
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    program = f"import {MODULES.get(way, 'os')}, os\n{CHILDREN[way]}"
    # Should it get one after all, neither goes on: one try, nothing more.
    why = outcome(program.replace("CLONE", str(clone)) + "\nos._exit(0)")
    assert why is not None
    assert why.startswith(("PermissionError", "RuntimeError: can't start new thread", "AssertionError: ")), why


def test_a_fork_bomb_does_not_go_off() -> None:
    assert_no_children("fork")  # Proven with one try before it is let loose.
    bomb = "import os\nfor _ in range(10_000):\n    try: os.fork()\n    except PermissionError: pass"
    assert outcome(bomb) is None


def test_nothing_outlives_the_program() -> None:
    program = "import os\ntry: os.fork()\nexcept OSError: pass\nraise RuntimeError(os.getpid(), os.getsid(0))"
    why = outcome(program)
    assert why is not None
    pid, session = json.loads(why.removeprefix("RuntimeError: ").replace("(", "[").replace(")", "]"))
    assert pid == session
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_memory_hog_is_stopped() -> None:
    assert outcome("x = bytearray(1 << 30)", limits=SMALL) == "used more than 128 MiB"
    assert outcome("x = []\nwhile True: x.append(bytearray(1 << 20))", limits=SMALL) == "used more than 128 MiB"
    why = outcome("import mmap\nx = [mmap.mmap(-1, 1 << 20) for _ in range(1000)]", limits=SMALL)
    assert why == "OSError: [Errno 12] Cannot allocate memory"


def test_recursion_without_end_is_an_error_like_any_other() -> None:
    assert outcome("def f(n): return f(n + 1)\nf(0)") == "RecursionError: maximum recursion depth exceeded"
    program = "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"
    # How Python itself takes it differs: out of memory, a crash, an error of its own.
    assert outcome(program, limits=Limits(timeout_s=20.0, memory_mib=64)) is not None


def test_a_large_file_cannot_be_written() -> None:
    program = "with open('big', 'wb') as file:\n    for _ in range(1024): file.write(bytes(1 << 20))"
    assert outcome(program, limits=SMALL) == "OSError: [Errno 27] File too large"


def test_many_files_cannot_be_written() -> None:
    many = "for name in range(10**6):\n    with open(str(name), 'wb') as file: file.write(bytes(size))"
    assert outcome(many.replace("size", "1 << 20"), limits=SMALL) == "wrote more than 4 MiB"
    assert outcome(many.replace("size", "0"), limits=SMALL) == "wrote more than 4 MiB"
    why = outcome("files = [open(str(name), 'w') for name in range(100)]", limits=SMALL)
    assert why is not None
    assert why.startswith("OSError: [Errno 24] Too many open files")


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_no_socket_can_be_made(family: str) -> None:
    why = outcome(f"import socket\nsocket.socket(socket.{family})")
    assert why == "PermissionError: [Errno 1] Operation not permitted"


def test_nothing_reaches_a_listener_on_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5).sendall(b'secret')"
        assert outcome(connect) == "PermissionError: [Errno 1] Operation not permitted"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_environment_and_the_parent_are_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "tweet")
    assert outcome("import os\nassert 'CANARY' not in os.environ, os.environ") is None
    for path in (f"/proc/{os.getpid()}/environ", "/proc/self/environ", "/etc/passwd", str(Path.home()), __file__):
        why = outcome(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()")
        assert why == f"PermissionError: [Errno 13] Permission denied: '{path}'"


def test_nothing_outside_its_folder_can_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    before = file.stat()
    attempts = (
        "open(path, 'w')",
        "open(path, 'a')",
        "os.open(path, os.O_RDONLY | os.O_TRUNC)",
        "os.truncate(path, 0)",
        "os.remove(path)",
        "os.rename(path, path + '2')",
        "os.replace(path, 'here')",
        "os.link(path, 'here')",
        "os.chmod(path, 0)",
        "os.chown(path, 1, 1)",
        "os.utime(path, (0, 0))",
        "os.setxattr(path, 'user.x', b'y')",
        "os.rmdir(os.path.dirname(path))",
        "os.mkdir(path + '2')",
        "open(path + '2', 'w')",
        "os.symlink(path, 'here'); open('here', 'w')",
    )
    assert done(attempts, f"import os\npath = {str(file)!r}") == []
    assert file.read_text() == "precious"
    assert (file.stat().st_mode, file.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root owns what it could empty")
def test_a_readable_file_cannot_be_emptied_by_opening_it() -> None:
    program = "import os\nos.open(os.__file__, os.O_RDONLY | os.O_TRUNC)"
    why = outcome(program)
    assert why is not None
    assert why.startswith("PermissionError: [Errno 1]")
    assert Path(os.__file__).stat().st_size


def test_its_folder_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert outcome("import os\nopen('a', 'w').write('x')\nfor name in os.listdir(): os.remove(name)") is None
    assert outcome("open('left behind', 'w').write('x'); open('\\udcff\\n', 'w')\nwhile True: pass", limits=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_can_be_signalled_traced_or_limited() -> None:
    attempts = (
        f"os.kill({os.getpid()}, 0)",
        f"os.killpg({os.getpgid(0)}, 0)",
        f"os.pidfd_open({os.getpid()})",
        f"resource.prlimit({os.getpid()}, resource.RLIMIT_CORE)",
        f"os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19)",
        f"os.sched_setaffinity({os.getpid()}, [0])",
        # The kernel would send SIGKILL to the owner of a descriptor for us.
        f"fcntl.fcntl(1, fcntl.F_SETOWN, {os.getpid()})",
        "fcntl.fcntl(1, fcntl.F_SETSIG, 9)",
        "os.setsid()",
        "os.setuid(1)",
        "os.memfd_create('x')",
        "refused(libc.ptrace(0, 0, 0, 0))",
        "refused(libc.prctl(1, 0, 0, 0, 0))",
        "refused(libc.unshare(0x10000000))",
        "refused(libc.mount(0, b'/', 0, 4096, 0))",
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    )
    prelude = """
import ctypes, fcntl, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def refused(result):
    if result < 0: raise PermissionError
"""
    assert done(attempts, prelude) == []


def test_endless_output_goes_nowhere() -> None:
    assert outcome("while True: print('x' * 10_000)", limits=QUICK) == "timed out after 0.5 s"
    flood = """
import os
for number in range(3, 32):
    try:
        while True: os.write(number, b'{"why": null}' * 1000)
    except OSError: pass
"""
    assert outcome(flood) == "ended before the tests were done"


@pytest.mark.parametrize(
    "program,why",
    [
        ("import sys; sys.exit(0)", "exited before the tests were done"),
        ("exit()", "NameError: name 'exit' is not defined"),
        ("import os; os._exit(0)", "ended before the tests were done"),
        ("import os\ndef f(): os._exit(0)", "ended before the tests were done"),
        ("def f(): raise SystemExit(0)", "exited before the tests were done"),
        ("import os; os.abort()", "crashed before the tests were done (SIGSEGV)"),
        ("import ctypes; ctypes.string_at(0)", "crashed before the tests were done (SIGSEGV)"),
        ("print('passed'); print('{\"why\": null}'); raise KeyboardInterrupt", "KeyboardInterrupt"),
        ('import os; os.write(3, b\'{"word": "", "why": null}\\n\'); os._exit(0)', "ended before the tests were done"),
    ],
)
def test_leaving_before_the_tests_are_done_is_not_passing(program: str, why: str) -> None:
    assert outcome(program, "f()\nassert False") == why


@pytest.mark.parametrize(
    "program",
    [
        "import builtins\nbuiltins.AssertionError = type('Never', (Exception,), {})",
        "import builtins\nbuiltins.all = lambda values: True\nbuiltins.exec = builtins.compile = print",
        "__builtins__ = {'all': lambda values: True}",
        "import json\njson.dumps = lambda message: '{}'",
        "import os\nos.write = lambda *_: None",
        "import sys\nsys.excepthook = lambda *_: None\nsys.settrace(None)",
        "import sys\nsys.modules['__main__']._why = lambda job: None",
    ],
)
def test_replacing_the_tools_of_the_tests_is_not_passing(program: str) -> None:
    assert outcome(program, "assert all([False])") is not None


def test_what_is_said_of_a_failure_is_one_short_line() -> None:
    why = outcome("raise ValueError('a\\nb' * 1000)")
    assert why is not None
    assert len(why) <= 300
    assert "\n" not in why
    assert outcome("class E(Exception):\n    def __str__(self): raise self\nraise E") == "E"


def test_the_tests_see_the_programs_helpers() -> None:
    assert outcome("def helper(): return 1\ndef f(): return helper()", "assert f() == helper()") is None


def test_where_programs_cannot_be_shut_in_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(sandbox, "_SCRIPT", tmp_path / "missing.py")
    with pytest.raises(InputError, match="programs cannot be shut in here: its process did not start; run them on"):
        outcome(f"open({str(ran)!r}, 'w')")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="it needs Linux, and this is darwin"):
        outcome("pass")
    assert not ran.exists()


def test_a_kernel_without_landlock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def syscall(self, *_: object) -> int:
            return -1

    with pytest.raises(confined._Refused, match="the kernel has no Landlock"):
        confined._restrict_files(Libc(), str(tmp_path))  # type: ignore[arg-type]
    script = tmp_path / "refusing.py"
    script.write_text('print(\'{"refused": "the kernel has no Landlock"}\')')
    monkeypatch.setattr(sandbox, "_SCRIPT", script)
    with pytest.raises(InputError, match="shut in here: the kernel has no Landlock; run them on Linux"):
        check()


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(confined._Refused, match="x86_64 and aarch64, and this machine is riscv64"):
        confined._filter("riscv64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_listed_calls_through_and_no_others(machine: str) -> None:
    column, arch = confined._MACHINES[machine]
    code = confined._filter(machine)
    assert len(code) < 4096
    free = {numbers[column] for numbers in confined._ALLOWED.values()} - {None}
    bound = {numbers[column]: conditions for numbers, conditions in confined._CONDITIONAL.values()}
    for number in range(600):
        verdict = judged(code, number, arch, (0xFFFF,) * 6)
        assert (verdict == confined._ALLOW) == (number in free), number
        assert judged(code, number, arch ^ 1, (0,) * 6) == confined._KILL
        assert judged(code, number | 0x40000000, arch, (0,) * 6) != confined._ALLOW  # The x32 calls.
        if number in bound:
            arguments = [0] * 6
            for argument, _, values in bound[number]:
                arguments[argument] = values[-1]
            assert judged(code, number, arch, tuple(arguments)) == confined._ALLOW


def judged(code: list[tuple[int, int, int, int]], number: int, arch: int, arguments: tuple[int, ...]) -> int:
    """What the kernel's interpreter of classic BPF would answer."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments)
    accumulator = at = 0
    while True:
        operation, true, false, constant = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, constant)[0]
            case 0x54:
                accumulator &= constant
            case 0x15:
                at += true if accumulator == constant else false
            case 0x35:
                at += true if accumulator >= constant else false
            case 0x06:
                return constant
