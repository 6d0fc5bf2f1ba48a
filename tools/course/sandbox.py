"""Where a student's code runs: without rights, network or any file but Python's own and the package's.

`bubblewrap`, where it is installed and root does not start it, or `unshare` of util-linux: name spaces of their own for
files, processes, network and messages, an unprivileged user, an empty folder. Without either, only who asks for `none`
gets less: another process with limits, which can read and change whatever the teacher can.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tools.project import ROOT

HERE = Path(__file__).resolve().parent
KINDS = ("bubblewrap", "unshare", "none")
FIRST_USER = 61_000  # ids that belong to nobody; each sandbox takes one of its own, so that limits do not mix
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
BOOK = "/book"  # where the package and the two files of the process lie
TMP, TMP_MB = "/tmp", 64  # the only folder that can be written, inside of the sandbox

MOUNTS = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=755 tmpfs "$ROOT"
mkdir -p "$ROOT/proc" "$ROOT/tmp" "$ROOT/dev"
mount -t tmpfs -o size=${TMP_MB}m,mode=1777 tmpfs "$ROOT/tmp"
while [ "$1" != -- ]; do
  from="$1" to="$ROOT$2" mode="$3"; shift 3
  if [ "$mode" = link ]; then mkdir -p "$(dirname "$to")"; ln -s "$from" "$to"; continue; fi
  if [ -d "$from" ]; then mkdir -p "$to"; else mkdir -p "$(dirname "$to")"; : > "$to"; fi
  mount --bind "$from" "$to"
  [ "$mode" = rw ] || mount -o remount,bind,ro "$to" 2>/dev/null || mount -o remount,bind,ro,nosuid,nodev "$to"
done
shift
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
exec chroot "$ROOT" "$@"
"""


class NoSandbox(RuntimeError):
    """The system has no way to keep a student's code apart."""


def choose(kind: str | None = None) -> str:
    """The kind of sandbox to use: the one asked for, or the first of `KINDS` that works here but `none`.

    Raises:
        NoSandbox: the one asked for does not work here, or none does and none was not asked for.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"sandbox must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "none":
        return kind
    for candidate in (kind,) if kind else KINDS[:-1]:
        if works(candidate):
            return candidate
    tried = kind or " and ".join(KINDS[:-1])
    raise NoSandbox(
        f"{tried} does not work here, so a student's code could read your files; use Linux with bubblewrap or with "
        "util-linux' unshare, a container, or say --sandbox none if all of this machine may be read and changed"
    )


@cache
def works(kind: str) -> bool:
    """Whether a process can be started in this kind of sandbox, and has no rights there."""
    if not sys.platform.startswith("linux"):
        return False
    # Started by root, bubblewrap's process is called another user and stays root outside: it can write to /proc/sys.
    if kind == "bubblewrap" and os.geteuid() == 0:
        return False
    with tempfile.TemporaryDirectory() as root:
        try:
            done = subprocess.run(
                command(kind, [sys.executable, "-c", "print(6 * 7)"], root, 0),
                capture_output=True,
                timeout=60,
                env=environment(kind),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0 and done.stdout.strip() == b"42"


def shown() -> list[tuple[str, str, str]]:
    """What a sandbox shows of this machine: from where, to where, and how ("ro", "rw" or "link")."""
    python = {str(Path(prefix).resolve()) for prefix in (sys.base_prefix, sys.base_exec_prefix)} | {sys.prefix}
    paths = [*SYSTEM, *(path for path in sorted(python) if not path.startswith(("/usr/", "/lib")))]
    rows = [
        (os.readlink(path), path, "link") if os.path.islink(path) else (path, path, "ro")
        for path in paths
        if os.path.lexists(path)
    ]
    rows.append((str(ROOT / "helpers"), f"{BOOK}/helpers", "ro"))
    return rows + [(str(HERE / name), f"{BOOK}/{name}", "ro") for name in ("wire.py", "child.py")]


def environment(kind: str) -> dict[str, str]:
    """The variables of the process: none of the teacher's."""
    book = BOOK if kind != "none" else os.pathsep.join((str(HERE), str(ROOT)))
    own = {} if kind == "none" else {"COURSE_OWN_PROCESSES": "1", "COURSE_OWN_USER": "1"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    folders = dict.fromkeys(("HOME", "MPLCONFIGDIR", "TMPDIR"), TMP) | {"HELPERS_DATA": f"{TMP}/data"}
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": book,
        "PYTHONDONTWRITEBYTECODE": "1",
        **threads,
        **folders,
        **own,
    }


def command(kind: str, run: Sequence[str], root: str, number: int) -> list[str]:
    """The command that runs another in a sandbox.

    Args:
        kind: of the sandbox.
        run: the command.
        root: an empty folder.
        number: of the sandbox among those that run at once.
    """
    user = str(FIRST_USER + number)
    if kind == "none":
        return list(run)
    if kind == "bubblewrap":
        if shutil.which("bwrap") is None:
            raise FileNotFoundError("bwrap")
        flags = {"ro": "--ro-bind", "rw": "--bind", "link": "--symlink"}
        mounts = [word for source, target, mode in shown() for word in (flags[mode], source, target)]
        apart = [
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--uid",
            user,
            "--gid",
            user,
        ]
        places = [
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--size",
            str(TMP_MB * 1024**2),
            "--tmpfs",
            "/tmp",
            "--chdir",
            "/tmp",
        ]
        return ["bwrap", *apart, *places, *mounts, "--remount-ro", "/", *run]
    if kind != "unshare":
        raise ValueError(f"sandbox must be one of {', '.join(KINDS)}, got {kind!r}")
    rows = [*shown(), *((device, device, "rw") for device in DEVICES)]
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"]
    is_root = os.geteuid() == 0
    apart += [] if is_root else ["--user", "--map-root-user"]
    drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    drop += ["--reuid", user, "--regid", user, "--clear-groups"] if is_root else []
    mounts = [word for row in rows for word in row]
    inside = ["sh", "-c", 'cd /tmp && exec "$@"', "sh", *drop, *run]
    return [*apart, "env", f"ROOT={root}", f"TMP_MB={TMP_MB}", "sh", "-c", MOUNTS, "sh", *mounts, "--", *inside]


def start(kind: str, root: str, number: int) -> subprocess.Popen[bytes]:
    """Start the process of `child.py` in a sandbox."""
    child = f"{BOOK}/child.py" if kind != "none" else str(HERE / "child.py")
    return subprocess.Popen(
        command(kind, [sys.executable, child], root, number),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(kind),
        cwd=root,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a sandbox and all that runs in it.

    The whole group is ended, not its first process alone: what the system ends of itself with its parent, it forgets to
    when a process changes its user.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
