"""More images than fit into one pass."""

import functools

import numpy as np
import torch
from support.capture import X, batch, by_hand, tiny
from support.refuses import refuses

from helpers.capture import chunks, gradients, in_batches, logits, preserved


def test_batches_are_joined_in_order():
    net, x = tiny(), batch(7)
    whole = logits(net, x)
    for size in (1, 2, 3, 7, 100):
        sizes = []
        with torch.no_grad(), preserved(net):
            net.register_forward_pre_hook(lambda _, inputs, sizes=sizes: sizes.append(len(inputs[0])))
            torch.testing.assert_close(in_batches(logits, net, x, batch_size=size), whole)
        assert sizes == [size] * (7 // size) + [7 % size] * (7 % size > 0)
    counts = in_batches(lambda _, part: torch.tensor([len(part)]), net, torch.zeros(201, 1, 1, 1))
    assert counts.tolist() == [100, 100, 1]


def test_tensors_as_long_as_the_images_are_cut_along_and_the_rest_is_handed_on():
    seen = []

    def method(model, part, *others):
        seen.append((model, part.flatten().tolist(), *others))
        return part.flatten()

    net, mixed, pair = object(), [1, 2, 3, 4], torch.arange(2)
    x = torch.arange(3.0).view(3, 1, 1, 1)
    number, rows = torch.tensor(5), torch.arange(6).view(3, 2)
    assert in_batches(method, net, x, x * 2, mixed, "abc", pair, number, rows, None, batch_size=2).tolist() == [0, 1, 2]
    assert [call[1] for call in seen] == [[0, 1], [2]]
    assert [call[2].flatten().tolist() for call in seen] == [[0, 2], [4]]
    assert [call[7].tolist() for call in seen] == [[[0, 1], [2, 3]], [[4, 5]]]
    for call in seen:
        assert call[0] is net
        assert call[3] is mixed
        assert call[4] == "abc"
        assert call[5] is pair
        assert call[6] is number
        assert call[8] is None


def test_options_of_a_batched_method_come_with_partial():
    net, x, target = tiny(), batch(3), torch.tensor([0, 2, 1])

    def gradient(model, part, classes, score):
        return gradients(model, part, classes, "0", score=score).gradients["0"]

    actual = in_batches(functools.partial(gradient, score="probability"), net, x, target, batch_size=2)
    torch.testing.assert_close(actual, gradient(net, x, target, "probability"))


def never(*_):
    raise AssertionError("called")


def test_bad_arguments_are_refused_before_anything_is_cut():
    arguments = {"method": never, "model": by_hand(), "x": X}
    refuses(in_batches, arguments, batch_size=0, x=X[0])
    refuses(in_batches, arguments, x=X / 0)
    refuses(lambda **options: list(chunks(**options)), {"count": 5, "x": X}, batch_size=1.5)


def parts(count, batch_size, images):
    return [part.tolist() for part in chunks(count, batch_size, X.expand(images, -1, -1, -1))]


def test_chunks_by_hand():
    assert parts(5, 2, 1) == [[0, 1], [2, 3], [4]]
    assert parts(4, np.int64(2), 9) == [[0, 1], [2, 3]]
    assert parts(3, 1, 9) == [[0], [1], [2]]
    assert parts(3, 100, 1) == [[0, 1, 2]]
    assert parts(10, None, 8) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    assert parts(10, None, 9) == [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9]]
    assert {part.dtype for part in chunks(3, 2, X)} == {torch.int64}


def test_lists_and_arrays_are_cut_and_a_number_a_colour_is_not():
    x = torch.rand(3, 3, 4, 4)
    fill = torch.rand(3, 1, 1)
    seen = []

    def method(model, part, *others):
        seen.append([len(other) for other in others])
        return part

    in_batches(method, None, x, [0, 1, 2], np.arange(3), fill, batch_size=2)
    assert seen == [[2, 2, 3], [1, 1, 3]]
