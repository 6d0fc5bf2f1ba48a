"""What the tests of the course share: the sandbox of this machine, and none where there is none."""

from __future__ import annotations

import pytest

from tools.course import sandbox


@pytest.fixture(scope="session")
def kind() -> str:
    """The kind of sandbox that works here. Honest work gets its points without any, so that is tested everywhere."""
    try:
        return sandbox.choose()
    except sandbox.NoSandbox:
        return "none"


@pytest.fixture(scope="session")
def apart(kind: str) -> None:
    """Skips what must not run without a sandbox: it would kill and read whatever the tests may."""
    if kind == "none":
        pytest.skip("no sandbox works here")
