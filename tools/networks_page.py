"""The appendix page of the book's networks, out of their manifests and records: nothing on it is typed by hand.

`python -m tools.networks_page ROOT` draws its pictures, in a process of its own, beside the runs of the pages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.results import from_text

CURVES = Path("_build", "curves")  # below the root: the pictures of the learning curves, drawn for each site
Row = dict[str, Any]
SEES = {
    "whole": "the whole image",
    "disc": "the inscribed disc",
    "log-polar": "the inscribed disc, in log-polar coordinates",
}


def manifests(root: Path) -> list[Row]:
    """The manifests of the shipped networks, by name."""
    paths = sorted((root / "helpers" / "networks" / "files").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf8")) for path in paths]


def record(root: Path, name: str) -> pd.DataFrame:
    """The full record of a network's trainings."""
    return from_text((root / "helpers" / "results" / f"{name}.csv").read_text(encoding="utf8"))


def part(full: pd.DataFrame, table: str, columns: str | list[str]) -> pd.DataFrame:
    """A table of a record, one row a seed, in the record's order."""
    rows = full[full["table"] == table]
    return rows.pivot_table(values="value", index="seed", columns=columns, sort=False)


def draw_curves(root: Path) -> None:
    """Draw the learning curves of all networks into the folder `CURVES`."""
    from helpers.experiments.train.picture import picture  # matplotlib: the words of the page do without

    (root / CURVES).mkdir(parents=True, exist_ok=True)
    for manifest in manifests(root):
        name = manifest["name"]
        picture(name, record(root, name)).savefig(root / CURVES / f"{name}.png", dpi=100)


def percent(value: float) -> str:
    """A share as a percentage with two digits after the point."""
    return f"{100 * value:.2f} %"


def spread(values: list[float]) -> str:
    """The values of all seeds: one, or the least and the greatest."""
    return percent(values[0]) if len(values) == 1 else f"{100 * min(values):.2f} – {percent(max(values))}"


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def overview(root: Path) -> str:
    """One line a network: data, accuracy of what is shipped and of all seeds, parameters, size."""
    lines = [row("network", "accuracy", "all seeds", "classes", "parameters", "file"), row(*["---"] + ["--:"] * 5)]
    for manifest in manifests(root):
        values = [run["accuracy"]["test"] for run in manifest["runs"]]
        lines.append(
            row(
                f"[`{manifest['name']}`](#{manifest['name']})",
                percent(manifest["accuracy"]),
                spread(values) if len(values) > 1 else "one seed",
                str(len(manifest["classes"])),
                f"{manifest['parameters']:,}",
                f"{manifest['bytes'] / 1000:.0f} kB",
            )
        )
    total = sum(manifest["bytes"] for manifest in manifests(root))
    return "\n".join([*lines, "", f"All weights together: {total / 1e6:.1f} MB."])


def sections(root: Path) -> str:
    """One section a network: what it is, how it was made, how good it is, the command."""
    return "\n\n".join(section(root, manifest) for manifest in manifests(root))


def section(root: Path, manifest: Row) -> str:
    """The section of one network."""
    full = record(root, manifest["name"])
    parts = [
        f"({manifest['name']})=\n### `{manifest['name']}`",
        f"{manifest['about'][:1].upper()}{manifest['about'][1:]}. "
        f"It sees {SEES[manifest['view']]}. {manifest['data']}. {how_made(manifest)}",
        f"```\n{manifest['command']}\n```",
        results(full),
    ]
    if full.attrs["published"]:
        parts.append(beside_published(full))
    parts.append(figure(full))
    return "\n\n".join(part for part in parts if part)


def how_made(manifest: Row) -> str:
    """The recipe in a few sentences."""
    recipe, facts = manifest["recipe"], manifest["facts"]
    network = f"`{manifest['architecture']}`"
    if recipe["arguments"].get("stages"):
        widths = ", ".join("+".join(map(str, stage)) for stage in recipe["arguments"]["stages"])
        norm = " with batch normalisation" if recipe["arguments"].get("norm") else ""
        network += f", filters by stage {widths}{norm}, ending in {recipe['arguments'].get('pooling', 'gap').upper()}"
    rate = {"one-cycle": f"at most {recipe['lr']:g} in one cycle", "decay": f"{recipe['lr']:g}"}[recipe["schedule"]]
    if recipe["lr_decay"]:
        rate += f" / (1 + {recipe['lr_decay']:g} step)"
    text = f"{network}. {recipe['epochs']} epochs of {'Adam' if recipe['optimiser'] == 'adam' else 'SGD'}, "
    text += f"learning rate {rate}, batches of {recipe['batch']}"
    extras = {
        f"weight decay {recipe['weight_decay']:g}": recipe["weight_decay"],
        f"label smoothing {recipe['label_smoothing']:g}": recipe["label_smoothing"],
        "random crops and mirrored images": recipe["augment"],
    }
    text += "".join(f", {what}" for what, used in extras.items() if used)
    return f"{text}. Made at commit `{facts['commit']}` with torch {facts['torch']} on {facts['device']}."


def results(full: pd.DataFrame) -> str:
    """Accuracy of every run on every test set."""
    accuracy = part(full, "accuracy", ["metric", "set"])
    heads = [images if metric == "top 1" else metric for metric, images in accuracy.columns]
    lines = [row("seed", *heads), row(*["--:"] * (1 + len(heads)))]
    for position, (seed, shares) in enumerate(accuracy.iterrows()):
        lines.append(row(f"{seed}{' (shipped)' if position == 0 else ''}", *map(percent, shares)))
    return "\n".join(lines)


def beside_published(full: pd.DataFrame) -> str:
    """Accuracy class by class, beside what the source prints."""
    published = full.attrs["published"]
    accuracy, classes = part(full, "accuracy", ["metric", "set"])["top 1", "test"], part(full, "classes", "label")
    columns = [[*published["by class"], published["accuracy"]]]
    columns += [[*shares, total] for shares, total in zip(classes.to_numpy(), accuracy, strict=True)]
    seeds = [f"seed {seed}" for seed in classes.index]
    lines = [row("class", "paper", *seeds), row(*["---"] + ["--:"] * len(columns))]
    for name, *values in zip([*full.attrs["settings"]["classes"], "all"], *columns, strict=True):
        lines.append(row(name, *(f"{100 * value:.2f}" for value in values)))
    return f"Accuracy in percent, class by class, beside that of {published['source']}:\n\n" + "\n".join(lines)


def figure(full: pd.DataFrame) -> str:
    """The learning curves, with what they show in words."""
    name, epochs = full.attrs["name"], full[full["table"] == "epochs"]
    length = epochs["step"].max()
    last = part(epochs[epochs["step"] == length], "epochs", "metric")
    alt = (
        f"Learning curves of {name} over {length} epochs: accuracy on training images ends at "
        f"{spread(last['train'].tolist())}, on test images at {spread(last['test'].tolist())}."
    )
    several = " The line is the mean of the seeds, the shade reaches from the worst to the best."
    caption = f"Accuracy of `{name}` while it learned, on training and on test images."
    caption += several if len(last) > 1 else ""
    options = f":name: fig-{name}\n:width: 480px\n:alt: {alt}"
    return f"```{{figure}} /{(CURVES / name).as_posix()}.png\n{options}\n\n{caption}\n```"


if __name__ == "__main__":
    draw_curves(Path(sys.argv[1]))
