import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import claims
from helpers.claims import ClaimFailed, claim, summary


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(claims, "_checked", {})
    monkeypatch.delenv(claims.LOG_VARIABLE, raising=False)


TRUE = [
    (0.5, {"at_least": 0.5}),
    (0.5, {"at_most": 0.5}),
    (3, {"equals": 3}),
    (3.05, {"equals": 3, "tolerance": 0.1}),
    (True, {"equals": True}),
    (torch.tensor(2.0), {"at_least": 1, "at_most": 3}),
    ([0.9, 0.8], {"at_least": 0.8}),
    (np.array([1.0, 2.0]), {"above": {"centre": 0.5}}),
    ([2, 3], {"above": {"centre": [1, 2]}}),
    (torch.tensor([1.0, 2.0]), {"below": {"blurred": torch.tensor([2.0, 3.0])}}),
]
FALSE = [
    (0.5, {"at_least": 0.6}),
    (0.5, {"at_most": 0.4}),
    (3, {"equals": 4}),
    (3.2, {"equals": 3, "tolerance": 0.1}),
    (False, {"equals": True}),
    ([0.9, 0.7], {"at_least": 0.8}),
    ([2, 3], {"above": {"centre": [1, 3]}}),
    (2, {"above": {"centre": 1, "blurred": 2}}),
    ([2, 3], {"below": {"uniform": [3, 3]}}),
    (float("nan"), {"at_least": 0}),
    (float("nan"), {"at_most": 0}),
    ([1.0, float("nan")], {"above": {"centre": 0}}),
    (1.0, {"at_most": float("nan")}),
]


@pytest.mark.parametrize(("value", "bounds"), TRUE)
def test_a_true_claim_prints_one_line(value, bounds, capsys):
    claim("it-holds", value, text="it holds", **bounds)
    said = capsys.readouterr().out
    assert said.startswith("✓ holds: it holds [")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("value", "bounds"), FALSE)
def test_a_false_claim_raises_and_names_itself(value, bounds):
    assert issubclass(ClaimFailed, AssertionError)
    with pytest.raises(ClaimFailed, match=r"FAILS: it holds .*it-holds"):
        claim("it-holds", value, text="it holds", **bounds)


@pytest.mark.parametrize(
    ("name", "value", "bounds", "message"),
    [
        ("Not An Id", 1, {"at_least": 0}, "id"),
        ("ok", 1, {}, "cannot fail"),
        ("ok", "one", {"at_least": 0}, "number"),
        ("ok", [], {"at_least": 0}, "number"),
        ("ok", [[1, 2]], {"at_least": 0}, "number"),
        ("ok", 1, {"at_most": [1, 2]}, "at_most of claim 'ok'"),
        ("ok", 1, {"equals": "one"}, "equals of claim 'ok'"),
        ("ok", 1, {"at_least": {}}, "at_least of claim 'ok'"),
        ("ok", 1, {"at_least": 0, "text": "  "}, "says nothing"),
        ("ok", [1, 2], {"above": {"centre": [0, 0, 0]}}, "'centre' has 3 values, the claim 2"),
    ],
)
def test_what_cannot_be_checked_is_refused(name, value, bounds, message):
    with pytest.raises(ValueError, match=message):
        claim(name, value, **{"text": "x"} | bounds)


def test_the_log_records_true_and_false_claims(tmp_path, monkeypatch):
    log = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.LOG_VARIABLE, str(log))
    monkeypatch.setenv("HELPERS_NOTEBOOK", "ch00_test")
    claim("yes", [1, 2, 4], at_least=1, text="é")
    with pytest.raises(ClaimFailed):
        claim("no", 0, at_least=1, text="b")
    first, second = map(json.loads, log.read_text(encoding="utf8").splitlines())
    assert first == {
        "id": "yes", "text": "é", "value": "2 in the median of 3 seeds, from 1 to 4", "bound": "at least 1",
        "holds": True, "line": "2 (3 seeds)", "notebook": "ch00_test",
    }  # fmt: skip
    assert (second["id"], second["holds"]) == ("no", False)


@pytest.mark.parametrize(
    ("value", "bounds", "shown"),
    [
        (3, {"equals": 3}, "[3; equal to 3]"),
        (True, {"equals": True}, "[True; equal to True]"),
        ([2, 2], {"at_least": 1}, "[2 for each of 2 seeds; at least 1]"),
        ([1.0, 2.5, 2.0], {"at_most": 3}, "[2 in the median of 3 seeds, from 1 to 2.5; at most 3]"),
        (0.25, {"above": {"centre": 0.125}}, "[0.25; above centre: 0.125]"),
    ],
)
def test_the_line_shows_the_value_beside_its_bound(value, bounds, shown, capsys):
    claim("x", value, text="x", **bounds)
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "bounds", "line"),
    [
        (0.8, {"above": {"the centre": 0.34}}, "0.8 against 0.34 for the centre"),
        (0.8, {"above": {"chance": 0.3}, "below": {"the box": 0.9}}, "0.8 against 0.3 for chance and 0.9 for the box"),
        ([0.8, 0.9, 0.7], {"above": {"chance": [0.1, 0.2, 0.3]}}, "0.8 against 0.2 for chance (3 seeds)"),
        ([2, 2], {"at_least": 1, "per": "training"}, "2 (2 trainings)"),
        (1.234e-7, {"at_most": 1e-6}, "1.2e-07"),
        (True, {"equals": True}, "True"),
    ],
)  # fmt: skip
def test_the_small_line_says_what_was_measured(value, bounds, line, monkeypatch, capsys):
    said = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: "a shell"))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=said.append))
    claim("x-y", value, text="it <holds>.", **bounds)
    (html,) = [shown._repr_html_() for shown in said]
    assert capsys.readouterr().out == ""
    assert html.startswith('<details class="claim" id="claim-x-y"')
    assert f"<summary>✓ {line}</summary>" in html
    assert "<p>It &lt;holds&gt;. Measured: " in html
    assert "must be " in html.split("Measured")[1]


def test_the_summary_lists_each_claim_once():
    claim("first", 1, at_least=0, text="first")
    claim("second", 1, at_least=0, text="second")
    claim("first", 2, at_least=0, text="first")
    assert summary().iloc[:, :2].to_numpy().tolist() == [["first", "2"], ["second", "1"]]
