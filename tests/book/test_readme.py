"""The lines of README.md that use the package on a network of one's own run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tools.project import ROOT


def lines() -> str:
    """The one block of Python in README.md."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf8"), re.DOTALL)
    return block


def test_the_twelve_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(lines().strip().replace("\n\n", "\n").splitlines()) <= 12
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(lines(), "README.md", "exec"), names)
    assert names["maps"].shape == (1, 224, 224)
    assert names["both"].shape == (1, 2, 224, 224)
    net, evidence = names["net"], names["evidence"]
    with torch.no_grad():
        logits = net.eval()(names["x"])
    mean = evidence.mean((1, 2)) + net.fc.bias[logits.argmax(1)].detach()
    torch.testing.assert_close(mean, logits.amax(1), rtol=1e-4, atol=1e-5)
    assert names["box"].shape == (1, 4)
    assert names["trace"].beliefs.shape == (1, 3, 1000)
    assert (tmp_path / "where.png").stat().st_size > 10_000
