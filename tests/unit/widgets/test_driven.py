"""Explorables driven by their controls, over the range of each: what the browser draws is what `helpers` computes."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.explorables import RULES, silenced
from torch import Tensor, nn

from helpers import background, cam, data, licnn, networks, retina, saliency, search, similarnet
from helpers.capture import activations
from helpers.readout import position_rule
from helpers.widgets import (
    box_explorable,
    digit_explorable,
    filters_explorable,
    gaze_explorable,
    kernel_explorable,
    question_explorable,
    search_explorable,
    steps_explorable,
)
from helpers.widgets._explorable import Explorable, source, style
from helpers.widgets._export import rounded
from tools import cover

pytestmark = pytest.mark.browser
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
RESULT = """() => JSON.parse(JSON.stringify(
  el.result, (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)))"""
MODEL = """const model = {
  get: (name) => given[name], set: (name, value) => { given[name] = value; }, save_changes() {}, on() {},
};"""


class Driven:
    """An explorable in a page of its own, moved as a reader moves it."""

    def __init__(self, page: Any, explorable: Explorable) -> None:
        self.page, self.errors = page, []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        arrays = {
            name: {**entry, "data": base64.b64encode(entry["data"]).decode()}
            for name, entry in explorable.arrays.items()
        }
        given = {"state": explorable.state, "settings": explorable.settings, "arrays": arrays}
        page.set_content(
            f"<!doctype html><html lang='en'><title>An explorable</title><style>{style()}</style><div id='el'></div>"
        )
        page.add_script_tag(
            content=f"const given = {json.dumps(given)};\n{MODEL}\n"
            f"(() => {{ {source(explorable._name)}; render({{ model, el }}); }})();"
        )

    @property
    def state(self) -> dict[str, Any]:
        """What the reader has set."""
        return self.page.evaluate("() => given.state")

    def result(self) -> dict[str, Any]:
        """The numbers that were drawn, once they are."""
        self.page.evaluate(FRAME)
        assert self.errors == []
        return self.page.evaluate(RESULT)

    def set(self, label: str, value: Any) -> None:
        """Move a control that is called so."""
        control = self.page.get_by_label(label, exact=True)
        if isinstance(value, bool):
            control.set_checked(value)
        elif control.evaluate("(node) => node.tagName") == "SELECT":
            control.select_option(str(value))
        else:
            control.fill(str(value))

    def press(self, *keys: str) -> None:
        """Press keys on what can be moved."""
        self.page.locator(".explorable-movable").first.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def check(self, right: Callable[[dict[str, Any]], dict[str, Any]], error: float = 1e-4) -> None:
        """Compare what was drawn with what `right` makes of the state: arrays within an error, all else exactly."""
        result = self.result()
        for name, value in right(self.state).items():
            if isinstance(value, Tensor):
                value = value.detach().double().flatten()
                own = torch.tensor(result[name], dtype=torch.float64).flatten()
                room = error * float(value.abs().max() or 1)
                assert own.shape == value.shape, (name, self.state)
                off = (own - value).abs().max().item()
                assert off <= room, f"{name} is off by {off:.2g} of {room / error:.2g} at {self.state}"
            else:
                assert result[name] == value, (name, self.state)


@pytest.fixture
def drive(chromium: Any) -> Iterator[Callable[[Explorable], Driven]]:
    """A function that opens an explorable."""
    context = chromium.new_context()
    yield lambda explorable: Driven(context.new_page(), explorable)
    context.close()


def through(
    driven: Driven, right: Callable[[dict[str, Any]], dict[str, Any]], *moves: tuple[str, tuple[Any, ...]]
) -> None:
    """Check as it is, then after every value of every control, the others staying where they were left."""
    driven.check(right)
    for label, values in moves:
        for value in values:
            driven.set(label, value)
            driven.check(right)


def test_a_kernel(drive: Any) -> None:
    image = torch.rand(11, 9, generator=torch.Generator().manual_seed(0))
    presets = {"edge": [[-1, 0, 1]] * 3, "blur": [[1, 1, 1]] * 3}

    def right(state: dict[str, Any]) -> dict[str, Any]:
        kernel = torch.tensor(state["weights"], dtype=torch.float32).view(1, 1, 3, 3)
        answer = F.conv2d(image[None, None], kernel, stride=state["stride"], padding=state["padding"])
        return {"map": answer.relu() if state["relu"] else answer}

    through(
        drive(kernel_explorable(image, presets)),
        right,
        ("start from", ("blur", "edge")),
        ("stride", (2, 3)),
        ("padding", (0, 2)),
        ("ReLU", (True,)),
        ("row 2, column 3", (-3.5, 0)),
        ("stride", (1,)),
    )


def test_a_digit(drive: Any) -> None:
    torch.manual_seed(0)
    net, drawn = networks.LeNet(size=36).eval(), data.digits(12, seed=3)
    sheets = data.place(drawn.images, torch.full((12, 2), 4), 36)
    rule = position_rule(net, sheets, torch.rand(12, 2), "fc2")
    names, small = {f"{i}": sheets[i] for i in range(10)}, rounded(net)

    def right(state: dict[str, Any]) -> dict[str, Any]:
        down, beside = state["down"], state["right"]
        moved = F.pad(sheets[state["digit"]][None], (18, 18, 18, 18))[
            ..., 18 - down : 54 - down, 18 - beside : 54 - beside
        ]
        return {"logits": small(moved), "place": rule(activations(small, moved, "fc2")["fc2"])}

    driven = drive(digit_explorable(net, names, rule, "fc2"))
    through(driven, right, ("down", (-18, 18, 3)), ("right", (18, -18, -4)), ("digit", ("7", "0")))
    driven.press("ArrowDown", "ArrowRight", "ArrowRight")
    driven.check(right)
    assert (driven.state["down"], driven.state["right"]) == (1, 2)


@pytest.fixture(scope="module")
def scene_net() -> nn.Sequential:
    return networks.load("scenes-gap", "cpu")


SCENES = data.scenes(2, seed=3)
TWO = {"one": SCENES.images[0], "two": SCENES.images[1]}


def test_a_question(scene_net: nn.Sequential, drive: Any) -> None:
    x = networks.normalize(SCENES.images, scene_net)
    methods = ["gradient", "gradient × input", "integrated gradients", "occlusion"]

    def right(state: dict[str, Any]) -> dict[str, Any]:
        one, target = x[[state["picture"]]], state["target"]
        method = methods[state["method"]]
        if method == "gradient":
            return {"map": saliency.class_saliency(scene_net, one, target)}
        if method == "integrated gradients":
            return {"map": saliency.integrated_gradients(scene_net, one, target, steps=state["steps"]).sum(1)}
        if method == "occlusion":
            row, column, side = state["row"], state["column"], state["patch"]
            one = one.clone()
            one[..., row : row + side, column : column + side] = 0
            return {"logits": scene_net(one)}
        leaf = one.clone().requires_grad_()
        (slope,) = torch.autograd.grad(scene_net(leaf)[0, target], leaf)
        return {"map": (slope * one).sum(1)}

    driven = drive(question_explorable(scene_net, TWO, 5))
    through(
        driven,
        right,
        ("class", scene_net.card.classes),
        ("picture", ("two",)),
        ("method", methods[1:3]),
        ("steps", (1, 6)),
        ("method", ("occlusion",)),
    )
    driven.press(*["ArrowDown", "ArrowRight"] * 12)
    driven.check(right)


def test_a_box(scene_net: nn.Sequential, drive: Any) -> None:
    nets = {"average": scene_net, "maximum": networks.load("scenes-gmp", "cpu")}

    def right(state: dict[str, Any]) -> dict[str, Any]:
        net = nets[state["network"]]
        x = networks.normalize(SCENES.images[[state["picture"]]], net)
        features = activations(net, x, "relu4")["relu4"]
        small = cam.weighted_maps(features, net.fc.weight[state["target"]] + state["shift"])
        large = cam.upsample(small, (64, 64))
        box = cam.largest_component_box(large, state["threshold"])[0]
        return {"map": large, "box": None if box.isnan().any() else box.tolist(), "chances": net(x).softmax(1)}

    through(
        drive(box_explorable(nets, TWO, SCENES.boxes[:, 0], 5)),
        right,
        ("threshold, of the map's maximum", (0, 0.95, 0.4)),
        ("added to all weights", (-0.3, 0.3, 0.1)),
        ("network", ("maximum",)),
        ("class", scene_net.card.classes[:3]),
        ("picture", ("two",)),
    )


def test_filters(drive: Any) -> None:
    torch.manual_seed(0)
    net, exam = rounded(networks.LeNet().eval()), data.digits(20, seed=5)
    pictures = {"wide": torch.rand(1, 40, 60), "high": data.digit_scenes(1, seed=2, size=64).images[0]}
    lost = torch.randn(16, generator=torch.Generator().manual_seed(1)) / 10
    cuts = {"Otsu": "otsu", "mean + 2 deviations": "two sigma", "half the maximum": 0.5}

    def right(state: dict[str, Any]) -> dict[str, Any]:
        picture, on = pictures[state["picture"]][None], torch.tensor(state["on"], dtype=torch.float32)
        kind = {"sign": "paper" if state["sign"] == -1 else "code", "temperature": 10 ** state["exponent"]}
        kind |= {} if state["sign"] else {"normalization": "none"}
        weights = similarnet.importance_weights(0.0, lost, **kind) * on
        features = similarnet.features_at_any_size(net, picture, layer="pool2", keep_pools=state["pools"])
        large = cam.upsample(similarnet.heatmap(features, weights), picture.shape[-2:])
        spots = similarnet.hotspots(large, similarnet.map_threshold(large, cuts[state["cut"]]))
        quiet = silenced(net, "pool2", on)
        read = similarnet.read_hotspots(quiet, picture, spots).labels[0]
        # The maps of the exam are handed over in half precision.
        kept = nn.Sequential(*list(quiet.children())[6:])(
            activations(net, exam.images, "pool2")["pool2"].half().float()
        )
        return {
            "weights": weights,
            "map": large,
            "boxes": spots[0][~spots[0].isnan().any(1)].tolist(),
            "read": read.tolist(),
            "named": (kept.argmax(1) == exam.labels).float().mean().item().__round__(2),
        }

    driven = drive(filters_explorable(net, "pool2", pictures, lost, exam.images, exam.labels))
    signs = ("softmax of e − E", "e − E, no softmax (their code)", "softmax of E − e (Ghosh et al.)")
    through(
        driven,
        right,
        ("temperature T", (-4, 1, -1.5)),
        ("weights", signs),
        ("cut", [*cuts][1:]),
        ("picture", ("high",)),
    )
    driven.set("coarse, with the network's poolings", True)
    driven.page.get_by_role("button", name="the 8 others").click()
    driven.check(right)
    driven.page.get_by_role("group").get_by_role("checkbox").nth(2).click()
    driven.check(right)
    driven.page.get_by_role("button", name="all on").click()
    assert driven.result()["named"] <= 1
    for switch in driven.page.get_by_role("group").get_by_role("checkbox").all():
        switch.click()
    driven.result()
    assert "All filters are silent" in driven.page.locator(".explorable-words").inner_text()


def test_seven_steps(drive: Any) -> None:
    net, pair = networks.load("scenes-biased", "cpu"), data.two_object_scenes(4, seed=501)
    pictures = {"one": pair.images[0], "two": pair.images[1]}
    explorable = steps_explorable(net, pictures, 3)
    # In double precision: a place whose value equals its inhibition to the last digit may fall on either side.
    exact = networks.load("scenes-biased", "cpu").double()

    def right(state: dict[str, Any]) -> dict[str, Any]:
        image = pair.images[[state["picture"]]].double()
        x, setting = networks.normalize(image, exact), {key: state[key] for key in ("k", "a", "b")}
        rule = [partial(licnn.inhibition_mask, **setting), licnn.rms_mask, None][state["rule"]]
        score = ["logit", "log-odds"][state["score"]]
        steps = licnn.attention_steps(exact, x, state["target"], score=score, suppress=rule)
        region = background.salient_region(steps.map)
        blur = [background.blur_outside, background.blur_inside][state["blurred"]]
        then = exact(networks.normalize(blur(image, region, float(state["radius"])), exact)).softmax(1)
        name = explorable.settings["relus"][state["layer"]]
        return {"maxima": steps.contributions[name], "sum": steps.sums[name], "map": steps.map, "then": then}

    through(
        drive(explorable),
        right,
        ("class", (net.card.classes[0], net.card.classes[6])),
        ("score", ("after it",)),
        ("layer shown", ("relu1", "relu4", "relu3")),
        ("a", (0, 1, 0.1)),
        ("b", (0, 2, 0.9)),
        ("k", (1, 15, 5)),
        ("picture", ("two",)),
        ("blur radius", (0, 10, 3.5)),
        ("blurred", ("inside",)),
        ("rule", ("root mean square", "nothing is inhibited")),
    )


@pytest.fixture(scope="module")
def eye() -> nn.Sequential:
    return networks.load("scenes-logpolar", "cpu")


SEARCHED = data.searched_scenes(3, seed=7)


def test_a_gaze(drive: Any) -> None:
    def right(state: dict[str, Any]) -> dict[str, Any]:
        image = SEARCHED.images[int(state["picture"])][None]
        side = image.shape[-1]
        u = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
        angle = torch.tensor(state["turn"], dtype=torch.float64).deg2rad()
        cos, sin = angle.cos() / state["zoom"], angle.sin() / state["zoom"]
        grid = torch.stack([cos * u[None] - sin * u[:, None], sin * u[None] + cos * u[:, None]], -1) / (side / 2)
        turned = F.grid_sample(image.double(), grid[None], align_corners=False)
        at = torch.tensor([[2 * state["x"] - 1, 2 * state["y"] - 1]])
        return {"view": retina.log_polar(turned, at, size=(16, 24))}

    driven = drive(gaze_explorable({"0": SEARCHED.images[0], "1": SEARCHED.images[1]}, size=(16, 24)))
    through(driven, right, ("turn", (-180, 35, 180)), ("magnify", (0.5, 2, 1.15)), ("picture", ("1",)))
    driven.press(*["ArrowRight"] * 20, *["ArrowDown"] * 5)
    assert driven.state["x"] == 1
    driven.check(right)


def test_a_turn_and_a_zoom_are_measured(drive: Any) -> None:
    driven = drive(gaze_explorable({"0": SEARCHED.images[0]}, size=(32, 48)))
    words = driven.page.locator(".explorable-words")
    driven.set("turn", 90)
    driven.result()
    assert words.inner_text().endswith("by −12 of its 48 columns and 0 of its 32 rows.")
    driven.set("turn", 0)
    driven.set("magnify", 2)  # ln 2 / ln 32 of 31 rows are 6.2
    driven.result()
    assert re.search(r"by 0 of its 48 columns and −?6 of its 32 rows\.$", words.inner_text()), words.inner_text()


def test_a_gaze_with_a_network(eye: nn.Sequential, drive: Any) -> None:
    images = {"0": SEARCHED.images[0], "1": SEARCHED.images[1]}

    def right(state: dict[str, Any]) -> dict[str, Any]:
        x = networks.normalize(SEARCHED.images[[int(state["picture"])]], eye)
        at = torch.tensor([[2 * state["x"] - 1, 2 * state["y"] - 1]])
        view = retina.viewer(eye, 0.5)(x, at)[0]
        return {"view": view, "chances": eye(view).softmax(1)}

    truth = SEARCHED.labels[:2, 0].tolist()
    driven = drive(gaze_explorable(images, model=eye, labels=truth, r_max=0.5))
    through(driven, right, ("picture", ("1",)))
    driven.press(*["ArrowLeft"] * 9, *["ArrowUp"] * 4)
    driven.check(right)
    best = torch.tensor(driven.result()["chances"]).argmax().item()
    verdict = "right" if best == truth[1] else "wrong"
    assert (
        driven.page.locator(".explorable-words")
        .inner_text()
        .endswith(f"It is {eye.card.classes[truth[1]]}: {verdict}.")
    )


def test_a_search(eye: nn.Sequential, drive: Any) -> None:
    x, grid = networks.normalize(SEARCHED.images, eye), search.fixation_grid(5).flatten(0, 1)
    view = retina.viewer(eye, 0.5)
    glance = search.label_map(eye, x, torch.zeros(1, 2), view)[:, 0].double()
    views, truth = search.label_map(eye, x, grid, view).double(), SEARCHED.labels[:, 0]
    names = [
        "information_gain",
        "information_gain_bound",
        "max_confidence",
        "fused_confidence",
        "known_label",
        "center",
    ]

    def right(state: dict[str, Any]) -> dict[str, Any]:
        scene = [state["scene"]]
        belief, before = glance[scene], glance[scene]
        for look in state["looks"]:
            before, belief = belief, search.fuse(belief, views[scene, look][:, None])[:, 0]
        out: dict[str, Any] = {"belief": belief}
        if state["looks"]:
            out["z"] = search.redundancy(before, views[scene, state["looks"][-1]][:, None]).exp()
        if state["advice"] and len(state["looks"]) < 3:
            policy = search.POLICIES[names[state["advice"] - 1]]
            known = search.SearchState(belief, grid.expand(1, -1, -1).double(), views[scene], target=truth[scene])
            out["scores"] = policy.score(known)
        return out

    explorable = search_explorable(eye, SEARCHED.images, truth, SEARCHED.boxes[:, 0], fixations=grid)
    driven = drive(explorable)
    advisers = tuple(RULES)
    through(driven, right, ("show the choice of", advisers))
    driven.press("Enter")  # the middle was looked at: nothing happens
    assert driven.state["looks"] == []
    driven.press("ArrowUp", "Enter")
    driven.check(right)
    driven.press("ArrowLeft", "Enter", "Enter", "ArrowLeft", "Enter")
    assert driven.state["looks"] == [7, 6, 5]
    driven.check(right)
    right_now = bool(
        search.fuse(
            search.fuse(search.fuse(glance[:1], views[:1, 7:8])[:, 0], views[:1, 6:7])[:, 0], views[:1, 5:6]
        ).argmax()
        == truth[0]
    )
    assert driven.state["results"] == {"0": right_now}
    board = driven.page.locator("table").nth(1).inner_text()
    assert f"you\t{int(right_now)} of 1" in board
    traces = {name: search.search_precomputed(name, glance[:1], views[:1], grid, 3, target=truth[:1]) for name in names}
    for shown, name in zip(advisers, names, strict=True):
        assert f"{shown}\t{int(traces[name].beliefs[0, -1].argmax() == truth[0])} of 1" in board
    driven.page.get_by_role("button", name="next scene").click()
    driven.check(right)
    assert driven.state["scene"] == 1


def test_the_cover(drive: Any) -> None:
    def right(state: dict[str, Any]) -> dict[str, Any]:
        ground = list(cover.GROUNDS)[state["ground"]]
        picture = cover.pictures([(state["top"], state["left"])], ground)
        seen = [cover.evidence(name, picture) for name in cover.NETWORKS]
        return {
            "maps": torch.stack([maps for maps, _, _ in seen]),
            "best": [data.CLASSES.index(n[0]) for _, n, _ in seen],
        }

    driven = drive(cover.explorable())
    for keys in (["ArrowDown"] * 10, ["ArrowRight"] * 10, ["ArrowUp"] * 20, ["ArrowLeft"] * 9):
        driven.press(*keys)
        driven.check(right)
    driven.set("ground", "dots")
    driven.check(right)


def test_a_network_without_numbers_leaves_one_sentence(scene_net: nn.Sequential, drive: Any) -> None:
    broken = copy.deepcopy(scene_net)
    broken.card = scene_net.card
    broken.fc.bias.data[3] = float("nan")
    nets = {"broken": broken, "whole": scene_net}
    driven = drive(box_explorable(nets, TWO, SCENES.boxes[:, 0], 5))
    words = driven.page.locator(".explorable-words")
    assert words.inner_text() == "This cannot be computed: the network's scores are not numbers."
    driven.set("network", "whole")
    driven.result()
    assert words.inner_text().startswith("The network says")
    driven.set("network", "broken")
    driven.result()
    assert "cannot be computed" in words.inner_text()
    assert driven.errors == []


def test_an_explorable_that_is_not_seen_waits_without_an_error(scene_net: nn.Sequential, drive: Any) -> None:
    driven = drive(question_explorable(scene_net, TWO))
    driven.page.evaluate("() => { el.hidden = true; }")
    driven.page.evaluate("() => document.querySelector('select').dispatchEvent(new Event('change'))")
    driven.page.evaluate(
        "() => document.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { buttons: 1 }))"
    )
    driven.result()
    driven.page.evaluate("() => { el.hidden = false; }")
    assert driven.page.locator(".explorable-words").inner_text().startswith("The network says")


def test_nothing_is_stored_and_nothing_is_asked_of_a_server() -> None:
    for path in files("helpers.widgets").joinpath("front").iterdir():
        assert not re.search(r"[sS]torage|indexedDB|cookie|fetch\(|XMLHttpRequest|https?:", path.read_text()), path.name
