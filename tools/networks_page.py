"""The appendix page of the book's networks, out of their manifests and records: nothing on it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def record(root: Path, name: str) -> Row:
    """The full record of a network's trainings."""
    return json.loads((root / "book" / "results" / f"{name}.json").read_text(encoding="utf8"))


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
    for one in manifests(root):
        values = [run["accuracy"]["test"] for run in one["runs"]]
        lines.append(
            row(
                f"[`{one['name']}`](#{one['name']})",
                percent(one["accuracy"]),
                spread(values) if len(values) > 1 else "one seed",
                str(len(one["classes"])),
                f"{one['parameters']:,}",
                f"{one['bytes'] / 1000:.0f} kB",
            )
        )
    total = sum(one["bytes"] for one in manifests(root))
    return "\n".join([*lines, "", f"All weights together: {total / 1e6:.1f} MB."])


def sections(root: Path) -> str:
    """One section a network: what it is, how it was made, how good it is, the command."""
    return "\n\n".join(section(root, one) for one in manifests(root))


def section(root: Path, one: Row) -> str:
    """The section of one network."""
    full = record(root, one["name"])
    parts = [
        f"({one['name']})=\n### `{one['name']}`",
        f"{one['about'][:1].upper()}{one['about'][1:]}. It sees {SEES[one['view']]}. {one['data']}. {made(one)}",
        f"```\n{one['command']}\n```",
        results(full),
    ]
    if full.get("published"):
        parts.append(beside_published(full))
    parts.append(picture(full))
    return "\n\n".join(part for part in parts if part)


def made(one: Row) -> str:
    """The recipe in a few sentences."""
    recipe, made = one["recipe"], one["facts"]
    network = f"`{one['architecture']}`"
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
    text += "".join(f", {what}" for what, wanted in extras.items() if wanted)
    return f"{text}. Made at commit `{made['commit']}` with torch {made['torch']} on {made['device']}."


def results(full: Row) -> str:
    """Accuracy of every run on every test set."""
    tests = list(full["runs"][0]["accuracy"])
    top5 = full["runs"][0].get("top 5") is not None
    lines = [row("seed", *tests, *(["top 5"] if top5 else [])), row(*["--:"] * (1 + len(tests) + top5))]
    for position, run in enumerate(full["runs"]):
        name = f"{run['seed']}{' (shipped)' if position == 0 else ''}"
        lines.append(
            row(name, *(percent(run["accuracy"][t]) for t in tests), *([percent(run["top 5"])] if top5 else []))
        )
    return "\n".join(lines)


def beside_published(full: Row) -> str:
    """Accuracy class by class, beside what the source prints."""
    table, runs = full["published"], full["runs"]
    columns = [table["by class"] + [table["accuracy"]]]
    columns += [run["by class"] + [run["accuracy"]["test"]] for run in runs]
    lines = [row("class", "paper", *(f"seed {run['seed']}" for run in runs)), row(*["---"] + ["--:"] * len(columns))]
    for name, *values in zip([*full["classes"], "all"], *columns, strict=True):
        lines.append(row(name, *(f"{100 * value:.2f}" for value in values)))
    return f"Accuracy in percent, class by class, beside that of {table['source']}:\n\n" + "\n".join(lines)


def picture(full: Row) -> str:
    """The learning curves, with what they show in words."""
    last = [run["epochs"][-1] for run in full["runs"]]
    alt = (
        f"Learning curves of {full['name']} over {last[0]['epoch']} epochs: accuracy on training images ends at "
        f"{spread([row['train'] for row in last])}, on test images at {spread([row['test'] for row in last])}."
    )
    seeds = (
        ""
        if len(full["runs"]) == 1
        else " The line is the mean of the seeds, the shade reaches from the worst to the best."
    )
    caption = f"Accuracy of `{full['name']}` while it learned, on training and on test images.{seeds}"
    options = f":name: fig-{full['name']}\n:width: 480px\n:alt: {alt}"
    return f"```{{figure}} ../results/{full['name']}.png\n{options}\n\n{caption}\n```"
