"""An explorable in JupyterLab, with a kernel: what a reader sets reaches Python, and what Python sets is drawn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.project import ROOT

SHOW = """import torch
from helpers.widgets import kernel_explorable
shown = kernel_explorable(torch.rand(9, 9), {"edge": [[-1, 0, 1]] * 3})
shown"""
READ = 'print("read", shown.state["relu"], shown.state["stride"])'
SET = 'shown.state = {**shown.state, "stride": 3, "relu": False}'
SECONDS = 90


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab with one notebook, page.ipynb."""
    cells = [nbformat.v4.new_code_cell(source) for source in (SHOW, READ, SET)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "page.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += ["--IdentityProvider.token=", "--expose-app-in-browser", f"--ServerApp.root_dir={tmp_path}"]
    variables = {
        name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | variables | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait(f"{address}/api", tmp_path / "lab.log")
            yield address
        finally:
            server.terminate()
            server.wait(20)


def wait(address: str, log: Path) -> None:
    """Until a server answers."""
    begin = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() - begin < SECONDS, log.read_text()
            time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(300)
def test_what_a_reader_sets_reaches_python_and_back(lab: str, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 1400})
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.goto(f"{lab}/lab/tree/page.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell >> nth=2")
    cells = page.locator(".jp-Notebook .jp-CodeCell")

    def run(number: int) -> None:
        cells.nth(number).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")

    run(0)
    words = page.locator(".jp-OutputArea .explorable-words")
    words.wait_for()
    assert words.inner_text().startswith("At row")
    assert cells.nth(0).locator(".explorable canvas").count() >= 2
    cells.nth(0).get_by_label("ReLU").check()
    cells.nth(0).get_by_label("stride").fill("2")
    page.wait_for_timeout(500)
    run(1)
    page.get_by_text("read True 2").wait_for()
    run(2)
    page.wait_for_function("() => document.querySelector('.explorable input[type=checkbox]').checked === false")
    assert cells.nth(0).get_by_label("stride").input_value() == "3"
    context.close()


def test_the_protocol_carries_the_state_both_ways() -> None:
    import torch

    from helpers.widgets import kernel_explorable

    shown, heard = kernel_explorable(torch.rand(9, 9), {"edge": [[-1, 0, 1]] * 3}), []
    shown.observe(lambda change: heard.append(change["new"]["stride"]), names="state")
    shown.set_state({"state": {**shown.state, "stride": 2}})  # what a message from the browser calls
    assert heard == [2]
    sent = []
    shown.send_state = lambda key=None: sent.append(key)
    shown.state = {**shown.state, "stride": 3}
    assert heard == [2, 3]
    assert sent == ["state"]
    state = shown.get_state()
    assert {"_esm", "_css", "arrays", "settings", "state", "_view_module"} <= state.keys()
    assert json.loads(json.dumps(state["state"])) == shown.state
