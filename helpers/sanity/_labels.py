"""The data randomisation test: a network that could only learn its images by heart."""

import torch
from torch import Tensor, nn

from helpers._validate import check_tensor, seeded
from helpers.sanity._randomization import cascading_randomization
from helpers.training import fit


def permuted_labels(labels: Tensor, seed: int = 0) -> Tensor:
    """The same labels in another order: how often each class occurs stays, what it has to do with an image goes.

    Args:
        labels: (N,).
        seed: of the order; the same on every device.

    Returns:
        (N,).

    Raises:
        ValueError: a seed that is no integer from 0 on.
    """
    check_tensor(labels, "labels", "N", kind="real", empty=True)
    order = torch.randperm(len(labels), generator=seeded(seed), device="cpu")
    return labels[order.to(labels.device)]


def permuted_label_network(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """The data randomisation test's network: of the same build, trained from scratch on permuted labels.

    It can only learn its images by heart. A map that explains what was learned must differ from the one of a network
    that was trained on the true labels.

    Args:
        model: a network whose layers with weights have `reset_parameters`; it is left as it was found.
        x: training images, (N, C, H, W), normalised as the network expects.
        labels: (N,) int64, the true labels.
        epochs: passes over the images; learning by heart takes many.
        lr: Adam's learning rate.
        seed: of the permutation, the new weights and the order of the images.
        progress: show a progress bar.

    Returns:
        The network, in evaluation mode, on the device of `model`. `helpers.training.accuracy` with
        `permuted_labels(labels, seed)` tells how much of it was learned.

    Raises:
        ValueError: a network that cannot be drawn anew, or what `helpers.training.fit` refuses.

    Source: Adebayo et al. 2018, section 3.3.
    """
    *_, (_, network) = cascading_randomization(model, seed=seed)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    fit(network, x, permuted_labels(labels, seed), epochs=epochs, lr=lr, seed=seed, progress=progress)
    return network.eval()
