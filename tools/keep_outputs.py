"""A pytest plugin for nbval: `--executed FILE` keeps the outputs of the page that was run, for the site to show.

nbval runs each cell and collects its outputs to compare them, then forgets them. Here they go into the notebook that
nbval read, and that notebook into FILE, unless a cell failed. Cells after a failed one are skipped: what they say
follows from the first failure. Cells run as in a front end, with a history, which nbval leaves out: without it a
semicolon at a cell's end hides nothing, and `_` is not the last value.
"""

from __future__ import annotations

from collections.abc import Generator

import nbformat
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

# As the kernel introduces itself; Sphinx colours the cells by it.
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--executed", metavar="FILE", help="write the notebook with the outputs of this run to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Let nbval's kernels keep a history."""
    RunningKernel.execute_cell_input = execute


def execute(kernel: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    """Send a cell to the kernel, as nbval does, but with a history; returns the message's id."""
    return kernel.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the cells after a failed one."""
    if isinstance(item, IPyNbCell) and item.parent.stash.get(failed, False):
        pytest.skip("an earlier cell of the page failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put a cell's outputs into its notebook."""
    report = yield
    if isinstance(item, IPyNbCell):
        if report.failed:
            item.parent.stash[failed] = True
        elif report.when == "call":
            item.cell.outputs = item.test_outputs or []
            item.cell.execution_count = item.cell_num + 1
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the notebook, if all of it was run."""
    target = session.config.getoption("--executed")
    cells = [item for item in session.items if isinstance(item, IPyNbCell)]
    if target and cells and exitstatus == pytest.ExitCode.OK:
        notebook = cells[0].parent.nb
        notebook.metadata.language_info = LANGUAGE
        nbformat.write(notebook, target)
