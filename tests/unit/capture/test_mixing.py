"""Networks in which the images of a batch influence each other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.capture import logits
from helpers.saliency import input_gradient

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """What comes between a convolution and a linear layer is up to the test: maps (B, 8, 4, 4) to (B, 8)."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.between, self.fc = nn.Conv2d(3, 8, 2, 2), between, nn.Linear(8, 5)
        self.lstm, self.attention = nn.LSTM(8, 8), nn.MultiheadAttention(8, 2)

    def forward(self, x):
        return self.fc(self.between(self, self.conv(x)))


def means(maps):
    return maps.mean((2, 3))


def tokens(maps):
    return maps.flatten(2).mT  # (B, 16, 8)


MIXING = {
    "centred": lambda _, y: means(y) - means(y).mean(0),
    "centred, detached": lambda _, y: means(y) - means(y).mean(dim=0, keepdim=True).detach(),
    "largest": lambda _, y: means(y / y.abs().max()),
    "normalised": lambda _, y: F.normalize(means(y), dim=0),
    "contrasted": lambda _, y: (means(y) @ means(y).T).softmax(1) @ means(y),
    "similarities": lambda _, y: F.cosine_similarity(means(y)[:, None], means(y)[None], dim=2) @ means(y),
    "Einstein": lambda _, y: means(y) + torch.einsum("bc,bd->cd", means(y), means(y))[0],
    "batch statistics": lambda _, y: means(F.batch_norm(y, None, None, training=True).relu()),
    "shifted": lambda _, y: means(y) + means(y).roll(1, 0),
    "attention over images": lambda net, y: net.attention(tokens(y), tokens(y), tokens(y))[0].mean(1),
    "images as a sequence": lambda net, y: net.lstm(tokens(y))[0][:, -1],
    "products": lambda _, y: F.scaled_dot_product_attention(*[tokens(y).transpose(0, 1)] * 3).mean(0),
}
APART = {
    "plain": lambda _, y: means(y),
    "attention": lambda net, y: net.attention(*[tokens(y).transpose(0, 1)] * 3)[0].mean(0),
    "a sequence": lambda net, y: net.lstm(tokens(y).transpose(0, 1))[0][-1],
    "table": lambda _, y: ((tokens(y) @ tokens(y).mT).softmax(-1) @ tokens(y)).mean(1),
    "normalised": lambda _, y: F.normalize(means(F.instance_norm(y) - y.mean(1, keepdim=True))),
    "rolled": lambda _, y: means(torch.roll(y, shifts=(1, 1), dims=(2, 3))),
    "windows": lambda _, y: y.unflatten(3, (2, 2)).movedim(3, 1).flatten(0, 1).mean((2, 3)).view(len(y), 2, 8).mean(1),
    "one by one": lambda _, y: torch.stack([means(y[i : i + 1])[0] for i in range(len(y))]),
    "Einstein": lambda _, y: torch.einsum("bnc,bmc->bnc", tokens(y), tokens(y)).mean(1),
}


@pytest.mark.parametrize("between", MIXING.values(), ids=MIXING)
def test_networks_that_mix_images_are_refused_and_take_one_at_a_time(between):
    net = Net(between).eval()
    for images in (X, X[:1].expand(2, -1, -1, -1)):
        with pytest.raises(
            ValueError, match=r"images of a batch independently.* one image a pass \(x\[:1\], batch_size=1\)"
        ):
            logits(net, images)
    with torch.no_grad():
        torch.testing.assert_close(logits(net, X[:1]), net(X[:1]))


@pytest.mark.parametrize("count", [2, 4, 8, 16])  # as many images as there are heads, rows, channels, tokens
@pytest.mark.parametrize("between", APART.values(), ids=APART)
def test_networks_that_do_not_are_taken(between, count):
    net, x = Net(between).eval(), X.repeat(count // 2, 1, 1, 1).requires_grad_()
    expected = torch.autograd.grad(net(x)[:, 1].sum(), x)[0]
    torch.testing.assert_close(input_gradient(net, x, 1), expected)


def test_it_is_looked_for_once_and_costs_no_forward():
    net, sizes = Net(APART["plain"]).eval(), []
    net.conv.register_forward_hook(lambda _module, _inputs, output: sizes.append(len(output)))
    for _ in range(2):
        logits(net, X)
    assert sizes == [2, 2]


def test_a_suspicion_that_numbers_do_not_bear_out_is_dropped():
    net = Net(lambda _, y: means(y) + 0 * means(y).mean(0)).eval()
    assert torch.equal(logits(net, X), net(X))
