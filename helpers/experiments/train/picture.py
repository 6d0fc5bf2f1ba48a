"""A picture of a network's learning curves. Without torch: the book's site draws it too."""

from __future__ import annotations

import pandas as pd

from helpers.plots import Picture, curves


def picture(name: str, table: pd.DataFrame) -> Picture:
    """Accuracy against epochs, in training and on the test images; shaded from the worst to the best seed.

    Args:
        name: of the network.
        table: its record, with the rows "epochs", as `helpers.results.read` gives it.
    """
    epochs = table[table["table"] == "epochs"]
    series = {}
    for metric, label in (("train", "training"), ("test", "test")):
        shares = epochs[epochs["metric"] == metric].pivot(index="step", columns="seed", values="value")
        series[f"{label} images"] = (shares.index.tolist(), shares.to_numpy().T)
    return curves(series, "epoch", "share classified correctly", title=name, ylim=(0, 1))
