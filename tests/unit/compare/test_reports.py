"""Maps against known objects: every variant of LICNN and every baseline, and the test with two objects, by hand."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from support.licnn import KNOWN_VARIANTS, close, known_methods, noise, squares, tiny_network
from support.untouched import assert_untouched
from torch import nn

from helpers import compare
from helpers.licnn import attention_map, saliency_map
from helpers.metrics import blurred_map, center_map, edge_map, mass_in_mask, pixel_auc, pointing_game


def test_every_variant_and_baseline_is_measured():
    model, x, labels, masks = tiny_network(), noise(3, 3, 16, 16), torch.tensor([2, 0, 7]), squares(3, 16)
    with assert_untouched(model):
        scores = compare.compare_attention(model, x, labels, masks, layer="relu2")
    maps = {name: attention_map(model, x, labels, **options) for name, options in KNOWN_VARIANTS.items()}
    maps["saliency map, top 5"] = saliency_map(model, x, top=5)
    maps |= {name: known_methods("relu2")[name](model, x, labels) for name in ("|gradient|", "Grad-CAM")}
    maps |= {"centre": center_map(x), "blurred image": blurred_map(x), "edges": edge_map(x)}
    assert list(scores) == list(maps)
    for name, part in maps.items():
        assert list(scores[name]) == ["auc", "mass", "pointing"]
        close(scores[name]["auc"], pixel_auc(part, masks))
        close(scores[name]["mass"], mass_in_mask(part, masks))
        close(scores[name]["pointing"], pointing_game(part, masks))
    for k in range(3):
        auc = roc_auc_score(masks[k].flatten(), maps["LICNN"][k].flatten())
        assert scores["LICNN"]["auc"][k].item() == pytest.approx(auc)
    same = {name for name, part in maps.items() if any(part.equal(other) for n, other in maps.items() if n != name)}
    assert not same  # what is compared differs


def test_images_are_compared_batch_by_batch():
    model, x, labels, masks = tiny_network(), noise(3, 3, 16, 16), torch.tensor([2, 0, 7]), squares(3, 16)
    seen = []
    model.conv1.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    whole = compare.compare_attention(model, x, labels, masks, layer="relu2")
    assert 3 in seen
    seen.clear()
    parts = compare.compare_attention(model, x, labels, masks, layer="relu2", batch_size=2)
    assert 3 not in seen
    for name in whole:
        if name != "as many random places":  # the same noise for every batch
            close(parts[name]["auc"], whole[name]["auc"])


def test_three_measures_by_hand():
    maps = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[0.0, 0.0], [1.0, 3.0]]])
    masks = torch.tensor([[[True, False], [False, True]], [[True, False], [True, False]]])
    scores = compare.measure_maps(maps, masks)
    # First: 4 > 1, 4 > 3, 2 > 1, 2 < 3. Second: 0 = 0, 0 < 3, 1 > 0, 1 < 3.
    assert scores["auc"].tolist() == [0.75, 0.375]
    assert scores["mass"].tolist() == pytest.approx([6 / 10, 1 / 4])
    assert scores["pointing"].tolist() == [1, 0]


def test_whose_object_a_map_lies_on():
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    masks[:, 0, :, 0] = True  # four pixels
    masks[:, 1, 1:3, 3] = True  # two pixels
    labels = torch.tensor([[5, 2], [1, 3], [4, 0]])
    large, small = masks[0, 0].double(), masks[0, 1].double()
    maps = {
        (0, 5): large,  # 1 on its own object, 0 on the other
        (0, 2): large,  # 0 on its own, 1 on the other
        (1, 1): 3 * large + 5 * small,  # sums of 12 and 10, but means of 3 and 5: the other one's
        (1, 3): 3 * large + 5 * small,  # the same map, and the second object is its own
        (2, 4): torch.full((4, 4), 0.3, dtype=torch.float64),  # 0.3 and 0.3: a tie
        (2, 0): small - 2 * large,  # 1 against -2
    }
    x = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    sizes = []

    def method(model, x, target):
        sizes.append(len(x))
        return torch.stack([maps[int(n), int(c)] for n, c in zip(x[:, 0, 0, 0], target, strict=True)])

    won = compare.two_object_test(nn.Identity(), x, labels, masks, method, batch_size=2)
    assert won.tolist() == [[1, 0], [0, 1], [0.5, 1]]
    assert won.dtype == torch.float64
    assert sizes == [2, 1, 2, 1]
