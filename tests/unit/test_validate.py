"""Every check: what it lets through and as what, and the one sentence it refuses with."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from helpers import (
    background,
    basics,
    cam,
    compare,
    filters,
    metrics,
    networks,
    plots,
    quadtree,
    saliency,
    sanity,
    search,
    similarnet,
    training,
)
from helpers._validate import (
    check_choice,
    check_classes,
    check_count,
    check_fill,
    check_images,
    check_number,
    check_range,
    check_size,
    check_target,
    check_tensor,
    describe,
    is_number,
)

X = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])
NAN, INF = float("nan"), float("inf")


def refusal(call, *arguments, **options):
    """The sentence with which a check refuses; every one says what it wants and what it got."""
    with pytest.raises(ValueError, match=r"must .*, got ") as error:
        call(*arguments, **options)
    return str(error.value)


# images


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_come_back_as_they_are(dtype):
    x = X.to(dtype)
    assert check_images(x) is x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "be a torch tensor (B, C, H, W), got NoneType"),
        (X.numpy(), "be a torch tensor (B, C, H, W), got ndarray"),
        (X[0], "have shape (B, C, H, W), got (1, 2, 2); one image is x[None]"),
        (X[0, 0], "have shape (B, C, H, W), got (2, 2)"),
        (X[:0], "not be empty, got shape (0, 1, 2, 2)"),
        (X.long(), "be floating point, got torch.int64; images of bytes are x.float() / 255"),
        (X.to(torch.complex64), "be floating point, got torch.complex64; images of bytes are x.float() / 255"),
        (X / 0, "be finite, got NaN or infinite values"),
        (X * NAN, "be finite, got NaN or infinite values"),
        (torch.tensor([[[[INF, -INF]]]]), "be finite, got NaN or infinite values"),
    ],
)
def test_images_of_another_kind_are_refused(x, message):
    assert refusal(check_images, x) == f"x must {message}"


def test_finite_images_whose_sum_overflows_are_taken():
    x = torch.full((1, 1, 2, 2), 60_000.0, dtype=torch.float16)
    assert x.sum().isinf()
    assert check_images(x) is x


# targets


def test_targets_become_rows():
    for target in (2, np.int64(2), torch.tensor(2), [2, 2], np.array([2, 2]), torch.tensor([2, 2], dtype=torch.uint8)):
        rows, several = check_target(target, 2, 5)
        assert rows.tolist() == [[2], [2]]
        assert rows.dtype == torch.int64
        assert several is False
    for target in ([[0, 4, 1], [2, 3, 3]], torch.tensor([[0, 4, 1], [2, 3, 3]], dtype=torch.int32)):
        rows, several = check_target(target, 2, 5)
        assert rows.tolist() == [[0, 4, 1], [2, 3, 3]]
        assert rows.dtype == torch.int64
        assert several is True


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0], "be an int, (B,) or (B, K) with B = 2 images, got shape (1,)"),
        ([0, 1, 2], "be an int, (B,) or (B, K) with B = 2 images, got shape (3,)"),
        ([[0, 1]], "be an int, (B,) or (B, K) with B = 2 images, got shape (1, 2)"),
        ([], "be an int, (B,) or (B, K) with B = 2 images, got shape (0,)"),
        ([[[0]], [[0]]], "be an int, (B,) or (B, K) with B = 2 images, got shape (2, 1, 1)"),
        (1.0, "hold integers (class numbers), got torch.float64"),
        (True, "hold integers (class numbers), got torch.bool"),
        (1j, "hold integers (class numbers), got torch.complex64"),
        ("cat", "be an int, (B,) or (B, K) integers, got 'cat'"),
        (None, "be an int, (B,) or (B, K) integers, got None"),
        ([[0, 1], [2]], "be an int, (B,) or (B, K) integers, got [[0, 1], [2]]"),
    ],
)
def test_targets_of_another_shape_or_kind_are_refused(target, message):
    assert refusal(check_target, target, 2, 5) == f"target must {message}"
    assert refusal(check_target, target, 2) == f"target must {message}"


def test_the_range_of_a_target_is_looked_at_once_the_classes_are_known():
    for target, worst in [(5, 5), (-1, -1), ([0, 7], 7), ([-2, 7], -2)]:
        message = f"target must lie in 0 .. 4 (the network has 5 classes), got {worst}"
        assert refusal(check_target, target, 2, 5) == message
        check_target(target, 2)


# tensors


@pytest.mark.parametrize(
    ("target", "rows", "several"),
    [(1, [1], False), (torch.tensor(1), [1], False), ([1], [1], True), (torch.tensor([2, 0]).int(), [2, 0], True)],
)
def test_classes_without_images_become_a_row(target, rows, several):
    classes, is_row = check_classes(target, 3)
    assert classes.tolist() == rows
    assert classes.dtype == torch.int64
    assert is_row is several


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([[0, 1]], r"target must be a class or \(K,\) classes, got shape \(1, 2\)"),
        ([], "target must be a class or"),
        ("cat", "target must be a class or .*, got 'cat'"),
        (None, "target must be a class or"),
        (1.0, "target must hold integers"),
        (True, "target must hold integers"),
        (3, "target must lie in 0 .. 2"),
        ([0, -1], "target must lie in 0 .. 2"),
    ],
)
def test_what_is_no_class_is_refused(target, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_classes(target, 3)


def test_a_tensor_comes_back_as_it_is():
    maps = torch.ones(2, 3, 4)
    assert check_tensor(maps, "maps", "B H W") is maps
    assert check_tensor(maps, "maps", "H W", "B H W") is maps
    assert check_tensor(maps, "maps", "... H W") is maps
    assert check_tensor(maps, "boxes", "... 4") is maps
    assert check_tensor(maps[0, 0], "boxes", "... 4").shape == (4,)
    assert check_tensor(maps, "maps", "2 H 4") is maps
    assert check_tensor(maps[:0], "boxes", "M H 4", empty=True).shape == (0, 3, 4)
    assert check_tensor(maps * INF, "maps", "B H W", finite=False).isinf().all()
    assert check_tensor(maps, "maps", "B H W", low=1, high=1) is maps


@pytest.mark.parametrize(
    ("maps", "layouts", "message"),
    [
        ([[1.0]], ["H W"], "be a torch tensor (H, W), got list"),
        (np.ones((2, 2)), ["H W", "B H W"], "be a torch tensor (H, W) or (B, H, W), got ndarray"),
        (torch.ones(3), ["H W", "B H W"], "be a non-empty tensor (H, W) or (B, H, W), got (3,)"),
        (torch.ones(1, 2, 3, 4), ["H W", "B H W"], "be a non-empty tensor (H, W) or (B, H, W), got (1, 2, 3, 4)"),
        (torch.ones(0, 3), ["H W"], "be a non-empty tensor (H, W), got (0, 3)"),
        (torch.ones(2, 3), ["... 4"], "be a non-empty tensor (..., 4), got (2, 3)"),
        (torch.ones(()), ["... 4"], "be a non-empty tensor (..., 4), got ()"),
        (torch.ones(4), ["... H W"], "be a non-empty tensor (..., H, W), got (4,)"),
        (torch.ones(2, 3), ["4 W"], "be a non-empty tensor (4, W), got (2, 3)"),
        (torch.full((1, 1), NAN), ["H W"], "be finite, got NaN or infinite values"),
        (torch.full((1, 1), -INF), ["H W"], "be finite, got NaN or infinite values"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(maps, layouts, message):
    assert refusal(check_tensor, maps, "maps", *layouts) == f"maps must {message}"


def test_an_empty_tensor_must_have_the_layout_too():
    assert refusal(check_tensor, torch.ones(0, 3), "boxes", "M 4", empty=True) == (
        "boxes must be a tensor (M, 4), got (0, 3)"
    )


KINDS = {
    "floating point": [torch.float16, torch.bfloat16, torch.float32, torch.float64],
    "bool": [torch.bool],
    "integer": [torch.uint8, torch.int32, torch.int64],
    "real": [torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_numbers(kind):
    for dtype in {*(dtype for dtypes in KINDS.values() for dtype in dtypes), torch.complex64}:
        values = torch.ones(2, 2, dtype=dtype)
        if dtype in KINDS[kind]:
            assert check_tensor(values, "maps", "H W", kind=kind) is values
        else:
            assert refusal(check_tensor, values, "maps", "H W", kind=kind) == f"maps must be {kind}, got {dtype}"


def test_the_range_of_a_tensor():
    maps = torch.tensor([[-0.25, 1.5]])
    assert refusal(check_tensor, maps, "maps", "H W", low=0) == "maps must be at least 0, got -0.25 .. 1.5"
    assert refusal(check_tensor, maps, "maps", "H W", low=-1, high=1) == "maps must lie in [-1, 1], got -0.25 .. 1.5"
    assert refusal(check_tensor, maps, "maps", "H W", low=0, high=2) == "maps must lie in [0, 2], got -0.25 .. 1.5"
    assert check_tensor(torch.tensor([NAN, 0.5]), "maps", "N", low=0, high=1, finite=False).isnan().any()


# numbers


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_counts_are_pythons_own(value):
    assert check_count(value, "steps") == 3
    assert type(check_count(value, "steps", 3, 3)) is int


@pytest.mark.parametrize("value", [1.0, np.float64(2), 2.5, True, np.bool_(True), None, "3", [1], torch.tensor(2)])
def test_what_is_no_integer_is_refused(value):
    message = refusal(check_count, value, "steps")
    assert message == f"steps must be an integer of at least 1, got {describe(value)}"


def test_the_limits_of_a_count_are_allowed():
    assert check_count(10**12, "steps") == 10**12
    assert check_count(0, "seed", 0) == 0
    assert refusal(check_count, 0, "steps") == "steps must be an integer of at least 1, got 0"
    assert refusal(check_count, -1, "seed", 0) == "seed must be an integer of at least 0, got -1"
    for value in (2, 5):
        assert check_count(value, "k", 2, 5) == value
    for value in (1, 6):
        assert refusal(check_count, value, "k", 2, 5) == f"k must be an integer in 2 .. 5, got {value}"


@pytest.mark.parametrize("size", [(3, 4), [3, 4], torch.Size([3, 4]), (np.int64(3), np.int32(4))])
def test_sizes(size):
    height_and_width = check_size(size, "size")
    assert height_and_width == (3, 4)
    assert {type(side) for side in height_and_width} == {int}


@pytest.mark.parametrize("size", [3, None, "34", (3,), (3, 4, 5), (0, 4), (3, -1), (3.0, 4), (True, 4), {3, 4}])
def test_what_is_no_size_is_refused(size):
    assert refusal(check_size, size, "shape") == f"shape must be (H, W), two positive integers, got {size!r}"


@pytest.mark.parametrize("value", [1, 0.25, np.float32(0.25), np.float64(1), np.int64(1), Fraction(1, 4)])
def test_numbers_are_pythons_own(value):
    number = check_number(value, "iou", 0.25, 1)
    assert number == value
    assert type(number) is float
    assert is_number(value)


@pytest.mark.parametrize("value", [True, np.bool_(True), None, "1", 1j, torch.tensor(1.0), np.array([1.0])])
def test_what_is_no_number_is_refused(value):
    assert not is_number(value)
    assert refusal(check_number, value, "iou") == f"iou must be a finite number, got {describe(value)}"


@pytest.mark.parametrize("value", [NAN, INF, -INF, np.float32("nan"), np.float64("-inf")])
def test_a_number_must_be_finite(value):
    assert refusal(check_number, value, "iou") == f"iou must be a finite number, got {value!r}"
    refusal(check_number, value, "iou", 0, 1)


@pytest.mark.parametrize(
    ("limits", "options", "good", "bad", "message"),
    [
        ((0,), {}, [0, 9], [-0.5], " from 0 on"),
        ((0,), {"above": True}, [1e-9, 9], [0, -0.5], " above 0"),
        ((0, 1), {}, [0, 0.5, 1], [-0.5, 1.5], " in [0, 1]"),
        ((0, 1), {"above": True}, [0.5, 1], [0, 1.5], " in (0, 1]"),
        ((0, 1), {"below": True}, [0, 0.5], [1, -0.5], " in [0, 1)"),
        ((0, 1), {"above": True, "below": True}, [0.5], [0, 1], " in (0, 1)"),
    ],
)
def test_the_limits_of_a_number(limits, options, good, bad, message):
    for value in good:
        assert check_number(value, "quantile", *limits, **options) == value
    for value in bad:
        expected = f"quantile must be a finite number{message}, got {value}"
        assert refusal(check_number, value, "quantile", *limits, **options) == expected


def test_ranges():
    assert check_range(0.5, "contrast", 0, 1) == (0.5, 0.5)
    assert check_range((0, np.float32(1)), "contrast", 0, 1) == (0.0, 1.0)
    assert check_range([1, 1], "contrast", 0, 1) == (1.0, 1.0)
    assert {type(end) for end in check_range(np.int64(1), "contrast", 0, 1)} == {float}
    for value in (2, -0.5, (0.6, 0.5), (0, 2), (0,), (0, 0.5, 1), NAN, (0, NAN), None, "ab", (True, 1)):
        message = refusal(check_range, value, "contrast", 0, 1)
        assert message == f"contrast must be a number or (from, to) with 0 <= from <= to <= 1, got {value!r}"


# choices, names


def test_choices():
    assert check_choice("logit", "score", ("logit", "probability")) == "logit"
    assert check_choice(np.str_("logit"), "score", ("logit", "probability")) == "logit"
    assert check_choice(None, "padding", ("circular", None)) is None
    assert check_choice("a", "name", {"a": 1, "b": 2}.keys()) == "a"
    side = check_choice(np.int64(7), "side", (3, 7))
    assert side == 7
    assert type(side) is int


@pytest.mark.parametrize("value", ["Logit", "", None, 1.0, True, ["logit"], torch.tensor(1), np.array(["logit"])])
def test_what_is_none_of_the_choices_is_refused(value):
    assert refusal(check_choice, value, "score", ("logit", 1)) == (
        f"score must be one of 'logit', 1, got {describe(value)}"
    )


# fills


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, torch.full((2, 3, 1, 2), 7.0)),
        (np.float32(-0.5), torch.full((2, 3, 1, 2), -0.5)),
        (torch.tensor(7), torch.full((2, 3, 1, 2), 7.0)),
        (torch.tensor([1, 2, 3]).view(3, 1, 1), torch.tensor([1.0, 2, 3]).view(3, 1, 1).expand(2, 3, 1, 2)),
        (torch.tensor([8.0, 9.0]), torch.tensor([8.0, 9.0]).expand(2, 3, 1, 2)),
        (torch.arange(12).view(2, 3, 1, 2), torch.arange(12.0).view(2, 3, 1, 2)),
    ],
)
def test_a_fill_becomes_images_like_x(value, expected):
    fill = check_fill(value, torch.zeros(2, 3, 1, 2, dtype=torch.float64))
    assert fill.dtype == torch.float64
    assert torch.equal(fill, expected.double())


def test_a_fill_carries_no_graph():
    assert not check_fill(torch.ones(1, requires_grad=True), X).requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "be finite, got NaN or infinite values"),
        (torch.tensor([1.0, -INF]), "be finite, got NaN or infinite values"),
        (torch.zeros(3, 1, 1), "be a number or broadcast to (1, 1, 2, 2), got (3, 1, 1) of torch.float32"),
        (torch.zeros(2, 1, 2, 2), "be a number or broadcast to (1, 1, 2, 2), got (2, 1, 2, 2) of torch.float32"),
        (torch.zeros(1, 1, 1, 2, 2), "be a number or broadcast to (1, 1, 2, 2), got (1, 1, 1, 2, 2) of torch.float32"),
        (None, "be a number or broadcast to (1, 1, 2, 2), got None"),
        ("grey", "be a number or broadcast to (1, 1, 2, 2), got 'grey'"),
        (1j, "be a number or broadcast to (1, 1, 2, 2), got 1j"),
    ],
)
def test_a_fill_that_does_not_fit_is_refused_by_its_name(value, message):
    assert refusal(check_fill, value, X) == f"fill must {message}"
    assert refusal(check_fill, value, X, name="baseline") == f"baseline must {message}"


# what a refusal shows


def test_descriptions():
    assert describe(torch.zeros(2, 3)) == "(2, 3) of torch.float32"
    assert describe(np.zeros((2, 3))) == "(2, 3) of float64"
    assert describe("cat") == "'cat'"
    assert describe(list(range(9))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8]"
    assert describe(list(range(99))) == "list"
    assert describe(nn.Sequential(*[nn.ReLU()] * 9)) == "Sequential"


# what every entrance refuses in the same words

PACKED = {
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
}
ENTRANCES = {
    "explain": lambda net, x: compare.explain(net, x, "occlusion", 1),
    "predict": training.predict,
    "label_map": lambda net, x: search.label_map(net, x, 2, lambda x, _: x[:, None]),
    "layer_costs": lambda net, x: basics.layer_costs(net, (3, 8, 8)),
    "class_model": lambda net, x: saliency.class_model(net, 1, (3, 8, 8), steps=1),
    "randomizable_layers": lambda net, x: sanity.randomizable_layers(net),
    "features_at_any_size": lambda net, x: similarnet.features_at_any_size(net, x, layer="0"),
    "grad_cam": lambda net, x: cam.grad_cam(net, x, 1),
    "fit": lambda net, x: training.fit(net, x, torch.tensor([0, 1]), epochs=1, progress=False),
}


def small_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


@pytest.mark.parametrize("name", ENTRANCES)
@pytest.mark.parametrize("model", [None, "resnet18", nn.Linear, [small_net()]], ids=["None", "str", "class", "list"])
def test_what_is_no_network_is_refused(name, model):
    with pytest.raises(ValueError, match=r"^model must be a network, a torch nn\.Module, got "):
        ENTRANCES[name](model, torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: compare.explain(small_net(), x, "grad_cam", 1, "0"),
        lambda x: training.predict(small_net(), x),
        lambda x: filters.blurred(x, 1.0),
        lambda x: networks.normalize(x, "scenes-gap"),
        lambda x: quadtree.build_quadtree(x, 0.5),
        lambda x: saliency.saliency_box(x[:, 0] if x.is_meta else x),
        lambda x: plots.images(x),
    ],
)
def test_numbers_that_are_not_there_are_refused(kind, function):
    with pytest.raises(ValueError, match=r" must (hold numbers|be a plain \(dense\) tensor).*, got a"):
        function(PACKED[kind](torch.rand(2, 3, 8, 8)))


@pytest.mark.parametrize("x", [torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8).double()], ids=["channels", "dtype"])
@pytest.mark.parametrize("name", ["predict", "fit", "explain"])
def test_images_that_do_not_fit_are_refused(name, x):
    with pytest.raises(ValueError, match=r"^(x|images) must (have 3 channels|be torch.float32)"):
        ENTRANCES[name](small_net(), x)


IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEEDED = {
    "random_map": lambda seed: metrics.random_map(torch.zeros(1, 1, 4, 4), seed),
    "same_area_control": lambda seed: background.same_area_control(torch.ones(1, 4, 4) > 0, seed=seed),
    "permuted_labels": lambda seed: sanity.permuted_labels(torch.arange(9), seed),
    "cascading": lambda seed: [net[0].weight for _, net in sanity.cascading_randomization(same_net(), seed=seed)],
    "smooth_gradient": lambda seed: saliency.smooth_gradient(same_net(), IMAGE, 1, samples=2, seed=seed),
    "fit": lambda seed: training.fit(
        same_net(), torch.ones(2, 3, 8, 8), torch.tensor([0, 1]), epochs=1, seed=seed, progress=False
    ),
}


def same_net():
    torch.manual_seed(0)
    return small_net()


@pytest.mark.parametrize("name", SEEDED)
def test_what_is_no_seed_is_refused(name):
    for bad in (-1, 2.5, None, True, "3", 2**70):
        with pytest.raises(ValueError, match=r"^seed must be an integer "):
            SEEDED[name](bad)


@pytest.mark.parametrize(
    "function",
    [
        lambda n: basics.output_size(n(200), 3, padding=n(100)),
        lambda n: saliency.integrated_gradients(same_net(), IMAGE, 1, steps=n(200)).sum().item(),
        lambda n: metrics.deletion(same_net(), IMAGE, 1, IMAGE[:, 0], steps=n(255))[1].shape,
    ],
)
def test_counts_of_narrow_integers_do_not_wrap_around(function):
    assert function(np.uint8) == function(int)


def test_a_number_keeps_its_digits_whatever_the_default_dtype_is():
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    assert check_fill(0.1, x).eq(0.1).all()


def test_labels_that_do_not_fit_logits_are_refused():
    with pytest.raises(ValueError, match=r"^labels must be one for each row of logits, or broadcast to that, got"):
        training.topk_correct(torch.rand(2, 5), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"^labels must be integer, got torch.float32"):
        training.topk_correct(torch.rand(2, 5), torch.rand(2))
    for bad in ({}, [None, 1], torch.rand(2, 2)):
        with pytest.raises(ValueError, match=r"^labels must be "):
            compare.two_object_test(
                small_net(), torch.rand(2, 3, 8, 8), bad, torch.rand(2, 2, 8, 8) > 0.5, cam.grad_cam
            )


def test_what_is_wrong_with_a_packed_target_is_said():
    with pytest.raises(ValueError, match=r"got \(2,\) of torch.int64 on the meta device, without numbers"):
        check_target(torch.tensor([1, 2], device="meta"), 2)
    with pytest.raises(ValueError, match=r"got \(2,\) of torch.int64 in the layout torch.sparse_coo"):
        check_target(torch.tensor([1, 2]).to_sparse(), 2)
