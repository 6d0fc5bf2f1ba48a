"""The long run of chapter 4 on next to nothing, and its published record measured again."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from support.canvases import DRAWN, naive_errors, pooled, small_split
from support.rows import assert_same_form, pick, select
from support.untouched import assert_untouched

from helpers import results, similarnet
from helpers.experiments.similarnet import canvases as C
from helpers.experiments.similarnet import class_weights as K
from helpers.experiments.similarnet import filter_weights as W
from helpers.experiments.similarnet import measure as S
from helpers.experiments.train.recipes import RECIPES
from helpers.filters import upsample

CPU = torch.device("cpu")


# --- parts ------------------------------------------------------------------------------------------------------------


def test_ablation_rows(network):
    split = small_split(30, 20)
    with assert_untouched(network):
        errors, rows = S.ablated(network, split, 3, CPU)
    assert list(errors) == [("training", "rate"), ("training", "nll"), ("test", "rate"), ("test", "nll")]
    assert set(select(rows)["seed"]) == {3}
    for name, part in (("training", split.train), ("test", split.tests["test"])):
        naive = naive_errors(network, part.images.float() / 255, part.labels)
        for error in ("rate", "nll"):
            whole, without = naive[error]
            where = {"set": name, "metric": error, "n": len(part.labels)}
            baseline = pick(rows, table="baseline", **where)["value"]
            assert baseline == errors[name, error].baseline == pytest.approx(whole.mean().item(), rel=1e-5)
            by_filter = select(rows, table="ablation", **where)
            assert by_filter["unit"].tolist() == list(range(16))
            assert by_filter["value"].tolist() == errors[name, error].errors.tolist()
            assert by_filter["value"].tolist() == pytest.approx(without.mean(1).tolist(), rel=1e-5)
            change = whole.mean() - without.mean(1)
            for sign, w in (("paper", change), ("code", -change)):
                for kind, t in (("mean", 1), ("sum", 1 / len(part.labels))):
                    p = (w / t).softmax(0)
                    even = pick(rows, table="effective_number", variant=f"{sign}, {kind}", **where)["value"]
                    assert even == pytest.approx((1 / p.square().sum()).item(), rel=1e-3)


def test_accuracy_rows(network):
    split = small_split(10, 40)
    rows = S.accuracy_rows(network, split, 3)
    test = split.tests["test"]
    with torch.no_grad():
        right = (network(test.images.float() / 255).argmax(1) == test.labels).double()
    assert rows[0]["value"] == pytest.approx(right.mean().item())
    by_class = [right[test.labels == label].mean().item() for label in range(10)]
    assert [row["value"] for row in rows[1:]] == pytest.approx(by_class)
    assert [row["label"] for row in rows[1:]] == list(range(10))


def test_heat_maps_for_letters(network, monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("coffee", "camera"))
    draw = torch.Generator().manual_seed(2)
    weights = {name: torch.rand(16, generator=draw) - 0.3 for name in S.COMPARED}
    with assert_untouched(network):
        scores = S.letter_scores(network, weights, 0.8, CPU)
    assert list(scores) == [*S.COMPARED, *(f"{name}, no poolings" for name in S.COMPARED)]
    aucs = {name: [] for name in S.COMPARED}
    for image, mask in C.lettered(0.8):
        features = pooled(network, image)
        for name in S.COMPARED:
            heat = (features * weights[name][:, None, None]).sum(1, keepdim=True)
            heat = F.interpolate(heat, image.shape[2:], mode="bilinear", align_corners=False)
            aucs[name].append(roc_auc_score(mask.flatten(), heat.flatten()))
    for name in S.COMPARED:
        assert scores[name] == pytest.approx(sum(aucs[name]) / 2, abs=1e-4)


def test_halves_of_the_filters(network, monkeypatch):
    monkeypatch.setattr(S, "DIGIT_BACKGROUNDS", ("blank", "fragments"))
    monkeypatch.setattr(S, "ONE", (1, 10, 84))
    errors = torch.arange(16).double()  # filter 15 is missed most
    split = small_split(20, 40)
    scores = S.half_scores(network, similarnet.AblationErrors(torch.tensor(0.0), errors), split, CPU)
    assert list(scores) == ["most missed", "least missed", *(f"random, {k}" for k in range(1, S.HALVES + 1))]
    x, y = split.tests["test"].images.float() / 255, split.tests["test"].labels
    maps = pooled(network, x)
    drawn = [C.make_canvases(f"drawn {background}", 1, 10, 84) for background in ("blank", "fragments")]
    for name, on in (("most missed", range(8, 16)), ("least missed", range(8))):
        half = torch.zeros_like(maps)
        for f in on:
            half[:, f] = maps[:, f]
        with torch.no_grad():
            named = (network[6:](half).argmax(1) == y).float().mean().item()
        assert scores[name]["named"] == pytest.approx(named, abs=1e-6)
        heat = [upsample(pooled(network, part.images)[:, list(on)].sum(1), (84, 84)) for part in drawn]
        ink = [C.ink_scores(maps_, part) for maps_, part in zip(heat, drawn, strict=True)]
        assert scores[name]["auc"] == pytest.approx((ink[0]["auc"] + ink[1]["auc"]) / 2, abs=1e-4)
        assert scores[name]["pointing near"] == pytest.approx(ink[1]["pointing near"], abs=1e-6)  # of fragments


# --- the whole run, on next to nothing --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, network, gap):
    """A run that takes seconds: its header and rows, and what it asked for, trainings that take none."""
    asked = []

    def load_split(recipe, seed=0):
        asked.append((recipe.name, seed))
        return small_split(80, 20)

    def trained(name, seed, out, device):
        asked.append((name, seed, out.name))
        return {"lenet-mnist": network, "digits-gap": gap}[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(C, "_test_digits", lambda: (DRAWN.images, DRAWN.labels))
        patch.setattr(C, "LETTERED", ("camera",))
        patch.setattr(K, "SAMPLE", 60)
        for name, value in {
            "SEEDS": (1,), "SAMPLE": 60, "ONE": (1, 6, 56), "TWO": (2, 8, 60), "MANY": ((1, 3), 5, 60),
            "KINDS": ("drawn blank", "written noise"), "DIGIT_BACKGROUNDS": ("blank",), "BRIGHTNESS": (1.0,),
            "load_split": load_split, "trained": trained, "shipped_or_trained": trained,
        }.items():  # fmt: skip
            patch.setattr(S, name, value)
        patch.setitem(RECIPES, "digits-gap", replace(RECIPES["digits-gap"], seeds=(0, 1)))
        header, rows = S.record(tmp_path_factory.mktemp("tiny") / "runs", CPU)
        return header, results.frame(rows), asked


def test_the_record_has_the_form_of_the_published_one(tiny):
    header, rows, asked = tiny
    assert asked == [
        ("lenet-mnist", 0),
        ("lenet-mnist", 0, "runs"),
        ("lenet-mnist", 1, "runs"),
        ("digits-gap", 0),
        ("digits-gap", 0, "runs"),
        ("digits-gap", 1),
        ("digits-gap", 1, "runs"),
    ]
    published = results.read("similarnet").attrs
    assert header["command"] == published["command"] == "python -m helpers.experiments.similarnet --publish"
    assert header["published"] == published["published"]
    assert {key: sorted(header[key]) for key in ("data", "settings", "seeds")} == {
        key: sorted(published[key]) for key in ("data", "settings", "seeds")
    }
    # The authors' pictures may not be here.
    there = rows["table"].unique()
    rows = rows if "pictures" in there else results.frame([*rows.to_dict("records"), *absent_pictures()])
    assert_same_form(rows, "similarnet")
    assert select(rows, table="test_images")["value"].tolist() == [2] * 10


def absent_pictures():
    published = results.read("similarnet")
    return published[published["table"].isin(["pictures", "painted"])].to_dict("records")


def test_the_record_holds_what_was_measured(tiny, network, no_mnist):
    _, rows, _ = tiny
    weights = select(rows, table="weights", seed=0).pivot(index="unit", columns="method", values="value")
    ablation = {"set": "training", "metric": "nll", "seed": 0}
    errors = select(rows, table="ablation", **ablation)["value"].to_numpy()
    change = errors - pick(rows, table="baseline", **ablation)["value"]
    assert weights["e - E, raw (code)"].tolist() == pytest.approx(change.tolist(), abs=1e-6)
    softmax = (torch.from_numpy(change) * 80).softmax(0).tolist()
    assert weights["softmax of e - E, summed"].tolist() == pytest.approx(softmax, rel=1e-3)
    fine = {f"{name}, no poolings" for name in weights if "permuted" not in name}
    blurred = {f"{name}, blurred" for name in S.COMPARED}
    maps = [f"{name}{tail}" for tail in ("", ", no poolings") for name in S.COMPARED] + ["the image itself"]
    for kind in ("drawn blank", "written noise"):
        part = select(rows, network="lenet-mnist", seed=0, set=kind)
        assert set(select(part, table="one_digit")["method"]) == {*weights, *fine, *blurred}
        assert {"e - E", "slid over the canvas, logit"} <= set(select(part, table="two_digits")["method"])
        reading = select(part, table="reading")
        assert list(reading["method"].unique()) == maps
        assert set(reading["variant"]) == {"otsu", "two sigma", "0.5", "otsu, smaller"}
    check_ink_scores(rows, (1, 6, 56), network, "drawn blank", 1e-5)
    several = C.make_canvases("written noise", (1, 3), 5, 60)
    expected = C.reading_scores(network, several.images[:, 0], several, "otsu")
    where = {"table": "reading", "seed": 0, "set": "written noise", "method": "the image itself", "variant": "otsu"}
    assert select(rows, **where).set_index("metric")["value"].to_dict() == pytest.approx(expected)
    assert {"CAM", "e - E"} <= set(select(rows, network="digits-gap", seed=0)["method"])


# --- the published record ---------------------------------------------------------------------------------------------


def check_ink_scores(rows, size, model, kind, tolerance):
    """AUCs of the heat maps of a record's weights, measured now on canvases of its kind."""
    canvases = C.make_canvases(kind, *size)
    with torch.no_grad():
        bare = model.conv2(model.conv1(canvases.images).relu()).relu()
    weights = select(rows, table="weights", seed=0)
    scores = select(rows, table="one_digit", network="lenet-mnist", seed=0, set=kind, metric="auc")
    scores = scores.set_index("method")["value"]
    for tail, features in (("", pooled(model, canvases.images)), (", no poolings", bare)):
        for name, part in weights.groupby("method"):
            if tail and "permuted" in name:
                continue  # they are measured with the poolings alone
            w = torch.tensor(part["value"].to_numpy(), dtype=torch.float32)
            maps = upsample((features * w[:, None, None]).sum(1), (size[2], size[2]))
            assert C.ink_scores(maps, canvases)["auc"] == pytest.approx(scores[name + tail], abs=tolerance), name + tail


def test_the_record_is_what_a_fresh_measurement_gives(network):
    rows = results.read("similarnet")
    accuracy = select(rows, table="accuracy", seed=0)
    assert accuracy[accuracy["label"].isna()]["value"].item() == pytest.approx(network.card.accuracy, abs=0.002)
    digits, _, side = rows.attrs["settings"]["digits, canvases, pixels a side"]["one_digit"]
    check_ink_scores(rows, (digits, 40, side), network, "drawn blank", 0.02)  # of 200 canvases the first 40


def test_the_baselines_of_the_record_are_what_a_fresh_measurement_gives():
    rows = results.read("similarnet")
    size = rows.attrs["settings"]["digits, canvases, pixels a side"]["one_digit"]
    baselines = C.without_network(C.make_canvases("drawn blank", *size))
    part = rows[(rows["table"] == "one_digit") & (rows["set"] == "drawn blank") & rows["network"].isna()]
    assert set(part["method"]) == set(baselines)
    for name, scores in baselines.items():
        recorded = part[part["method"] == name].set_index("metric")["value"].to_dict()
        assert recorded == pytest.approx(scores, abs=0.005)


def test_the_record_is_of_the_run_that_the_code_makes():
    rows = results.read("similarnet")
    sizes = {"one_digit": S.ONE, "two_digits": S.TWO, "reading": S.MANY}
    settings = {"digits, canvases, pixels a side": sizes}
    assert rows.attrs["settings"] == json.loads(json.dumps(settings))
    seeds = {"lenet-mnist": [0, *S.SEEDS], "digits-gap": list(RECIPES["digits-gap"].seeds)}
    assert rows.attrs["seeds"] == seeds
    for seed in seeds["lenet-mnist"]:
        part = select(rows, network="lenet-mnist", seed=seed)
        assert len(select(part, table="weights")["method"].unique()) == 9 + W.DRAWS + W.PERMUTED
        assert len(select(part, table="halves")["method"].unique()) == 2 + S.HALVES
        images = select(part, table="ablation").groupby("set")["n"].unique()
        assert {name: list(count) for name, count in images.items()} == {"training": [60_000], "test": [10_000]}
    assert select(rows, table="test_images")["value"].sum() == 10_000
