"""The process in which a student's code runs; it knows nothing of tests, points or other students.

It imports what the assignment does, which is slow, then waits: for each question it forks, and the fork runs the code
that it is sent and calls what the grader asks for. `wire` is how they speak. What the code prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import linecache
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

import wire

MESSAGE = 500  # characters of an error
MEMORY, FILE, FILES, PROCESSES = 2 * 1024**3, 16 * 1024**2, 64, 32  # limits of a question; memory beyond the imports'


def receive(stream: BinaryIO) -> Any:
    """The next message; ends the process where there is none."""
    header = stream.read(wire.HEADER.size)
    if len(header) < wire.HEADER.size:
        os._exit(0)
    return wire.decode(header + stream.read(wire.HEADER.unpack(header)[0]))


def send(stream: BinaryIO, value: Any) -> None:
    """Write a message; what cannot be sent is said."""
    try:
        message = wire.encode(value)
    except wire.Unsendable as error:
        message = wire.encode({"error": "Unsendable", "message": str(error)})
    stream.write(message)
    stream.flush()


def virtual_memory() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def limit(seconds: int) -> None:
    """Let this process and what it starts have no more than a question may."""
    with contextlib.suppress(OSError):
        space = virtual_memory() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # SIGXCPU first, which says why
    for kind, value in (
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if os.environ.get("COURSE_OWN_USER"):  # else it would count what the teacher runs
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))


def end_with_parent() -> None:
    """Have the system end this process when the one that waits for questions ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux


def describe(error: BaseException) -> dict[str, str]:
    """An error as the grader is told of it, with the line of the student's code where it was raised."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<answers>":
            line = linecache.getline("<answers>", trace.tb_lineno).strip()
        trace = trace.tb_next
    with contextlib.suppress(Exception):
        text = str(error)
        return {"error": type(error).__name__, "message": text[:MESSAGE], "line": line[:MESSAGE]}
    return {"error": type(error).__name__, "message": "", "line": line[:MESSAGE]}


def answer(question: dict[str, Any], source: BinaryIO, target: BinaryIO) -> None:
    """Run a question's code, then call what is asked for until the grader has done."""
    import torch

    limit(question["seconds"])
    torch.manual_seed(0)
    code = question["code"]
    linecache.cache["<answers>"] = (len(code), None, code.splitlines(keepends=True), "<answers>")
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<answers>", "exec"), names)
        send(target, {"callable": callable(names.get(question["name"])), "there": question["name"] in names})
    except BaseException as error:
        send(target, describe(error))
        return
    while True:
        asked = receive(source)
        if asked.get("end"):
            return
        try:
            value = names[question["name"]]
            send(target, {"value": value(*asked["args"], **asked["kwargs"]) if callable(value) else value})
        except BaseException as error:
            send(target, describe(error))


def main() -> None:
    """Wait for questions."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for module in receive(source)["imports"]:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    send(target, {"ready": True})
    while True:
        question = receive(source)
        fork = os.fork()
        if fork == 0:
            try:
                os.setpgid(0, 0)
                end_with_parent()
                answer(question, source, target)
            finally:
                os._exit(0)
        _, status = os.waitpid(fork, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Whatever the code has started ends with it: all there is where the system shows it only its own.
            os.kill(-1, signal.SIGKILL) if os.environ.get("COURSE_OWN_PROCESSES") else os.killpg(fork, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        send(target, {"ended": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0})


if __name__ == "__main__":
    sys.exit(main())
