"""On what a result was measured: the code and the data behind a number."""

import hashlib

import torch

from helpers.experiments import environment
from helpers.experiments.environment import code_hash, tensors_hash


def test_tensors_of_any_layout_are_their_bytes():
    parts = [torch.arange(6).reshape(2, 3), torch.zeros(0, 3), torch.tensor(2.5), torch.arange(8.0)[::2]]
    content = b"".join(part.numpy().tobytes() for part in parts)
    assert tensors_hash(parts) == hashlib.sha256(content).hexdigest()
    assert tensors_hash([parts[0].T.contiguous().T, *parts[1:]]) == tensors_hash(parts)
    assert tensors_hash(parts[::-1]) != tensors_hash(parts)


def test_the_code_is_every_module_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    fresh = code_hash.__wrapped__

    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return fresh()

    first = write("room/a.py", "x = 1")
    assert write("record.csv", "1") == first
    changed = write("room/a.py", "x = 2")
    more = write("b.py", "")
    assert len({first, changed, more}) == 3
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert fresh() != more
