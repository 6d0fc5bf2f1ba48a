"""Answers that the exercises' checks must refuse, by exercise: the mistakes that readers make."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.networks import LeNet


def flipped(image, kernel):
    return F.conv2d(image[None, None], kernel.flip(0, 1)[None, None])[0, 0]


def padded(image, kernel):
    return F.conv2d(image[None, None], kernel[None, None], padding=1)[0, 0]


def swapped(image, kernel):
    return F.conv2d(image[None, None], kernel.T[None, None])[0, 0]


def square_only(image, kernel):
    side = image.shape[0] - kernel.shape[0] + 1
    return F.conv2d(image[None, None], kernel[None, None])[0, 0, :side, :side]


def three_by_three_only(image, kernel):
    result = torch.zeros(image.shape[0] - 2, image.shape[1] - 2)
    for u in range(3):
        for v in range(3):
            result += kernel[u, v] * image[u : u + result.shape[0], v : v + result.shape[1]]
    return result


def writes_into_the_image(image, kernel):
    made = F.conv2d(image[None, None], kernel[None, None])[0, 0]
    image[: made.shape[0], : made.shape[1]] = made
    return made


def not_a_number(image, kernel):
    return F.conv2d(image[None, None], kernel[None, None])[0, 0] * float("nan")


def stride_of_its_own(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        size += (kernel - 1) * step
    return size


def strides_forgotten(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def kernels_added(layers):
    return sum(kernel for kernel, _ in layers)


def last_layer_only(layers):
    return layers[-1][0]


def naive_loss(logits, labels):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


def one_maximum_for_the_batch(logits, labels):
    safe = logits - logits.max()
    return (safe.exp().sum(1).log() - safe[torch.arange(len(labels)), labels]).mean()


def one_image(model_pool):
    return nn.Sequential(LeNet().features, model_pool, nn.Flatten(), nn.LazyLinear(10))


def blind_to_everything():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))
    nn.init.zeros_(model[2].weight)
    return model


WRONG_ANSWERS = {
    "1.1": [
        lambda: (3, 224),
        lambda: (5, 224),
        lambda: (7, 224),
        lambda: (4, 80),
        lambda: (4, 216),
        lambda: (4, 219),
        lambda: 4,
        lambda: (4, 224, 0),
        lambda: None,
        lambda: (224, 4),
        lambda: ((4, 4), 224),
    ],
    "1.2": [
        lambda: ("23", 212),  # 100 pixels
        lambda: ("25", 212),  # not the first
        lambda: ("24", 196),  # the last ReLU
        lambda: ("24", 32),  # the stride
        lambda: ("conv5_1", 212),
        lambda: "24",
    ],
    "1.3": [
        flipped,
        padded,
        swapped,
        square_only,
        three_by_three_only,
        writes_into_the_image,
        not_a_number,
        lambda image, kernel: image,
        lambda image, kernel: None,
        lambda image, kernel: torch.zeros(image.shape[0] - kernel.shape[0] + 1, image.shape[1] - kernel.shape[1] + 1),
    ],
    "1.4": [
        lambda: torch.ones(3, 3),
        lambda: torch.ones(3, 3).tril(-1),
        lambda: torch.ones(3, 3).triu(1) - torch.ones(3, 3).tril(-1),  # the bright side at the upper right
        lambda: torch.tensor([[-1.0, 0, 1]] * 3),
        lambda: torch.tensor([[-1.0, 0, 1]] * 3).T,
        lambda: torch.zeros(3, 3),
        lambda: torch.ones(2, 2),
        lambda: [[0, -1, -1], [1, 0, -1], [1, 1, 0]],
    ],
    "1.5": [stride_of_its_own, strides_forgotten, kernels_added, last_layer_only, lambda layers: 16],
    "1.6": [
        lambda: (torch.eye(2), torch.eye(2)),
        lambda: (2 * torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 0], [0, 1]])),  # the text's own pair
        lambda: (torch.tensor([[0.0, 0], [0, 1]]), torch.tensor([[1.0, 0], [0, 0]])),
        lambda: (torch.tensor([[3.0, 0], [0, 0]]), torch.tensor([[2.0, 1], [0, 0]])),
        lambda: (torch.zeros(2, 2), torch.ones(2, 2)),
        lambda: (torch.rand(4, 4), torch.rand(4, 4)),
        lambda: torch.eye(2),
        lambda: (torch.full((2, 2), float("nan")), torch.eye(2)),
    ],
    "1.7": [
        naive_loss,
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
        lambda logits, labels: -F.cross_entropy(logits, labels),
        lambda logits, labels: F.cross_entropy(logits.softmax(1), labels),
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
        lambda logits, labels: F.cross_entropy(logits.clamp(-20, 20), labels),
        lambda logits, labels: F.cross_entropy(logits, labels.roll(1)),
        one_maximum_for_the_batch,
    ],
    "1.8": [
        LeNet,
        lambda: one_image(nn.Identity()),
        lambda: one_image(nn.AdaptiveAvgPool2d(2)),
        blind_to_everything,
        lambda: nn.Sequential(LeNet().features, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        lambda: nn.Sequential(
            LeNet().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 900), nn.Linear(900, 10)
        ),
        lambda: "GAP",
        lambda: nn.Sequential(
            LeNet().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.Softmax(dim=1)
        ),
    ],
}
