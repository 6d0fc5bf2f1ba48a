import functools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from support.untouched import Boom
from torch import nn

from helpers.device import seed_everything
from helpers.training import LossError, accuracy, fit, fit_batches, predict, share_right, topk_correct


def blobs(n=200, seed=0):
    """Two classes told apart by the brighter half."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = 0.1 * torch.randn(n, 1, 4, 4, generator=draw)
    images[labels == 0, :, :2] += 1
    images[labels == 1, :, 2:] += 1
    return images, labels


def linear():
    seed_everything(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 2))


def test_it_learns_and_lowers_the_loss():
    images, labels = blobs()
    model = linear()
    before = accuracy(model, images, labels)
    losses = fit(model, images, labels, epochs=5, lr=0.05, batch_size=32, progress=False)
    assert len(losses) == 5 * 7
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy(model, *blobs(seed=1)) == 1.0 > before


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not():
    images, labels = blobs()

    def run(seed):
        return fit(linear(), images, labels, epochs=1, batch_size=32, seed=seed, progress=False)

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize(
    ("loss", "decay"), [(None, 0.1), (lambda a, b: (a.log_softmax(1)[:, 0] - b).abs().sum(), 0.0)], ids=["usual", "own"]
)
def test_every_step_is_an_adam_step_on_the_loss(loss, decay):
    images, labels = blobs(8)
    ours, by_hand = (nn.Sequential(nn.Flatten(), nn.Linear(16, 2)) for _ in range(2))
    by_hand.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "weight_decay": decay}
    losses = fit(ours, images, labels, epochs=3, batch_size=8, progress=False, loss=loss, **options)
    adam, expected = torch.optim.Adam(by_hand.parameters(), **options), []
    for _ in range(3):  # a batch of everything: its order does not matter
        logits = by_hand(images)
        value = loss(logits, labels) if loss else -logits.log_softmax(1)[torch.arange(8), labels].mean()
        adam.zero_grad()
        value.backward()
        adam.step()
        expected.append(value.item())
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours[1].weight, by_hand[1].weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_left_as_found_also_after_an_error(mode):
    images, labels = blobs(8)
    model = linear().train(mode)
    model[1].training = not mode

    def unchanged():
        return model.training == mode and [module.training for module in model] == [mode, not mode, mode]

    for shown, outcome in (
        (images, nullcontext()),
        (images[:, :, :3], pytest.raises(ValueError, match="images must fit")),
    ):
        with outcome:
            fit(model, shown, labels, epochs=1, progress=False)
        assert unchanged()
        with outcome:
            predict(model, shown)
        assert unchanged()


def test_predictions_use_evaluation_mode_and_do_not_depend_on_the_batch():
    images, _ = blobs(10)
    model = linear().train()
    once = predict(model, images)
    assert not once.requires_grad
    torch.testing.assert_close(predict(model, images, batch_size=3), once)
    torch.testing.assert_close(predict(model, images / 2, batch_size=3, prepare=lambda x: 2 * x), once)


def test_the_label_among_the_largest_logits():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, float("-inf"), 2.0, 1.0]])
    labels = torch.tensor([1, 0])
    assert [topk_correct(logits, labels, k).tolist() for k in (1, 2, 3, 4)] == [
        [False, False], [True, False], [True, True], [True, True],
    ]  # fmt: skip
    assert topk_correct(logits, torch.tensor([0, 2])).tolist() == [True, True]
    assert [share_right(logits, labels, k) for k in (1, 2, 3, 4)] == [0, 0.5, 1, 1]
    assert share_right(logits, torch.tensor([0, 1])) == 0.5
    views = torch.stack([logits, logits.flip(1)], dim=1)  # two images, two views
    assert topk_correct(views, labels[:, None], 2).tolist() == [[True, False], [False, True]]
    for k in (0, 5, 1.5):
        with pytest.raises(ValueError, match=r"^k must be an integer in 1 \.\. 4"):
            topk_correct(logits, labels, k)


# --- a loss of one's own ----------------------------------------------------------------------------------------------


def vectors(n=8, seed=0):
    """Inputs (N, 3) and what a linear map makes of them, (N, 2)."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 3, generator=draw)
    return inputs, inputs @ torch.tensor([[1.0, 2], [0, -1], [3, 0]])


def regression():
    seed_everything(0)
    return nn.Linear(3, 2)


def test_it_learns_what_the_loss_asks_for():
    inputs, targets = vectors(200)
    model = regression()
    losses = fit(model, inputs, targets, epochs=40, lr=0.1, batch_size=50, progress=False, loss=F.mse_loss)
    assert len(losses) == 160
    assert losses[-1] < 1e-3 < losses[0]
    torch.testing.assert_close(model.weight.T, torch.tensor([[1.0, 2], [0, -1], [3, 0]]), atol=0.05, rtol=0)


def test_the_cross_entropy_by_name_is_the_loss_that_is_taken_without_one():
    images, labels = blobs(40)
    expected = fit(linear(), images, labels, epochs=2, batch_size=16, progress=False)
    assert fit(linear(), images, labels, epochs=2, batch_size=16, progress=False, loss=F.cross_entropy) == expected
    assert fit(linear(), images, labels, epochs=2, batch_size=16, progress=False, loss=None) == expected


def test_outputs_meet_their_own_targets_in_the_same_order_as_ever():
    inputs = torch.arange(10.0)[:, None]
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    met = []

    def loss(outputs, targets):
        assert outputs.requires_grad
        met.append((outputs.detach().flatten().tolist(), targets.tolist()))
        return 0 * outputs.sum()

    # Targets may be of any kind: integers beyond every logit, here.
    assert (
        fit(model, inputs, torch.arange(10) + 100, epochs=2, batch_size=4, seed=5, progress=False, loss=loss)
        == [0.0] * 6
    )
    order = torch.Generator().manual_seed(5)
    for epoch in (met[:3], met[3:]):
        assert [len(targets) for _, targets in epoch] == [4, 4, 2]
        expected = torch.randperm(10, generator=order).tolist()
        assert [t - 100 for _, targets in epoch for t in targets] == expected
        assert [o for outputs, _ in epoch for o in outputs] == expected


def test_targets_may_be_maps():
    images = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    model, before = nn.Conv2d(1, 1, 3, padding=1), images.clone()
    losses = fit(model, images, 2 * images, epochs=30, lr=0.05, batch_size=6, progress=False, loss=F.mse_loss)
    assert losses[-1] < 0.2 * losses[0]
    assert images.equal(before)
    assert model.weight.is_contiguous()


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_left_as_found_also_when_the_loss_or_the_forward_raises(mode):
    def broken(outputs, targets):
        raise RuntimeError("boom")

    for model, loss in ((regression(), broken), (nn.Sequential(regression(), Boom()), F.mse_loss)):
        model.train(mode)
        seen = []
        model.register_forward_pre_hook(lambda module, _, seen=seen: seen.append(module.training))
        with pytest.raises(RuntimeError, match="boom"):
            fit(model, *vectors(), epochs=1, progress=False, loss=loss)
        assert seen == [True]
        assert all(module.training == mode for module in model.modules())


# --- the loop itself --------------------------------------------------------------------------------------------------


def test_the_loop_goes_on_where_it_stopped_and_tells_each_epoch():
    inputs, targets = vectors(12)

    def batches(epoch):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(epoch)).split(4)
        return ((inputs[rows], targets[rows]) for rows in order)

    def run(model, optimiser, schedule, first_epoch, epochs):
        epochs_met = []
        losses = fit_batches(
            model, batches, F.mse_loss, optimiser, schedule=schedule, epochs=epochs, steps=3, first_epoch=first_epoch,
            on_epoch=lambda epoch, values: epochs_met.append((epoch, values)), progress=False,
        )  # fmt: skip
        assert [epoch for epoch, _ in epochs_met] == list(range(first_epoch, epochs))
        assert [value for _, values in epochs_met for value in values] == losses
        return losses

    def parts():
        model = regression()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, optimiser, torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)

    whole, resumed = parts(), parts()
    expected = run(*whole, 0, 4)
    assert run(*resumed, 0, 2) + run(*resumed, 2, 4) == expected
    assert whole[2].get_last_lr() == pytest.approx([0.1 * 0.9**12])
    assert resumed[0].weight.equal(whole[0].weight)


def test_a_loss_that_is_not_finite_leaves_the_weights_before_that_step():
    model = regression()
    before = model.weight.clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(LossError, match="the loss became nan at step 0") as caught:
        fit_batches(
            model, lambda epoch: [vectors()], lambda a, b: (a - b).sum() * float("nan"), optimiser, epochs=3, steps=1,
            first_epoch=2, progress=False,
        )  # fmt: skip
    assert caught.value.epoch == 2
    assert model.weight.equal(before)


IMAGES, LABELS = blobs(8)
MSE = {"loss": F.mse_loss}
run = functools.partial(fit, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(linear(), IMAGES[0], LABELS), "images must"),
        (lambda: accuracy(linear(), IMAGES[0], LABELS), "images must"),
        (lambda: run(linear(), IMAGES, LABELS[:3]), "labels must"),
        (lambda: accuracy(linear(), IMAGES, LABELS[:3]), "labels must"),
        (lambda: run(linear(), IMAGES, LABELS.double()), "labels must"),
        (lambda: run(linear(), IMAGES, LABELS + 5), r"labels must lie in 0 \.\. 1, as the network has logits"),
        (lambda: run(linear(), IMAGES, LABELS - 100), r"labels must lie in 0 \.\. 1, as the network has logits"),
        (lambda: run(linear(), IMAGES * float("nan"), LABELS), "the loss became nan at step 0"),
        (lambda: accuracy(linear(), IMAGES * float("nan"), LABELS), ".*logits are NaN"),
        (lambda: run(nn.Flatten(), IMAGES, LABELS), ".*must have parameters"),
        (lambda: predict(nn.Flatten(), IMAGES), ".*must have parameters"),
        (lambda: run(linear(), IMAGES, LABELS, epochs=0), "epochs must be an integer of at least 1"),
        (lambda: run(linear(), IMAGES, LABELS, batch_size=0), "batch_size must be an integer of at least 1"),
        (lambda: predict(linear(), IMAGES, batch_size=0), "batch_size must be an integer of at least 1"),
        (lambda: run(regression(), vectors()[0], LABELS), "images must"),
        (lambda: run(regression(), *vectors(), epochs=0, **MSE), "epochs must be"),
        (lambda: run(nn.Identity(), *vectors(), **MSE), ".*must have parameters"),
        (lambda: run(regression(), vectors()[0], vectors(3)[1], **MSE), r"images and labels .*\(3, 2\)"),
        (lambda: run(regression(), torch.zeros(4), torch.zeros(4), **MSE), "images and labels"),
        (lambda: run(regression(), *vectors(), loss=lambda a, b: (a - b).sum() * float("inf")), "the loss became"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_a_single_logit_and_other_outputs_are_refused():
    images, labels = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    single = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    for use in (
        lambda: accuracy(single, images, labels),
        lambda: fit(single, images, labels, epochs=1, progress=False),
    ):
        with pytest.raises(
            ValueError, match=r"two classes at least, got 1, of which a softmax is always 1: .* a loss of"
        ):
            use()
    with pytest.raises(ValueError, match=r"model must return logits \(B, classes\)"):
        accuracy(nn.Conv2d(1, 2, 1), images, labels)
