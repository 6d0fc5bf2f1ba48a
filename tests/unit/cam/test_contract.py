"""What all maps of the room promise: targets, batches, one forward, and a network left as it was found."""

from functools import partial

import pytest
import torch
from support.cam import Spy, batch, close, ended, mixed
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.cam import Head, class_activation_map, grad_cam, hires_cam, layer_cam, pooling_head, score_cam

METHODS = {
    "class_activation_map": class_activation_map,
    "grad_cam": partial(grad_cam, layer="layer4"),
    "signed grad_cam": partial(grad_cam, layer="layer4.0", relu=False),
    "hires_cam": partial(hires_cam, layer="layer4"),
    "layer_cam": partial(layer_cam, layer="layer4"),
    "score_cam": partial(score_cam, layer="layer4"),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
CALLS = {"pooling_head": lambda net, x, _target: pooling_head(net, x)} | METHODS
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_method
def test_k_targets_equal_single_ones(method):
    net, x = ended(), batch()
    several = method(net, x, torch.tensor([[0, 2, 3], [2, 1, 2]]))
    assert several.shape == (2, 3, 4, 4)
    for k, target in enumerate(([0, 2], [2, 1], [3, 2])):
        close(several[:, k], method(net, x, torch.tensor(target)))
    close(method(net, x, 1), method(net, x, [1, 1]))
    single = method(net, x, [[1], [1]])
    assert single.shape == (2, 1, 4, 4)
    close(single[:, 0], method(net, x, 1))
    assert not torch.allclose(several[:, 0], several[:, 1])


@each_method
def test_an_image_is_explained_alone_as_in_its_batch(method):
    net, x = ended(), batch(3)
    together = method(net, x, [1, 0, 3])
    for b, c in enumerate([1, 0, 3]):
        close(method(net, x[b : b + 1], c), together[b : b + 1])


@each_method
def test_one_network_takes_images_of_several_sizes(method):
    for size in [(8, 8), (4, 12), (11, 6)]:
        assert method(ended(), batch(2, *size), 1).shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2)


@each_call
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_detached_and_of_the_images_dtype(call, dtype):
    net, x = ended().to(dtype), batch().to(dtype).requires_grad_()
    actual = call(net, x, 1)
    for tensor in parts(actual):
        assert tensor.dtype == dtype
        assert tensor.device == x.device
        assert not tensor.requires_grad
    assert x.grad is None


@each_call
def test_the_callers_images_are_left_alone(call):
    net, x = ended(), batch()
    net.layer1.insert(0, nn.ReLU(inplace=True))
    call(net, x, 1)
    assert torch.equal(x, batch())


def parts(result):
    return result[:4] if isinstance(result, Head) else [result]


@each_call
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(call, context):
    expected = call(ended(), batch(), 1)
    net, x = ended(), batch()
    with context():
        actual = call(net, x, torch.tensor([1, 1]))
    for a, b in zip(parts(actual), parts(expected), strict=True):
        close(a.clone(), b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_method
def test_a_network_on_the_gpu_gives_the_same(method):
    for target in (torch.tensor([0, 2]), torch.tensor([0, 2]).cuda(), [[0, 1], [2, 3]]):
        actual = method(ended().cuda(), batch().cuda(), target)
        assert actual.is_cuda
        torch.testing.assert_close(actual.cpu(), method(ended(), batch(), torch.as_tensor(target).cpu()))


# the network is left as it was found


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net, batch(), [[0, 1]] * 2)
    assert torch.overrides._get_current_function_mode_stack() == []  # nobody looks on any more


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = mixed()
    net.behind.append(Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, batch(), 1)
    assert torch.overrides._get_current_function_mode_stack() == []  # nobody looks on any more


@each_call
def test_the_network_is_looked_at_in_evaluation_mode(call):
    actual = [call(net, batch(), 1) for net in (mixed(), mixed(), mixed().eval())]
    for other in actual[1:]:
        assert all(torch.equal(a, b) for a, b in zip(parts(actual[0]), parts(other), strict=True))


# how much is computed


@each_call
@pytest.mark.parametrize("target", [1, [[0, 1, 2, 3]] * 2])
def test_one_forward_whatever_the_number_of_classes(call, target):
    if call is METHODS["score_cam"]:
        pytest.skip("it shows the network an image for each map: tests/unit/cam/test_relatives.py counts them")
    net = ended()
    first, last = Spy(), Spy()
    net.layer1.insert(0, first)
    net.behind.append(last)
    call(net, batch(), target)
    assert (first.calls, last.calls) == (1, 1)


@each_call
def test_what_gives_no_logits_is_refused(call):
    with pytest.raises(ValueError, match=r"^model must return logits \(B, classes\)"):
        call(ended()[:2], batch(), 1)


# what all of them refuse; the checks themselves are tested in test_validate.py


@each_call
def test_bad_images_are_refused(call):
    refuses(lambda model, x: call(model, x, 1), {"model": mixed()}, x=batch()[0])
    refuses(lambda model, x: call(model, x, 1), {"model": mixed()}, x=batch()[:, :2])


@each_method
def test_bad_targets_are_refused(method):
    for target in (99, [1, 1, 1]):
        refuses(lambda model, target: method(model, batch(), target), {"model": mixed()}, target=target)
