"""The trained networks that come with the package: their cards, and loading them by name."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from helpers.device import usable_device
from helpers.networks import _architectures as architectures
from helpers.networks import _torchvision as imagenet
from helpers.networks._card import Card, WeightsError
from helpers.networks._torchvision import PREFIX

FILES = Path(__file__).resolve().parent / "files"
ARCHITECTURES = ("LeNet", "SmallVGG")  # what a manifest may name


def card(name: str) -> Card:
    """What is known of one of the book's networks, without loading it.

    Args:
        name: as `available()` lists it.

    Raises:
        ValueError: there is no such network; near names are given.
        WeightsError: its manifest is damaged.
    """
    path = FILES / f"{name}.json"
    if str(name).startswith(PREFIX) or imagenet.is_file(str(name)):
        raise ValueError(f"name must be one of the book's networks, got {name!r}: load it, its card comes with it")
    if name not in names():
        near = difflib.get_close_matches(str(name), names(), n=3) or names()
        raise ValueError(f"name must be {PREFIX}... or one of the book's: {', '.join(near)}, got {name!r}")
    return _card(path)


def names() -> list[str]:
    """The names of the book's trained networks."""
    return sorted(path.stem for path in FILES.glob("*.json"))


def _card(path: Path) -> Card:
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
        network_card = Card(**{field.name: _entry(field.name, manifest[field.name]) for field in fields(Card)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path.name} is damaged ({error!r}): install the package again") from error
    if network_card.architecture not in ARCHITECTURES or network_card.name != path.stem:
        raise WeightsError(
            f"{path.name} is not a manifest of the book: it names {network_card.architecture!r}, {network_card.name!r}"
        )
    return network_card


def _entry(name: str, value: Any) -> Any:
    """An entry of a manifest as a card holds it; TypeError where it is of another kind."""
    kinds: dict[str, type] = {"arguments": dict, "parameters": int, "bytes": int, "accuracy": float}
    kinds |= dict.fromkeys(("classes", "mean", "std", "size"), list)
    if not isinstance(value, kinds.get(name, str)):
        raise TypeError(f"{name} is {value!r}")
    return tuple(value) if isinstance(value, list) else value


class Catalogue(tuple[Card, ...]):
    """Cards that print as a table."""

    def __repr__(self) -> str:
        """One aligned line a network."""
        rows = [
            (c.name, c.about, len(c.classes), f"{c.parameters:,}", f"{c.accuracy:.1%}", c.test.split()[0]) for c in self
        ]
        table = pd.DataFrame(rows, columns=["name", "sees", "classes", "parameters", "accuracy", "tested on"])
        return table.set_index("name").rename_axis(index=None, columns="name").to_string()


def available() -> Catalogue:
    """The book's trained networks, as a table: what each has seen, its size, its accuracy and on what.

    Returns:
        A tuple of `Card`s that prints as a table.

    Raises:
        WeightsError: a manifest is damaged.
    """
    return Catalogue(map(card, names()))


def load(name: str, device: torch.device | str | None = None, *, download: bool = False) -> nn.Module:
    """A trained network, in evaluation mode.

    Its `card` (a `Card`) says what it expects and how good it is; `normalize(images, network)` makes its input.
    Nothing is unpickled, and the state of the random generators is left alone.

    Args:
        name: one of `available()`; "torchvision/NAME" for a network trained on ImageNet ("torchvision/resnet18"); or a
            weight file called after one, with torchvision's parameter names ("runs/vgg16-mine.safetensors").
        device: where to; by default `best_device()`.
        download: let torchvision's weights come from the internet where neither torch's cache nor the imported data
            holds them.

    Returns:
        The network, float32; its parameters require gradients, as those of any module do.

    Raises:
        ValueError: there is no such network (near names are given), or no such device.
        WeightsError: a file that is damaged, or is not the one that belongs there.
        WeightsMissing: torchvision's weights are not there; the message says how to get them.
    """
    place = usable_device(device)
    if str(name).startswith(PREFIX) or imagenet.is_file(str(name)):
        return imagenet.load(str(name), download=download).to(place).eval()
    network_card = card(name)
    state = {key: value.float() if value.is_floating_point() else value for key, value in _read(network_card).items()}
    try:
        with torch.device("meta"):  # no weights yet, no random numbers drawn
            network = getattr(architectures, network_card.architecture)(**network_card.arguments)
        network.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{_file(network_card).name} does not fit its manifest: {error}") from error
    network.card = network_card
    network = network.to(place).eval()
    # Twice as fast on a CPU, and the same up to rounding.
    return network.to(memory_format=torch.channels_last) if place.type == "cpu" else network


def rebuilt(network: nn.Module, **changes: Any) -> nn.Module:
    """One of the book's networks built anew with other arguments and the same weights.

    For what changes no weight's shape: `rebuilt(net, atrous=1)` doubles the height and width of the last feature maps,
    `rebuilt(net, stages=((24,), (48,), (96, 192, 192)))` leaves out the last pooling, `rebuilt(net, pooling="gmp")`
    takes maxima in place of means.

    Args:
        network: what `load` gave for one of the book's names; it is left as it is.
        changes: arguments of its architecture.

    Returns:
        A network in evaluation mode on the same device, with its own copy of the weights, and a card that says what
        was changed. Its accuracy there is NaN: nobody has measured it.

    Raises:
        ValueError: no network of the book's, an argument that its architecture does not take, or one that changes a
            weight's shape.
    """
    network_card = getattr(network, "card", None)
    if not isinstance(network_card, Card) or network_card.architecture not in ARCHITECTURES:
        raise ValueError(f"network must be one of the book's, from load(), got {type(network).__name__}")
    arguments = copy.deepcopy({**network_card.arguments, **changes})
    try:
        with torch.device("meta"):
            network_copy = getattr(architectures, network_card.architecture)(**arguments)
        network_copy.load_state_dict({key: value.clone() for key, value in network.state_dict().items()}, assign=True)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"changes must fit the weights of {network_card.name}, got {changes} ({error})") from error
    about = ", ".join(f"{key}={value!r}" for key, value in changes.items())
    about = f"{network_card.about}; rebuilt with {about}" if changes else network_card.about
    network_copy.card = replace(network_card, about=about, arguments=arguments, accuracy=float("nan"))
    return network_copy.eval()


def _file(network_card: Card) -> Path:
    return FILES / f"{network_card.name}.safetensors"


def _read(network_card: Card) -> dict[str, Tensor]:
    """The tensors of a network's file, once its hash is right."""
    path = _file(network_card)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror}): install the package again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != network_card.sha256:
        raise WeightsError(
            f"{path.name} is damaged or another file: its sha256 is {digest[:12]}..., its manifest says "
            f"{network_card.sha256[:12]}...; install the package again, or train it: {network_card.command}"
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path.name} is not a safetensors file ({error})") from error


def write(network: nn.Module, manifest: dict[str, Any], folder: Path = FILES) -> Path:
    """Write a network's weights, in half precision, and its manifest.

    Args:
        network: what was trained.
        manifest: everything a `Card` holds but "parameters", "bytes" and "sha256", and anything else worth keeping.
        folder: where both files go.

    Returns:
        The manifest's path.
    """
    half = {key: _half(value) for key, value in network.state_dict().items()}
    content = safetensors.torch.save(half)
    counts = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{manifest['name']}.json"
    text = json.dumps(manifest | counts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Both are whole before either takes the place of an old one.
    parts = {path.with_suffix(".safetensors"): content, path: text.encode("utf8")}
    for target, part in parts.items():
        target.with_name(target.name + ".part").write_bytes(part)
    for target in parts:
        os.replace(target.with_name(target.name + ".part"), target)
    return path


def _half(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() else value
