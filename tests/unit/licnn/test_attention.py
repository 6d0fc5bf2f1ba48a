"""Attention and saliency maps against a naive walk through the seven steps of the scheme."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from support.licnn import everything, noise, slow_mask, slow_norm, slow_rms
from support.refuses import refuses
from support.tensors import needs_cuda, seeded
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.licnn import attention_map, attention_steps, inhibition_mask, rms_mask, saliency_map

close = partial(torch.testing.assert_close, rtol=0, atol=1e-10)


# the oracle: one class, one image at a time


def stretching(old, new):
    """Weights (new, old) of linear interpolation between the centres of cells; the outermost values go on."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(centre)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, old - 1)] += centre - low
    return weights


def stretched(x, size):
    return stretching(x.shape[0], size[0]) @ x @ stretching(x.shape[1], size[1]).T


class Tap(nn.Module):
    """Stands in place of a module: writes down each of its outputs with feature maps, masked where masks are given."""

    def __init__(self, inner, log):
        super().__init__()
        self.inner, self.log = inner, log

    def forward(self, x):
        y = self.inner(x.clone())  # a ReLU in place overwrites the clone
        if y.ndim != 4:
            return y
        if self.log["masks"] is not None:
            y = y * self.log["masks"][len(self.log["seen"])]
        self.log["seen"].append(y)
        return y.clone()


def tapped(net, picked):
    """A copy of the network with taps around the modules that `picked` tells, in the order in which they run."""
    net, log = copy.deepcopy(net).eval(), {"seen": [], "masks": None}
    actual = {id(module): Tap(module, log) for name, module in net.named_modules() if picked(name, module)}
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if id(child) in actual and not isinstance(module, Tap):
                setattr(module, name, actual[id(child)])
    return net, log


def slow_attention(
    net,
    x,
    target,
    mode="response",
    after_softmax=True,
    skip_last=True,
    normalize="before",
    rule=slow_mask,
    picked=lambda _name, module: isinstance(module, nn.ReLU),
):
    """The attention map (H, W) of one image (1, C, H, W) and one class."""
    net, log = tapped(net, picked)
    scores = net(x)[0]  # step 2
    outputs = log["seen"]
    score = (scores.exp() / scores.exp().sum() if after_softmax else scores)[target]
    contributions = [g[0].amax(0) for g in torch.autograd.grad(score, outputs)]  # steps 3 and 4
    masks = [rule(maps) for maps in contributions]
    if mode == "response":
        if skip_last:
            masks[-1] = everything(masks[-1])
        log.update(seen=[], masks=masks)
        with torch.no_grad():
            net(x)  # step 5
        shares = [y[0].sum(0) for y in log["seen"]]  # step 6
    else:
        shares = [maps.where(mask, 0) for maps, mask in zip(contributions, masks, strict=True)]
    total = torch.zeros(x.shape[-2:], dtype=torch.float64)
    for share in shares:  # step 7
        share = stretched(slow_norm(share) if normalize == "before" else share, x.shape[-2:])
        total += slow_norm(share) if normalize == "after" else share
    return slow_norm(total).detach()


def slow_attentions(net, x, targets, **options):
    """(B, K, H, W), of K classes for each image."""
    rows = [
        [slow_attention(net, x[i : i + 1], c, **options) for c in row]
        for i, row in zip(range(len(x)), targets, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


# networks


def tiny(seed=0, inplace=False):
    """Three ReLUs on maps of 9 x 11, 5 x 6 and 4 x 5 places for images of 11 x 13 pixels, one on vectors."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace),
        nn.Conv2d(6, 5, 2),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(20, 8),
        nn.ReLU(inplace),
        nn.Linear(8, 7),
    ).double()


class Functional(nn.Module):
    """ReLUs that are functions: no module stands for them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[layer for layer in tiny() if not isinstance(layer, nn.ReLU)])

    def forward(self, x):
        conv1, conv2, norm, conv3, *rest = self.layers
        x = conv3(norm(conv2(conv1(x).relu())).relu()).relu()
        for layer in rest:
            x = layer(x)
        return x


def images(count=2, height=11, width=13, seed=1):
    return noise(count, 3, height, width, seed=seed)


class Reused(nn.Module):
    """One ReLU for all: twice on feature maps, then on vectors."""

    def __init__(self, inplace=True, end=None):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(inplace)
        self.hidden, self.fc, self.end = nn.Linear(5, 9), nn.Linear(9, 6), end or nn.Identity()
        self.double()

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv(x))))
        return self.end(self.fc(self.relu(self.hidden(x.mean((2, 3))))))


class Backwards(nn.Module):
    """Its ReLUs are registered in another order than they run in; the first one runs twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.late, self.early = nn.ReLU(), nn.ReLU()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 3, stride=2)])
        self.fc = nn.Linear(5, 6)
        self.double()

    def forward(self, x):
        x = self.late(self.convs[0](x))
        x = self.early(self.convs[1](x))
        return self.fc(self.late(self.convs[2](x)).mean((2, 3)))


def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=7).double()


def vgg():
    """VGG-11 with a sixteenth of its channels, its classifier with ReLUs in place and dropout."""
    torch.manual_seed(0)
    plan = [4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"]
    layers = torchvision.models.vgg.make_layers(plan, batch_norm=False)
    inplace = partial(nn.ReLU, True)
    return nn.Sequential(
        layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16), inplace(), nn.Dropout(), nn.Linear(16, 7)
    ).double()


NETWORKS = {
    "sequential": (tiny, (11, 13)),
    "in place": (partial(tiny, inplace=True), (11, 13)),
    "one ReLU": (Reused, (10, 9)),
    "resnet18": (resnet, (32, 40)),
    "vgg": (vgg, (32, 48)),
}
each_network = pytest.mark.parametrize(("make", "size"), NETWORKS.values(), ids=NETWORKS)


# attention


@pytest.mark.parametrize("mode", ["response", "gradient"])
@each_network
def test_attention_against_the_naive_walk(make, size, mode):
    net, x = make(), images(2, *size)
    classes = [[0, 3], [5, 0]]
    actual = attention_map(net, x, classes, mode=mode)
    close(actual, slow_attentions(net, x, classes, mode=mode), atol=1e-6)
    assert actual.shape == (2, 2, *size)
    close(actual.square().sum((2, 3)), torch.ones(2, 2, dtype=torch.float64))
    assert (actual >= 0).all()
    assert not actual.requires_grad
    # the maps of two classes differ, or the comparison says little
    assert (actual[:, 0] - actual[:, 1]).abs().max() > 1e-3


OPTIONS = {
    "before softmax": ({"score": "logit"}, {"after_softmax": False}),
    "all masked": ({"skip_last": False}, {"skip_last": False}),
    "normalised after": ({"normalize_layers": "after"}, {"normalize": "after"}),
    "not normalised": ({"normalize_layers": None}, {"normalize": None}),
    "nothing suppressed": ({"suppress": None}, {"rule": everything}),
    "root mean square": ({"suppress": rms_mask}, {"rule": slow_rms}),
    "small zones": ({"suppress": partial(inhibition_mask, k=3, a=0.3)}, {"rule": partial(slow_mask, k=3, a=0.3)}),
    # raw contributions have a scale, and that of the log-odds is not that of the probability
    "raw": (
        {"score": "logit", "suppress": partial(inhibition_mask, normalize=False)},
        {"after_softmax": False, "rule": partial(slow_mask, normalize=False)},
    ),
    "all at once": (
        {"score": "logit", "skip_last": False, "normalize_layers": "after", "suppress": rms_mask},
        {"after_softmax": False, "skip_last": False, "normalize": "after", "rule": slow_rms},
    ),
}


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize(("options", "slow"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", [partial(tiny, inplace=True), Reused])
def test_options_against_the_naive_walk(make, options, slow, mode):
    net, x = make(), images(2)
    actual = attention_map(net, x, [[2, 4], [1, 5]], mode=mode, **options)
    close(actual, slow_attentions(net, x, [[2, 4], [1, 5]], mode=mode, **slow), atol=1e-6)


def test_every_option_changes_the_map():
    net, x = tiny(), images(1)
    expected = attention_map(net, x, 2)
    for name, (options, _) in OPTIONS.items():
        assert (attention_map(net, x, 2, **options) - expected).abs().max() > 1e-4, name
    assert (attention_map(net, x, 2, mode="gradient") - expected).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize("layers", [["1"], "4", ["1", "6"], ["0", "4"], ("3",), ["1#1", "4#*"]])
def test_chosen_layers_against_the_naive_walk(layers, mode):
    net, x = tiny(), images(2)
    bare = [name.partition("#")[0] for name in ([layers] if isinstance(layers, str) else layers)]
    actual = attention_map(net, x, [3, 1], layers=layers, mode=mode)
    expected = slow_attentions(net, x, [[3], [1]], mode=mode, picked=lambda name, _: name in bare)
    close(actual, expected[:, 0], atol=1e-6)


def test_calls_of_a_reused_layer_are_chosen_one_by_one():
    net, x = Reused(), images(2)
    steps = attention_steps(net, x, 1, layers=["relu#2"], skip_last=False)
    assert list(steps.masks) == ["relu#2"]
    close(steps.contributions["relu#2"], attention_steps(net, x, 1).contributions["relu#2"])


@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_the_last_layer_is_the_one_that_runs_last_not_the_one_registered_last(mode):
    net, x = Backwards(), images(1)
    actual = attention_map(net, x, 2, mode=mode)
    close(actual, slow_attentions(net, x, [[2]], mode=mode)[:, 0], atol=1e-6)


def test_layers_are_listed_from_the_first_to_the_last():
    x = images(1)
    assert list(attention_steps(tiny(), x, 0).masks) == ["1", "4", "6"]  # not 11, which gives vectors
    assert list(attention_steps(Reused(), x, 0).masks) == ["relu#1", "relu#2"]
    assert list(attention_steps(Backwards(), x, 0).masks) == ["late#1", "early", "late#2"]


def test_classifier_relus_are_left_alone():
    net, x, seen = tiny(), images(1), []
    net[11].register_forward_hook(lambda _module, _inputs, y: seen.append(y.clone()))
    steps = attention_steps(net, x, 0, suppress=lambda maps: torch.zeros_like(maps, dtype=torch.bool), skip_last=False)
    first, second = seen
    # with all maps silenced the vectors are what the biases make of zeros
    close(second, (net[11](net[10](torch.zeros(1, 20).double()))).detach())
    assert not torch.equal(first, second)
    assert "11" not in steps.masks


def test_steps_hold_every_layer_of_every_class():
    net, x = tiny(), images(3)
    for target, lead in [(2, (3,)), ([0, 1, 2], (3,)), ([[0, 5], [1, 5], [2, 5]], (3, 2))]:
        steps = attention_steps(net, x, target)
        close(steps.logits, copy.deepcopy(net).eval()(x).detach())
        for name, places in {"1": (9, 11), "4": (5, 6), "6": (4, 5)}.items():
            assert steps.contributions[name].shape == (*lead, *places)
            assert steps.masks[name].shape == (*lead, *places)
            assert steps.masks[name].dtype == torch.bool
            assert steps.sums[name].shape == (*lead, *places)
        assert steps.masks["6"].all()  # the last one is not masked
        assert not steps.masks["4"].all()
        assert torch.equal(steps.masks["1"], inhibition_mask(steps.contributions["1"]))
        # what is masked adds nothing, what is kept of the first layer adds what it was
        assert (steps.sums["1"][~steps.masks["1"]] == 0).all()
        with torch.no_grad():
            first = net[:2](x).sum(1)
        first = first if len(lead) == 1 else first[:, None].expand(-1, 2, -1, -1)
        close(steps.sums["1"][steps.masks["1"]], first[steps.masks["1"]])
        assert torch.equal(steps.map, attention_map(net, x, target))
        steps = attention_steps(net, x, target, mode="gradient")
        assert torch.equal(steps.sums["6"], steps.contributions["6"] * steps.masks["6"])
        assert not steps.masks["6"].all()


def test_suppress_is_given_contributions_of_all_images_and_classes():
    shapes = []

    def suppress(maps):
        shapes.append(tuple(maps.shape))
        return maps > 0

    net, x = tiny(), images(2)
    steps = attention_steps(net, x, [[0, 1, 2], [2, 1, 0]], suppress=suppress)
    assert shapes == [(2, 3, 9, 11), (2, 3, 5, 6), (2, 3, 4, 5)]
    assert torch.equal(steps.masks["4"], steps.contributions["4"] > 0)


def test_attention_by_hand():
    # x -> x -> ReLU -> mean -> (m, -m): the gradient of m - (-m) is 2/4 everywhere, for class 1 -2/4
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(1, 2, False))
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[4].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.tensor([[[[3.0, -1.0], [0.0, 4.0]]]])
    steps = attention_steps(net, x, [[0, 1]], suppress=lambda maps: maps > 0, skip_last=False)
    assert steps.logits.tolist() == [[1.75, -1.75]]
    assert steps.contributions["1"].tolist() == [[[[0.5, 0.5], [0.5, 0.5]], [[-0.5, -0.5], [-0.5, -0.5]]]]
    assert steps.masks["1"].tolist() == [[[[True, True], [True, True]], [[False, False], [False, False]]]]
    assert steps.sums["1"].tolist() == [[[[3, 0], [0, 4]], [[0, 0], [0, 0]]]]
    close(steps.map, torch.tensor([[[[0.6, 0], [0, 0.8]], [[0, 0], [0, 0]]]]), atol=1e-6)  # nothing left: zeros


@pytest.mark.parametrize("normalize_layers", ["before", "after", None])
@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_where_nothing_is_left_the_map_is_zero(mode, normalize_layers):
    nothing = partial(torch.zeros_like, dtype=torch.bool)
    options = {"mode": mode, "normalize_layers": normalize_layers, "skip_last": False}
    actual = attention_map(tiny(), images(1), 0, suppress=lambda maps: nothing(maps), layers="1", **options)
    assert torch.equal(actual, torch.zeros(1, 11, 13, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize("make", [tiny, Reused])
def test_targets_of_all_shapes_and_batches_equal_one_by_one(make, mode):
    net, x = make(), images(3)
    call = partial(attention_map, net, mode=mode)
    several = call(x, [[0, 4, 0], [2, 1, 5], [3, 3, 0]])
    assert several.shape == (3, 3, 11, 13)
    for i, row in enumerate([[0, 4, 0], [2, 1, 5], [3, 3, 0]]):
        for j, c in enumerate(row):
            close(several[i, j], call(x[i : i + 1], c)[0])
    close(call(x, torch.tensor([4, 1, 3])), several[:, 1])
    close(call(x, [[0], [5], [0]])[:, 0], several[:, 2])
    close(call(x, 0)[0], several[0, 0])  # class 0 is a class


def test_class_zero_is_not_the_likeliest_class():
    net, x = tiny(), images(8)
    other = copy.deepcopy(net).eval()(x).argmax(1) != 0
    assert other.any()
    away = (attention_map(net, x, 0) - saliency_map(net, x, 1)).abs().amax((1, 2))
    assert (away[other] > 1e-3).all()


@pytest.mark.parametrize("target", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saturated_softmax_does_not_blank_the_map(target, dtype):
    net, x = tiny().to(dtype), images(2).to(dtype)
    with torch.no_grad():
        net[12].bias[1] += 1000
    actual = attention_map(net, x, target, mode="gradient")
    assert torch.isfinite(actual).all()
    close(actual.square().sum((1, 2)), torch.ones(2, dtype=dtype), atol=1e-5)
    first = net.eval()[:2](x).detach().requires_grad_()
    logits = net[2:](first)
    assert (logits.softmax(1)[:, [1, 3]] == torch.tensor([1, 0])).all()
    # class 3 is judged against class 1 alone; class 1 against the others, by their shares of what it leaves
    rivals = logits[:, 1] if target == 3 else logits[:, [0, 2, 3, 4, 5, 6]].exp().sum(1).log()
    (g,) = torch.autograd.grad((logits[:, target] - rivals).sum(), first)
    close(attention_steps(net, x, target).contributions["1"], g.amax(1), atol=1e-5)


def test_the_contribution_has_the_probabilitys_direction():
    net, x = tiny(), images(1)
    actual = attention_steps(net, x, 4).contributions
    run, log = tapped(net, lambda _name, module: isinstance(module, nn.ReLU))
    chance = run(x).softmax(1)[0, 4]
    # dP = P (1 - P) d log(P / (1 - P))
    for name, g in zip(["1", "4", "6"], torch.autograd.grad(chance, log["seen"]), strict=True):
        close(actual[name], g.amax(1) / (chance * (1 - chance)).detach())


# saliency


@pytest.mark.parametrize("options", [{}, {"mode": "gradient", "score": "logit"}, {"layers": ["4"]}])
def test_saliency_is_the_sum_of_the_five_likeliest_classes_maps(options):
    net, x = tiny(), images(3)
    likeliest = copy.deepcopy(net).eval()(x).argsort(1, descending=True)[:, :5].tolist()
    total = sum(attention_map(net, x, [row[k] for row in likeliest], **options) for k in range(5))
    expected = torch.stack([slow_norm(maps) for maps in total])
    actual = saliency_map(net, x, **options)
    close(actual, expected)
    assert actual.shape == (3, 11, 13)
    close(saliency_map(net, x, top=1, **options), attention_map(net, x, [row[0] for row in likeliest], **options))
    close(saliency_map(net, x[1:2], **options)[0], actual[1])
    total = attention_map(net, x, [list(range(7))] * 3, **options).sum(1)
    close(saliency_map(net, x, 7, **options), torch.stack([slow_norm(maps) for maps in total]))


def test_one_forward_for_all_classes_and_small_passes_with_masks():
    net, sizes = tiny(), []
    net.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    classes = [[0, 1, 2], [3, 4, 5]]
    for call, expected in (
        (lambda: attention_map(net, images(2), classes), [2, 6]),
        (lambda: saliency_map(net, images(2)), [2, 8, 2]),  # 10 images with masks, at most 8 at once
        (lambda: saliency_map(net, images(9), top=3), [9, 9, 9, 9]),
        (lambda: attention_map(net, images(2), 1), [2, 2]),
        (lambda: attention_map(net, images(2), classes, mode="gradient"), [2]),
    ):
        sizes.clear()
        call()
        assert sizes == expected


CALLS = {
    "attention_map": lambda net, x: attention_map(net, x, 0),
    "several": lambda net, x: attention_map(net, x, [[0, 1]] * len(x)),
    "gradient": lambda net, x: attention_map(net, x, 0, mode="gradient"),
    "attention_steps": lambda net, x: attention_steps(net, x, lambda logits: logits.argmin(1)).map,
    "saliency_map": saliency_map,
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def mixed(*end):
    """Mixed modes, a frozen parameter, a filled .grad, and hooks of the user."""
    net = tiny(inplace=True).train()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    net[10].weight.grad = torch.ones_like(net[10].weight)
    net[1].register_forward_hook(lambda *_: None)
    net[12].register_full_backward_hook(lambda *_: None)
    return nn.Sequential(*net, *end)


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net, images(2))


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = mixed(Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, images(2))


class Second(nn.Module):
    """Raises in its second forward, the one with masks."""

    def __init__(self):
        super().__init__()
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        if self.runs > 1:
            raise RuntimeError("boom")
        return x


def test_the_network_is_untouched_when_the_second_forward_or_the_rule_raises():
    net = mixed(Second())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        attention_map(net, images(2), 0)
    net = mixed()
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        attention_map(net, images(2), 0, suppress=Boom())


@each_call
def test_no_parameter_gets_a_gradient_and_the_images_are_left_alone(call):
    net = nn.Sequential(nn.ReLU(inplace=True), *tiny(inplace=True))  # the first layer writes over its input
    x = images(2).requires_grad_()
    before = x.detach().clone()
    assert not call(net, x).requires_grad
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())


@each_call
def test_training_mode_does_not_matter(call):
    close(call(tiny().train(), images(2)), call(tiny().eval(), images(2)))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(context):
    net = tiny()
    expected = saliency_map(net, images(2))
    with context():
        close(saliency_map(net, images(2)), expected)


@each_call
def test_dtype_is_kept(call):
    actual = call(tiny().float(), images(2).float())
    assert actual.dtype == torch.float32
    close(actual.double(), call(tiny(), images(2)), atol=1e-4)


def test_wide_images_keep_their_shape():
    torch.manual_seed(0)
    net = nn.Sequential(*tiny()).float()
    actual = saliency_map(net, torch.randn(1, 3, 40, 200, generator=seeded(2)))
    assert actual.shape == (1, 40, 200)
    assert attention_map(net, torch.randn(1, 3, 200, 40), 0).shape == (1, 200, 40)
    x = images(1, 20, 50)
    close(attention_map(tiny(), x, 3), slow_attentions(tiny(), x, [[3]])[:, 0], atol=1e-6)


@needs_cuda
@each_call
def test_a_network_on_the_gpu_gives_the_same(call):
    actual = call(tiny().cuda(), images(2).cuda())
    assert actual.is_cuda
    close(actual.cpu(), call(tiny(), images(2)), atol=1e-6)


def test_bad_arguments_are_refused():
    options = {"mode": "responses", "normalize_layers": "none", "score": "odds"}
    arguments = {"model": tiny(), "x": images(2)}
    for x, target, top, layers in ((images(1)[0], 7, 0, ["1", "99"]), (images(2)[:, :2], [0, 1, 2], 8, [])):
        refuses(saliency_map, arguments, x=x, top=top, layers=layers, **options)
        for method in (attention_map, attention_steps):
            refuses(method, arguments | {"target": 0}, x=x, target=target, layers=layers, **options)


@pytest.mark.parametrize("layers", ["11", "8", ["1", "10"], "11#*"])
@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_layers_without_feature_maps_are_refused(layers, mode):
    with pytest.raises(ValueError, match=r"^layers.*feature maps"):
        attention_map(tiny(), images(2), 0, layers=layers, mode=mode)


@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_layers_with_rows_of_tokens_are_refused(mode):
    # (B, C, L), as transformers give: no axis of them is the channels of a map
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9 * 11, 7)).double()
    with pytest.raises(ValueError, match=r"^layers.*feature maps"):
        attention_map(net, images(4), 0, layers="2", mode=mode)


@pytest.mark.parametrize("act", [nn.Tanh, nn.SiLU, nn.Identity])
def test_a_network_without_relus_is_refused(act):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)).double()
    for call in CALLS.values():
        with pytest.raises(
            ValueError,
            match=r"^model must have nn.ReLU modules with feature maps, or layers name others, got none; .*'1'",
        ):
            call(net, images(1))
    assert attention_map(net, images(1), 0, layers="1").shape == (1, 11, 13)


def test_relus_with_a_ceiling_count_as_relus():
    net, x = nn.Sequential(*[nn.ReLU6() if isinstance(layer, nn.ReLU) else layer for layer in tiny()]), 9 * images()
    net[0].weight.data *= 9  # so that some reach the ceiling of 6
    close(
        attention_map(net, x, 3), slow_attentions(net, x, [[3]] * 2, picked=lambda _, m: isinstance(m, nn.ReLU6))[:, 0]
    )
    steps = attention_steps(net, x, 3)
    assert list(steps.masks) == ["1", "4", "6"]
    assert steps.masks["1"].logical_not().any()


def test_relus_that_are_functions_are_no_layers_but_the_refusal_names_some():
    net, x, names = Functional(), images(), ["layers.0", "layers.2", "layers.3"]
    with pytest.raises(ValueError, match=r"or layers name others, got none; .*'layers.0', 'layers.1', 'layers.2'"):
        attention_map(net, x, 3)
    expected = slow_attentions(net, x, [[3]] * 2, picked=lambda name, _: name in names)[:, 0]
    close(attention_map(net, x, 3, layers=names), expected)


def test_a_network_with_relus_on_vectors_only_is_refused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 11 * 13, 5), nn.ReLU(), nn.Linear(5, 6)).double()
    with pytest.raises(ValueError, match="feature maps"), assert_untouched(net):
        attention_map(net, images(1), 0)


def test_a_network_has_to_give_logits():
    net = nn.Sequential(*tiny(), nn.Unflatten(1, (7, 1, 1)))
    with pytest.raises(ValueError, match=r"^model must return logits"), assert_untouched(net):
        attention_map(net, images(1), 0)


def test_one_class_has_no_rivals():
    net = nn.Sequential(*tiny(), nn.Linear(7, 1)).double()
    with pytest.raises(ValueError, match="two classes"), assert_untouched(net):
        attention_map(net, images(1), 0)
    assert attention_map(net, images(1), 0, score="logit").shape == (1, 11, 13)


def test_maps_of_one_place_and_tables_are_left_out():
    torch.manual_seed(0)
    squeezed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    swin = torchvision.models.swin_v2_t(num_classes=7).eval()
    for net, x in ((squeezed, torch.rand(1, 3, 8, 8)), (swin, torch.rand(1, 3, 64, 64))):
        with pytest.raises(ValueError, match=r"model must have nn.ReLU modules with feature maps, .*got none"):
            attention_map(net, x, 1)
    torch.manual_seed(0)
    net = torchvision.models.regnet_y_400mf(num_classes=5).eval()  # its gates have ReLUs of one place
    steps = attention_steps(net, torch.rand(2, 3, 64, 64), 1)
    assert min(mask[0].numel() for mask in steps.masks.values()) > 1
