"""The table of which method runs on which network, out of the record "matrix": nothing of it is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from helpers.results import from_text
from tools.networks_page import row

# The methods of `helpers.compare.METHODS`, in short: all columns and the networks' names are to fit a page.
HEADS = {
    "input_gradient": "slope",
    "class_saliency": "size",
    "gradient_times_input": "× x",
    "integrated_gradients": "IG",
    "smooth_gradient": "SG",
    "guided_backprop": "GB",
    "occlusion": "occ.",
    "rise": "RISE",
    "class_activation_map": "CAM",
    "grad_cam": "GC",
    "hires_cam": "HR",
    "layer_cam": "LC",
    "score_cam": "SC",
    "attention_map": "LICNN",
}
NAMES = re.compile(r"'[^']+'(, '[^']+')*")  # of layers, which differ from network to network
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def table(root: Path) -> str:
    """Which method runs on which network, in MyST markdown: a caption, the table, and what refusals say.

    Args:
        root: of the checkout.
    """
    record = from_text((root / "helpers" / "results" / "matrix.csv").read_text(encoding="utf8"))
    sentences, numbers = record.attrs["sentences"], numbered(record)
    lines = [row("network", *HEADS.values()), row("---", *[":-:"] * len(HEADS))]
    right = set(record[record["table"] == "right"][["network", "method"]].itertuples(index=False, name=None))
    for network in record["network"].unique():
        cells = []
        for method in HEADS:
            if (network, method) in right:
                cells.append("✓")
            else:
                number = numbers[general(sentences[network][method])]
                cells.append(f"–{str(number).translate(SUPERSCRIPTS)}")
        lines.append(row(f"`{network}`", *cells))
    notes = [f"{number}. {sentence}" for sentence, number in numbers.items()]
    return "\n\n".join([caption(record), heads(), "\n".join(lines), "A method that refuses says:", "\n".join(notes)])


def caption(record: pd.DataFrame) -> str:
    """What the marks mean, and how exact they are."""
    right = record[record["table"] == "right"]
    refused = len(record) - len(right)
    version, maxvit_t = record.attrs["versions"]["torchvision"], record.attrs["settings"]["maxvit_t"]
    return (
        f"✓: the maps are those of a second, independent computation; over all {len(right)} of them the largest "
        f"relative error is {power(right['value'].max())}, in double precision. –: the {refused} that are refused, "
        "each with a sentence that says what to do, which was tried and works. The networks are torchvision "
        f"{version}'s, with random weights, `maxvit_t` {maxvit_t}. `{record.attrs['command']}` makes the table."
    )


def heads() -> str:
    """What the short heads of the columns stand for, where they are not the methods' own names."""
    return "; ".join(f"{head}: `{method}`" for method, head in HEADS.items()) + "."


def numbered(record: pd.DataFrame) -> dict[str, int]:
    """The sentences without the names of layers, numbered from 1 in the order of the table."""
    sentences = record.attrs["sentences"]
    every = (
        general(sentences[network][method])
        for network in record["network"].unique()
        for method in HEADS
        if method in sentences.get(network, {})
    )
    return {sentence: number for number, sentence in enumerate(dict.fromkeys(every), 1)}


def general(sentence: str) -> str:
    """A sentence with an ellipsis in the place of the layers that it names."""
    return NAMES.sub("'…'", sentence)


def power(value: float) -> str:
    """A small number as a digit and a power of ten."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit} · 10{str(int(exponent)).translate(SUPERSCRIPTS)}"
