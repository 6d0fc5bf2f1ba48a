"""RISE: what a score is on average where a pixel is seen, over random masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import Target, check_count, check_fill, check_images, check_number, seeded
from helpers.capture import Score, chosen_classes, chunks, class_scores, logits
from helpers.device import widened

MASKS, CELLS, KEEP = 4000, 7, 0.5  # of Petsiuk et al., for VGG-16


def rise(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    masks: int = MASKS,
    cells: int = CELLS,
    keep: float = KEEP,
    fill: float | Tensor = 0.0,
    score: Score = "probability",
    batch_size: int | None = None,
    seed: int = 0,
) -> Tensor:
    """RISE: at each pixel the mean score over the random masks that leave it visible.

    Implements :eq:`eq-rise`: A_c(u) = sum_i P_c(m_i x) m_i(u) / (keep N), chapter 2. All images and classes share the
    masks, so that K classes of an image cost no more passes than one. Nothing is differentiated.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        masks: N, how many; each is one pass for each image.
        cells: of a mask, along each side of the image; each is seen or not, and the mask is smooth between them.
        keep: probability that a cell is seen, (0, 1).
        fill: what is seen where a mask is 0: a number, or images that broadcast to x.
        score: what is averaged, the class's "probability" as in the source, its "logit" or its "log-odds".
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.
        seed: of the masks; the same on every device.

    Returns:
        Maps, (B, H, W) or (B, K, H, W), in the unit of the score; of a probability not negative. They differ from seed
        to seed, by less the more masks there are.

    Raises:
        ValueError: bad `x` or `target`, masks or cells below 1, keep outside (0, 1), a fill that does not fit, an
            unknown score, or a network with one class after the softmax.

    Source: Petsiuk, Das, Saenko, "RISE: randomized input sampling for explanation of black-box models", BMVC 2018.
    """
    count, cells = check_count(masks, "masks"), check_count(cells, "cells")
    keep = check_number(keep, "keep", 0, 1, above=True)
    cover, size = check_fill(fill, check_images(x)), (x.shape[-2], x.shape[-1])
    full = torch.cat([logits(model, x[part]) for part in chunks(len(x), batch_size, x)])
    classes, several = chosen_classes(target, full)  # (B, K)
    wide = widened(x)
    draw = drawn_masks(count, size, cells, keep, seed, wide.dtype)
    total = wide.new_zeros(*classes.shape, *size)
    for part in chunks(count, batch_size, x):
        drawn = draw(part.cpu()).to(wide)  # (n, H, W)
        for b in range(len(x)):
            seen = torch.lerp(cover[b].to(wide), wide[b], drawn[:, None]).to(x.dtype)  # (n, C, H, W)
            scores = class_scores(logits(model, seen), classes[b].expand(len(part), -1), score)  # (n, K)
            total[b] += torch.einsum("nk,nhw->khw", scores.to(wide), drawn)
    maps = (total / (keep * count)).to(x.dtype)
    return maps if several else maps[:, 0]


def drawn_masks(
    count: int, size: tuple[int, int], cells: int, keep: float, seed: int, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """Smooth random masks: cells that are seen or not, stretched over a little more than the image, cut at random.

    Args:
        count: how many.
        size: (H, W) of the images.
        cells: along each side.
        keep: probability that a cell is seen.
        seed: of what is drawn.
        dtype: of the masks.

    Returns:
        A function from the numbers of some masks, (n,), to these masks, (n, H, W) in [0, 1], on the CPU.
    """
    numbers = seeded(seed)
    seen = torch.rand(count, 1, cells, cells, generator=numbers, dtype=torch.float32, device="cpu") < keep
    high, wide = (-(-side // cells) for side in size)  # of a cell, in pixels, rounded up
    down, right = (torch.randint(0, side, (count,), generator=numbers, device="cpu") for side in (high, wide))
    whole = ((cells + 1) * high, (cells + 1) * wide)

    def masks(part: Tensor) -> Tensor:
        large = F.interpolate(seen[part].to(dtype), whole, mode="bilinear", align_corners=False)[:, 0].clamp_(0, 1)
        cuts = zip(large, down[part].tolist(), right[part].tolist(), strict=True)
        return torch.stack([mask[i : i + size[0], j : j + size[1]] for mask, i, j in cuts])

    return masks
