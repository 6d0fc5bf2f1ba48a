"""Drawn digits in place of MNIST, and LeNet taken apart, for the tests of chapter 4's long run."""

import torch
from torch import nn

from helpers.data import digits
from helpers.experiments.train.datasets import DataSplit, LabeledImages

DRAWN = digits(80, seed=3)  # in place of handwriting


def small_split(train=100, test=40, seed=8):
    """Drawn digits as MNIST has its own."""
    parts = [digits(n, seed=seed + k) for k, n in enumerate((train, test))]
    sets = [LabeledImages((part.images * 255).round().byte(), part.labels) for part in parts]
    return DataSplit(sets[0], {"test": sets[1]}, tuple("0123456789"), "drawn")


def pooled(model, x, layers=6):
    """LeNet's feature maps behind its second pooling, layer by layer."""
    with torch.no_grad():
        for module in list(model)[:layers]:
            x = module(x)
    return x


def naive_errors(model, x, y, layers=6):
    """Rate and log-loss of every image: with all filters (N,), and without each, (F, N)."""
    maps, rows = pooled(model, x, layers), []
    with torch.no_grad():
        for f in (None, *range(maps.shape[1])):
            masked = maps.clone()
            if f is not None:
                masked[:, f] = 0
            scores = nn.Sequential(*list(model)[layers:])(masked).double()
            wrong = torch.tensor([float(row.argmax() != c) for row, c in zip(scores, y, strict=True)]).double()
            loss = torch.stack([row.exp().sum().log() - row[c] for row, c in zip(scores, y, strict=True)])
            rows.append((wrong, loss))
    return {name: (rows[0][k], torch.stack([row[k] for row in rows[1:]])) for k, name in enumerate(("rate", "nll"))}
