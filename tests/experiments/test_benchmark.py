"""The benchmark: its rows, what it counts, and the costs that the book promises."""

import json

import pytest
import torch
from torch import nn

from helpers import licnn, retina, saliency
from helpers.experiments.benchmark import cases
from helpers.experiments.benchmark import command as benchmark

CPU = torch.device("cpu")
CASES = {case.name: case for case in cases.saliency_cases(32)}
CAM_CASES = {case.name: case for case in cases.cam_cases(64)}
ABLATIONS = {case.name: case for case in cases.similarnet_cases(64)}
LICNN = {case.name: case for case in cases.licnn_cases(32)}
SEARCH = {case.name: case for case in cases.search_cases(64)}


def small_vgg():
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))


@pytest.fixture
def small(monkeypatch):
    """The networks of the benchmark small: what they compute and how often is the same."""
    for name in ("resnet18", "vgg16"):
        monkeypatch.setitem(cases.NETWORKS, name, small_vgg)


@pytest.mark.usefixtures("small")
def test_a_row_has_the_promised_columns_and_is_written(tmp_path, capsys):
    pytest.importorskip("captum")
    file, threads = tmp_path / "rows.json", torch.get_num_threads()
    options = ["saliency", "--size", "32", "--rounds", "1", "--no-memory", "--device", "cpu", "--json", str(file)]
    assert benchmark.main(options) == 0
    assert torch.get_num_threads() == threads  # one thread computed, and others have theirs back
    rows = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert [row["name"] for row in rows] == list(CASES)
    for row in rows:
        assert tuple(row) == benchmark.COLUMNS
        assert row["name"] in printed
        assert row["ours_forwards"] > 0
        assert row["peer_forwards"] > 0
        assert row["ours_peak_mb"] is None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", CASES)
def test_ours_and_the_peer_compute_the_same(name):
    pytest.importorskip("captum")
    if "SmoothGrad" in name:
        pytest.skip("draws its noise in another order")
    case = CASES[name]
    model, x, target = benchmark.setting(case, 32, CPU)
    model, x = model.double(), x.double()
    ours, theirs = case.ours(model, x, target), case.theirs(model, x, target)
    ours = saliency.input_gradient(model, x, target).abs() if "class saliency" in name else ours
    theirs = theirs[:, 0].to(ours) if "occlusion" in name else theirs  # captum computes its drops in float32
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("class saliency", 16),
        ("class saliency, 5 classes", 8),
        ("guided backprop", 16),
        ("integrated gradients, 50 steps", 4 * 50),
        ("SmoothGrad, 50 samples", 4 * 50),
        ("occlusion, 49 windows", 4 * 49 + 4),
    ],
)
def test_no_image_is_forwarded_more_often_than_needed(name, images):
    case = CASES[name]
    model, x, target = benchmark.setting(case, 32, CPU)
    seen = []
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    case.ours(model, x, target)
    assert sum(seen) == images


def test_a_missing_peer_leaves_its_columns_empty(monkeypatch):
    monkeypatch.setattr(benchmark, "there", lambda case: False)
    row = benchmark.measure(CASES["class saliency"], 32, CPU, rounds=1, memory=False)
    assert row["peer"] == "captum Saliency (not installed)"
    assert row["peer_forwards"] is None
    assert row["ours_forwards"] > 0


def test_a_cost_is_a_median_of_ratios_to_the_forward_pass(monkeypatch):
    case = cases.Case("two passes", 2, lambda m, x, t: (m(x), m(x)), "torch again", lambda m, x, t: m(x))
    times = iter([1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 8.0, 2.0, 2.0, 1.0, 1.0, 3.0, 5.0, 1.0])
    monkeypatch.setattr(benchmark, "_seconds", lambda run, device: next(times))
    monkeypatch.setattr(benchmark, "setting", lambda *_: (nn.Identity(), torch.zeros(2), torch.zeros(2)))
    # Three rounds of (forward, forward, ours, peer, forward).
    assert benchmark.costs(case, 32, CPU, 3) == {"ours": 3.0, "peer": 1.0}


@pytest.mark.slow
def test_integrated_gradients_need_a_tenth_of_captums_memory():
    pytest.importorskip("captum")
    case = CASES["integrated gradients, 50 steps"]
    ours, theirs = (benchmark.peak_mb(case, who, 96, CPU) for who in ("ours", "peer"))
    if ours is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert theirs > 300
    assert ours < theirs / 10


@pytest.mark.parametrize(
    "options", [["cam2"], ["--size", "8"], ["--rounds", "0"], ["--device", "gpu9"], ["--json"]], ids=" ".join
)
def test_bad_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(options)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in CAM_CASES if "factorisation" not in name])
def test_our_class_maps_are_the_peers(name):
    case = CAM_CASES[name]
    pytest.importorskip(case.peer.split()[0])
    model, x, target = benchmark.setting(case, 64, CPU)
    model, x = model.double(), x.double()
    torch.testing.assert_close(case.ours(model, x, target), case.theirs(model, x, target), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CAM_CASES)
def test_a_class_map_takes_one_forward_and_no_backward_through_the_trunk(name):
    case = CAM_CASES[name]
    model, x, target = benchmark.setting(case, 64, CPU)
    seen = []
    model.conv1.register_forward_hook(lambda _m, inputs, output: seen.append((len(inputs[0]), output.requires_grad)))
    case.ours(model, x, target)
    assert seen == [(case.batch, False)]


@pytest.mark.parametrize("name", [name for name in ABLATIONS if "LeNet" in name])
def test_our_ablation_is_the_peers(name):
    case = ABLATIONS[name]
    pytest.importorskip(case.peer.split()[0])
    model, x, target = benchmark.setting(case, 64, CPU)
    model, x = model.double(), x.double()
    ours, theirs = case.ours(model, x, target), case.theirs(model, x, target)
    if "captum" in case.peer:  # E - e for every image, the same at each place of a feature map
        theirs = nn.functional.cross_entropy(model(x), target) - theirs[:, :, 0, 0].mean(0)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_runs_the_trunk_once(name):
    case = ABLATIONS[name]
    model, x, target = benchmark.setting(case, 64, CPU)
    seen = []
    model.conv1.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    case.ours(model, x, target)
    assert sum(seen) <= case.batch + 4  # the loop needs 16 and 512 times the batch


@pytest.mark.usefixtures("small")
def test_licnn_beside_its_steps_as_they_are_written(tmp_path):
    file = tmp_path / "rows.json"
    options = ["licnn", "--size", "32", "--rounds", "1", "--no-memory", "--device", "cpu", "--json", str(file)]
    assert benchmark.main(options) == 0
    rows = json.loads(file.read_text())
    assert [row["name"] for row in rows] == list(LICNN)
    for row in rows:
        assert row["peer"].startswith("helpers reference")  # always installed
        assert row["ours_forwards"] > 1
        assert row["peer_forwards"] > 1
    for name, case in LICNN.items():
        model, x, target = benchmark.setting(case, 32, CPU)
        assert len(x) == (8 if "8 images" in name else 1)
        torch.testing.assert_close(case.ours(model, x, target), case.theirs(model, x, target), rtol=0, atol=1e-5)
        top = licnn.saliency_map(model, x) if "top 5" in name else licnn.attention_map(model, x, target)
        seen = []
        model[0].register_forward_hook(lambda _m, inputs, _o, seen=seen: seen.append(len(inputs[0])))
        assert case.ours(model, x, target).equal(top)
        assert sum(seen) == len(x) * (6 if "top 5" in name else 2)  # a forward, and one with masks for each class


def small_looker():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 40))


@pytest.fixture
def few_looks(monkeypatch):
    monkeypatch.setitem(cases.NETWORKS, "photos", small_looker)
    monkeypatch.setattr(cases, "FIXATIONS", 3)


@pytest.mark.parametrize("name", [name for name in SEARCH if "label map" in name])
def test_our_label_maps_are_the_peers(few_looks, name):
    case = SEARCH[name]
    model, x, target = benchmark.setting(case, 32, CPU)
    assert x.shape == (16, 3, 64, 64)  # whatever the command line says
    ours, theirs = case.ours(model, x[:2], target), case.theirs(model, x[:2], target)
    assert ours.shape == (2, 3, 3, 40)
    if isinstance(theirs, list):  # image by image, row by row, logits
        assert len(theirs) == 2 * 9
        theirs = torch.cat(theirs).log_softmax(1).unflatten(0, (2, 3, 3))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("name", "passes"), [("label map", [64, 64, 16]), ("label map again", [64, 64, 16])])
def test_a_label_map_takes_as_many_views_as_fixations(few_looks, name, passes):
    case = SEARCH[name]
    model, x, target = benchmark.setting(case, 64, CPU)
    seen = []
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    case.ours(model, x, target)
    assert seen == passes  # of 64 views, 144 in all
    seen.clear()
    case.theirs(model, x, target)
    assert seen == ([144] if "again" in name else [1] * 144)


def test_both_samplings_look_at_the_same_places(few_looks):
    pytest.importorskip("skimage")
    case = next(case for name, case in SEARCH.items() if "sampling" in name)
    assert case.name == "sampling, 49 fixations"
    # Each pixel of these images says where it lies: across, and down.
    across = torch.arange(64.0).expand(64, 64)
    x = torch.stack([across, across.T, across + across.T])[None]
    ours, theirs = case.ours(None, x, None), case.theirs(None, x, None)
    assert ours.shape == (1, 9, 3, 64, 64)
    assert len(theirs) == 9
    angle = torch.arange(64) * 2 * torch.pi / 64
    for k, views in enumerate(theirs):
        # 64 (j + 1) / 4 from the edge, half a pixel less where pixels are counted by their middles.
        column, row = 16 * (k % 3 + 1) - 0.5, 16 * (k // 3 + 1) - 0.5
        # One pixel from there: their first ring, our last one.
        expected = torch.stack([column + angle.cos(), row + angle.sin(), column + row + angle.cos() + angle.sin()])
        assert views.shape == (64, 64, 3)
        torch.testing.assert_close(torch.from_numpy(views[:, 0]).T.float(), expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(ours[0, k, :, -1], expected, rtol=0, atol=1e-3)
    assert case.ours(None, x, None).equal(retina.log_polar(x, cases.search.fixation_grid(3).flatten(0, 1)))


def test_the_suites_are_all_named():
    assert list(benchmark.SUITES) == ["saliency", "cam", "similarnet", "licnn", "search"]
    for name, suite in benchmark.SUITES.items():
        assert name in benchmark.__doc__
        assert len({case.name for case in suite(64)}) == len(suite(64)) > 0
