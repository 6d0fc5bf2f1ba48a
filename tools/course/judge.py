"""Grades a submission: the student's process answers, this one asks, compares and counts.

The hidden tests of a master run here. What they call is a stand-in that sends the arguments to the student's process
and hands back what comes; so no code of a student ever runs beside a test, and what it patches it patches for itself.
"""

from __future__ import annotations

import ast
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.checks import Wrong
from helpers.checks.course import graded
from tools.course import copied, sandbox, wire
from tools.course.answers import Code, Unreadable, code_of, needed, program, read_cells, source_of
from tools.course.master import WRITTEN_STUB, Master, Task, Written, settings

SECONDS = 30  # of processor time for a question
PATIENCE = 6  # times as long by the clock, for what sleeps and for busy machines
STARTING = 180.0  # seconds by the clock until Python's imports are done
CLOSING = 10.0  # seconds by the clock until a question has ended
WORDS = 20_000  # characters of a written answer that are kept


class Gone(Exception):
    """The student's process has ended, or speaks nonsense."""


class Child:
    """A student's process in its sandbox; it is started anew where it has come to an end."""

    def __init__(self, kind: str, number: int, imports: Sequence[str] = ()) -> None:
        self.kind, self.number, self.imports = kind, number, list(imports)
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the process, unless it runs; a second time where the system has ended the first.

        Raises:
            Gone: it does not start.
        """
        if self.process is not None and self.process.poll() is not None:
            self.stop()
        for left in (1, 0):
            if self.process is not None:
                return
            try:
                self.folder = tempfile.TemporaryDirectory(prefix="course-")
                self.process = sandbox.start(self.kind, self.folder.name, self.number)
                self.send({"imports": self.imports})
                self.receive(STARTING)
            except (Gone, TimeoutError) as error:
                self.stop()
                if not left:
                    raise Gone("its process did not start") from error

    def stop(self) -> None:
        """End the process and all it has started."""
        if self.process is not None:
            sandbox.stop(self.process)
            self.process = None
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    def send(self, value: Any) -> None:
        """Send a message."""
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(wire.encode(value))
            self.process.stdin.flush()
        except OSError as error:
            raise Gone("its process has ended") from error

    def receive(self, seconds: float) -> Any:
        """The next message.

        Raises:
            TimeoutError: it does not come in time.
            Gone: none will come, or what comes is none.
        """
        end = time.monotonic() + seconds
        header = self._read(wire.HEADER.size, end)
        length = wire.HEADER.unpack(header)[0]
        if length > wire.LARGEST:
            raise Gone("its process spoke out of turn")
        try:
            return wire.decode(header + self._read(length, end))
        except ValueError as error:
            raise Gone("its process spoke out of turn") from error

    def _read(self, length: int, end: float) -> bytes:
        assert self.process is not None
        assert self.process.stdout is not None
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while len(data) < length:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError
                chunk = self.process.stdout.raw.read(length - len(data))  # type: ignore[attr-defined]
                if not chunk:
                    raise Gone("its process has ended")
                data += chunk
        return bytes(data)


class Answer:
    """A student's function or value in the student's process; to the tests it is a function."""

    def __init__(self, child: Child, code: str, name: str, seconds: int) -> None:
        self.child, self.name, self.seconds = child, name, seconds
        self.ended: str | None = None
        child.start()
        self.end = time.monotonic() + seconds * PATIENCE
        child.send({"code": code, "name": name, "seconds": seconds})
        message = self._next()
        if "error" in message:
            self.close()  # the process of this question has ended
        self._raise_error(message)
        self.is_function = message.get("callable", False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the student's function makes of the arguments.

        Raises:
            Wrong: it raises, answers with what no answer is, or does not answer in time.
            NotImplementedError: it says that it is still to be written.
        """
        if self.ended:
            raise Wrong(self.ended)
        if not self.is_function and (args or kwargs):
            raise Wrong(f"`{self.name}` must be a function")
        self.child.send({"args": args, "kwargs": kwargs})
        message = self._next()
        self._raise_error(message)
        return message["value"]

    def _next(self) -> dict[str, Any]:
        try:
            message = self.child.receive(self.end - time.monotonic())
            if not isinstance(message, dict) or not message:
                raise Gone("its process spoke out of turn")
        except TimeoutError:
            self._give_up(f"no answer within {self.seconds * PATIENCE} seconds")
        except Gone as gone:
            self._give_up(str(gone))
        if "ended" in message:
            limits = {
                signal.SIGXCPU: f"more than {self.seconds} seconds of processor time",
                signal.SIGKILL: "too much memory, or processor time that it would not give back",
            }
            number = message["ended"]
            self.ended = limits.get(
                number, f"its process ended (signal {number})" if number else "its process ended itself"
            )
            raise Wrong(self.ended)
        return message

    def _give_up(self, reason: str) -> None:
        self.ended = reason
        self.child.stop()
        raise Wrong(reason)

    def _raise_error(self, message: dict[str, Any]) -> None:
        if "error" not in message:
            return
        kind, said = message["error"], message.get("message", "")
        if kind == "NotImplementedError":
            raise NotImplementedError(said)
        if kind == "Unsendable":
            raise Wrong(str(said))
        at = f", in the line `{message['line']}`" if message.get("line") else ""
        raise Wrong(f"your code raised {kind}: {said}{at}")

    def close(self) -> None:
        """Let the process go on to the next question; what processes of this one have still said is passed over."""
        if self.ended:
            return
        self.ended = "its process has ended"
        try:
            self.child.send({"end": True})
            end = time.monotonic() + CLOSING
            while "ended" not in self.child.receive(end - time.monotonic()):
                pass
        except (Gone, TimeoutError, TypeError):
            self.child.stop()


@contextmanager
def processes(kind: str, number: int, master: Master) -> Iterator[Child]:
    """A student's process for an assignment, in a sandbox of that kind; it is ended at the end."""
    child = Child(kind, number, imports(master))
    try:
        yield child
    finally:
        child.stop()


def imports(master: Master) -> list[str]:
    """The modules that an assignment imports."""
    modules: list[str] = []
    for line in master.given.statements:
        for node in ast.walk(ast.parse(line.source)) if line.is_import else ():
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return modules


def grade(
    path: Path,
    master: Master,
    student: str,
    seed: str,
    child: Child,
    *,
    only: str = "",
) -> dict[str, Any]:
    """Grade a submission; it never raises for what a student did.

    Args:
        path: the notebook.
        master: of the assignment.
        student: the id.
        seed: of the hidden inputs.
        child: where the student's code runs.
        only: the one task to grade, all when empty.

    Returns:
        The points of every task with what the student is told, the written answers, and what was noticed.
    """
    notes: list[str] = []
    try:
        cells = read_cells(path)
    except (Unreadable, OSError) as error:
        cells = []
        notes.append(str(error))
    code = code_of(cells)
    notes += code.problems
    with graded(student, seed) as grading:
        for task in master.tasks:
            if only in ("", task.number):
                judge(task, code, master, student, child)
    claimed = said_student(code)
    if claimed not in (None, student):
        notes.append(f"STUDENT is {claimed!r} in the notebook, but this is the work of {student!r}")
    return {
        "assignment": master.name,
        "student": student,
        "points": round(sum(task["points"] for task in grading.tasks.values()), 2),
        "tasks": grading.tasks,
        "written": {part.number: written(cells, part) for part in master.written},
        "notes": notes,
        "copied": copied.notice(code, [task.name for task in master.tasks]),
        "sandbox": child.kind,
    }


def judge(task: Task, code: Code, master: Master, student: str, child: Child) -> None:
    """Run a task's hidden tests on a student's answer; `points` leaves the result in the grading."""
    source = program(task.name, code, master.given, student)
    answer: Any = Missing(f"there is no `{task.name}` in the notebook")
    try:
        if source:
            answer = Answer(child, source, task.name, SECONDS)
    except NotImplementedError as todo:
        answer = Missing(str(todo), NotImplementedError)
    except (Wrong, Gone, TimeoutError) as error:
        answer = Missing(str(error) or "its process did not start")
    names: dict[str, Any] = {}
    reads = {node.id for node in ast.walk(ast.parse(task.hidden)) if isinstance(node, ast.Name)}
    lines = [line.source for line in needed(reads, master.given.statements)]
    exec("\n".join([f"STUDENT = {student!r}", *lines]), names)
    try:
        exec(compile(task.hidden, f"<tests of {task.number}>", "exec"), names | {task.name: answer})
    finally:
        if isinstance(answer, Answer):
            answer.close()


class Missing:
    """Stands for an answer that is not there."""

    def __init__(self, message: str, kind: type[Exception] = Wrong) -> None:
        self.message, self.kind = message, kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Say why it is not there."""
        raise self.kind(self.message)


def written(cells: list[dict[str, Any]], part: Written) -> str:
    """The text of a written answer: of the cell with its id, or, where metadata is lost, of that below its heading."""
    texts = [source_of(cell).strip() for cell in cells]
    by_id = [text for cell, text in zip(cells, texts, strict=True) if settings(cell).get("grade_id") == part.cell]
    headings = [i for i, text in enumerate(texts) if re.match(rf"#+ {re.escape(part.number)}\b", text)]
    below = [texts[i + 1] for i in headings if i + 1 < len(texts)]
    answer = next((text for text in [*by_id, *below] if text != WRITTEN_STUB), "")
    return answer[:WORDS]


def said_student(code: Code) -> str | None:
    """The id that a notebook gives in STUDENT, where it is a plain text."""
    for line in reversed(code.statements):
        if line.binds == {"STUDENT"}:
            try:
                value = ast.literal_eval(line.source.split("=", 1)[1].strip())
            except (ValueError, SyntaxError, IndexError):
                return None
            return value if isinstance(value, str) else None
    return None
