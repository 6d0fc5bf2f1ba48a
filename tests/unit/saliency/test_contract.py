"""What all methods of the room promise: targets, batches, passes, and a network left as it was found."""

from functools import partial

import pytest
import torch
from support.refuses import refuses
from support.saliency import REGIONS, batch, tiny
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.saliency import (
    class_model,
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    occlusion,
    region_occlusion,
    rise,
    smooth_gradient,
)

METHODS = {
    "input_gradient": input_gradient,
    "input_gradient of the probability": partial(input_gradient, score="probability"),
    "class_saliency": class_saliency,
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": partial(integrated_gradients, steps=3),
    "smooth_gradient": partial(smooth_gradient, samples=3),
    "guided_backprop": guided_backprop,
    "occlusion": partial(occlusion, window=3, stride=2),
    "rise": partial(rise, masks=5, cells=3),
    "region_occlusion": partial(region_occlusion, regions=REGIONS),
}
IN_PASSES = {
    name: METHODS[name] for name in ("integrated_gradients", "smooth_gradient", "occlusion", "rise", "region_occlusion")
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_method_in_passes = pytest.mark.parametrize("method", IN_PASSES.values(), ids=IN_PASSES)


@each_method
def test_k_targets_equal_single_ones(method):
    net, x = tiny(), batch()
    several = method(net, x, torch.tensor([[0, 2], [2, 1]]))
    for k, target in enumerate(([0, 2], [2, 1])):
        torch.testing.assert_close(several[:, k], method(net, x, torch.tensor(target)))
    torch.testing.assert_close(method(net, x, 1), method(net, x, [1, 1]))
    torch.testing.assert_close(method(net, x, [[1], [1]])[:, 0], method(net, x, 1))
    assert not torch.allclose(several[:, 0], several[:, 1])


@each_method
def test_an_image_is_explained_alone_as_in_its_batch(method):
    special = {METHODS["smooth_gradient"]: {"noise": 0.0}, METHODS["region_occlusion"]: {"regions": REGIONS[1:]}}
    net, x, options = tiny(), batch(3), special.get(method, {})
    alone = method(net, x[:1], 1, **options)
    torch.testing.assert_close(alone, method(net, x, 1, **options)[: len(alone)])


@each_method
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(method, context):
    net, expected = tiny(), method(tiny(), batch(), 1)
    with context():
        torch.testing.assert_close(method(net, batch(), 1), expected)


@each_method
def test_results_are_detached_and_the_callers_images_left_alone(method):
    net, x = nn.Sequential(nn.ReLU(inplace=True), *tiny()), batch().requires_grad_()
    actual = method(net, x, 1)
    assert not actual.requires_grad
    assert x.grad is None
    assert torch.equal(x, batch())


@each_method
def test_dtype_is_kept(method):
    assert method(tiny(), batch(), 1).dtype == torch.float64
    assert method(tiny().float(), batch().float(), 1).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_method
def test_a_network_on_the_gpu_gives_the_same(method):
    actual = method(tiny().cuda(), batch().cuda(), torch.tensor([0, 2]))
    assert actual.is_cuda
    torch.testing.assert_close(actual.cpu(), method(tiny(), batch(), [0, 2]))


# integrated gradients and SmoothGrad


@each_method_in_passes
def test_the_size_of_a_pass_does_not_change_the_result(method):
    net, x = tiny(), batch(3)
    expected = method(net, x, [[0, 1]] * 3)
    for batch_size in (1, 2, 4, 5, 1000):
        torch.testing.assert_close(method(net, x, [[0, 1]] * 3, batch_size=batch_size), expected)


@each_method_in_passes
@pytest.mark.parametrize(
    ("count", "batch_size", "most"), [(3, 1, 1), (3, 2, 2), (3, 5, 5), (3, None, 8), (11, None, 11)]
)
def test_no_pass_sees_more_images_than_asked_for(method, count, batch_size, most):
    net, seen = tiny(), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    method(net, batch(count), 1, batch_size=batch_size)
    assert max(seen) <= most


class First(nn.Module):
    def forward(self, x):
        return x.relu()[:1].flatten(1)


@each_method
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (tiny()[:2], r"got \(\d, 4, 5, 5\)"),
        (First(), r"got \(1, 147\)"),
        (nn.Sequential(*tiny(), nn.Flatten(0)), r"got \(\d+,\)"),
        (nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d(1, return_indices=True)), "got tuple"),
    ],
)
def test_a_network_without_logits_is_refused(method, net, message):
    with pytest.raises(ValueError, match=rf"^model must return logits \(B, classes\).*{message}"):
        method(net, batch(), 0)


# the network is left as it was found


def mixed():
    """Mixed modes, a frozen parameter, a filled .grad, an in-place ReLU, and hooks of the user."""
    net = nn.Sequential(*tiny(act=partial(nn.ReLU, inplace=True)), nn.Dropout(0.5), nn.BatchNorm1d(3).double()).train()
    net[6].eval()
    net[0].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[3].register_forward_hook(lambda *_: None)
    net[0].register_forward_pre_hook(lambda *_: None)
    return net


CALLS = {name: partial(method, x=batch(), target=[[0, 1]] * 2) for name, method in METHODS.items()}
CALLS["class_model"] = partial(class_model, target=[0, 1], shape=(3, 7, 7), steps=2)
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net)


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = nn.Sequential(*mixed(), Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net)


@each_call
def test_the_network_is_looked_at_in_evaluation_mode(call):
    actual, again, frozen = call(mixed()), call(mixed()), call(mixed().eval())
    for other in (again, frozen):
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (actual, other)), strict=True):
            assert torch.equal(a, b)


# what every method refuses; the checks themselves are tested in test_validate.py


@each_method
def test_bad_arguments_are_refused(method):
    refuses(method, {"model": tiny(), "x": batch(), "target": 1}, x=batch()[0], target=3)
    refuses(method, {"model": tiny(), "x": batch(), "target": 1}, x=batch().float(), target=[0, 1, 2])


@each_method_in_passes
def test_a_bad_batch_size_or_fill_is_refused(method):
    arguments = {"model": tiny(), "x": batch(), "target": 1}
    refuses(method, arguments, batch_size=0)
    if method in (METHODS["occlusion"], METHODS["region_occlusion"]):
        refuses(method, arguments, fill=torch.zeros(4, 7, 7))
