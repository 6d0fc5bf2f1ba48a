"""The matrix of methods and architectures: its answers on small networks, its command, its record and its table."""

import re

import pytest
import torch
from support.cam import ended
from support.records import read_back
from torch import nn

from helpers import compare, results
from helpers.cam import grad_cam
from helpers.experiments import matrix as M
from helpers.experiments import matrix_oracles as O
from helpers.experiments.run_files import RunError
from tools import matrix_page
from tools.project import ROOT

CPU = torch.device("cpu")
NOT_A_NUMBER = float("nan")


def small():
    """Two convolutions, a global average, one linear layer."""
    return O.Network("small", ended, (14, 18), "layer4", O.read_by("fc"))


def smooth():
    """A network without ReLUs, whose last maps are not averaged."""

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(48, O.CLASSES))

    return O.Network("smooth", make, (14, 18), "2")


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.setattr(M, "NETWORKS", (small(), smooth()))


@pytest.fixture
def run(networks, tmp_path):
    """Runs the command; gives its exit status."""
    return lambda: M.main(["--out", str(tmp_path), "--device", "cpu"])


def replaced(monkeypatch, method, call):
    """Another function under a method's name."""
    monkeypatch.setitem(compare.METHODS, method, compare.METHODS[method]._replace(call=call))


# --- answers ----------------------------------------------------------------------------------------------------------


def test_every_method_has_an_oracle():
    assert list(O.ORACLES) == list(compare.METHODS)
    assert len({network.name for network in O.NETWORKS}) == len(O.NETWORKS) == 20


def test_every_method_is_right_on_a_small_network():
    answers = M.answers(small(), CPU)
    assert list(answers) == list(compare.METHODS)
    assert {answer.kind for answer in answers.values()} == {"right"}, answers
    assert max(answer.value for answer in answers.values()) < 1e-12


def test_what_cannot_be_computed_is_refused_with_a_way_out():
    answers = M.answers(smooth(), CPU)
    refused = {method: answer for method, answer in answers.items() if answer.kind == "refused"}
    assert list(refused) == ["guided_backprop", "class_activation_map", "attention_map"]
    assert {answer.kind for answer in answers.values()} == {"right", "refused"}
    assert all(answer.value == len(M.QUOTED.findall(answer.said)) > 0 for answer in refused.values())
    assert "grad_cam(model, x, target, layer='2')" in refused["class_activation_map"].said


def raising(error):
    def call(model, x, target=None, **options):
        raise error

    return call


@pytest.mark.parametrize(
    ("method", "call", "said"),
    [
        ("grad_cam", lambda model, x, target: 1.01 * grad_cam(model, x, target), r"is off by 1\.0e-02"),
        ("grad_cam", lambda model, x, target: NOT_A_NUMBER * x[:, 0], r"is off by inf"),
        ("occlusion", lambda model, x, target: x[0, 0], r"gives \(14, 18\) instead of \(2, 14, 18\)"),
        ("occlusion", raising(ZeroDivisionError("no")), r"raises ZeroDivisionError: no"),
        ("occlusion", raising(ValueError("not today: '2'")), r"refuses what can be computed: not today"),
        ("attention_map", raising(ValueError("not today")), r"does not say what to do: not today"),
        ("guided_backprop", raising(ValueError("take 'nothing'")), r"says what does not work \(layer must be .*: take"),
        ("class_activation_map", lambda model, x, target: x[:, 0], r"gives maps, although the method is not defined"),
    ],
)
def test_a_third_answer_is_named(monkeypatch, run, capsys, tmp_path, method, call, said):
    replaced(monkeypatch, method, call)
    assert run() == 1
    assert re.search(rf"^(small|smooth): {method} {said}", capsys.readouterr().err, re.MULTILINE)
    assert not (tmp_path / "matrix.csv").exists()


def test_zeros_prove_nothing():
    def dead():
        net = ended()
        nn.init.zeros_(net.fc.weight)
        net.fc.weight[0, 0] = 1.0  # no constant, which would be moved
        net.fc.bias.copy_(torch.arange(4))  # class 0 comes last
        return net

    answers = M.answers(small()._replace(make=dead), CPU)
    assert "proves nothing" in " ".join(answer.said for answer in answers.values())


def test_errors_are_shares_of_each_images_largest_value():
    reference = torch.tensor([[[4.0, -8.0]], [[0.5, 0.0]], [[0.0, 0.0]]])
    off = torch.tensor([[[0.0, 1.0]], [[0.0, 0.25]], [[0.0, 0.0]]])
    assert M.relative_error(reference, reference) == 0
    assert M.relative_error(reference + off, reference) == 0.5
    assert M.relative_error(reference + 1e-9, reference) == float("inf")  # zeros must be met exactly
    assert M.relative_error(reference * NOT_A_NUMBER, reference) == float("inf")


def test_an_oracle_checks_that_the_map_makes_the_logit():
    network = small()._replace(cam=lambda model, maps, label: (maps[0], 0.0))
    with pytest.raises(ArithmeticError, match="do not make the logit"):
        M.answers(network, CPU)


def test_a_device_without_double_precision_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(M, "widest_float", lambda device: torch.float32)
    with pytest.raises(RunError, match=r"^--device must know double precision"):
        M.record(tmp_path, CPU)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_networks_are_drawn_the_same_every_time_and_nothing_in_them_is_constant():
    network = small()._replace(make=lambda: nn.Sequential(*ended().children()).insert(1, nn.BatchNorm2d(4)))
    first, second = M.drawn_network(network), M.drawn_network(network)
    assert not any(module.training for module in first.modules())
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert all(parameter.std() > 0 for parameter in first.parameters())
    x = M.drawn_images(network, M.STATISTICS, M.SEED + 1)
    with torch.no_grad():
        torch.testing.assert_close(first[1].running_mean, first[0](x).mean((0, 2, 3)))
        torch.testing.assert_close(first[1].running_var, first[0](x).transpose(0, 1).flatten(1).var(1))


# --- the command, the record, the table -------------------------------------------------------------------------------


def test_the_command_writes_a_record(run, tmp_path):
    assert run() == 0
    record = read_back(tmp_path / "matrix.csv")
    assert record["network"].unique().tolist() == ["small", "smooth"]
    assert record.groupby(["network", "table"]).size().to_dict() == {
        ("small", "right"): 14, ("smooth", "right"): 11, ("smooth", "refused"): 3,
    }  # fmt: skip
    assert list(record.attrs["sentences"]) == ["smooth"]
    assert list(record.attrs["sentences"]["smooth"]) == ["guided_backprop", "class_activation_map", "attention_map"]


@pytest.fixture(scope="module")
def published():
    return results.read("matrix")


# What cannot be: without ReLUs that see the image (those of swin_v2_t see positions alone); without an average and one
# linear layer; without ReLU modules.
NO_RELUS = {"efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"}
REFUSED = {
    "guided_backprop": NO_RELUS,
    "class_activation_map": {"alexnet", "vgg11_bn", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "maxvit_t"},
    "attention_map": NO_RELUS | {"googlenet", "inception_v3"},
}


def test_the_published_matrix_has_no_third_answer(published):
    cells = published.set_index(["network", "method"])["table"]
    assert len(cells) == cells.index.nunique() == 280
    assert set(cells.index) == {(network.name, method) for network in O.NETWORKS for method in compare.METHODS}
    assert set(cells) == {"right", "refused"}
    assert published.query("table == 'right'")["value"].max() <= M.TOLERANCE


def test_the_published_matrix_refuses_what_cannot_be_and_says_what_can(published):
    refused = published.query("table == 'refused'")
    assert refused.groupby("method")["network"].apply(set).to_dict() == REFUSED
    sentences = published.attrs["sentences"]
    for network, method, count in refused[["network", "method", "value"]].itertuples(index=False):
        assert len(M.QUOTED.findall(sentences[network][method])) == count > 0
    assert sum(map(len, sentences.values())) == len(refused)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x0_5"])
def test_the_published_answers_are_given_again(name, published):
    (network,) = (network for network in O.NETWORKS if network.name == name)
    answers = M.answers(network, CPU)
    expected = published[published["network"] == name].set_index("method")["table"].to_dict()
    assert {method: answer.kind for method, answer in answers.items()} == expected


def test_the_table_shows_the_record(published):
    text = matrix_page.table(ROOT)
    assert list(matrix_page.HEADS) == list(compare.METHODS)
    lines = [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert [cells[0].strip("`") for cells in lines] == [network.name for network in O.NETWORKS]
    notes = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
    table = published.set_index(["network", "method"])["table"]
    for name, *cells in lines:
        for method, cell in zip(compare.METHODS, cells, strict=True):
            if table[name.strip("`"), method] == "right":
                assert cell == "✓"
            else:
                number = cell.removeprefix("–").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))
                said = published.attrs["sentences"][name.strip("`")][method]
                assert matrix_page.general(said) == notes[number]
    assert len(notes) == len(set(notes.values()))


def test_small_numbers_and_sentences_are_written_for_readers():
    assert [matrix_page.power(value) for value in (2.4e-13, 9.6e-9, 1e-10)] == ["2 · 10⁻¹³", "1 · 10⁻⁸", "1 · 10⁻¹⁰"]
    assert matrix_page.general("at one of ('a', 'b', 'c.1#2'), or layer='d'") == "at one of ('…'), or layer='…'"
