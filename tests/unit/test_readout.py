import pytest
import torch
from support.untouched import assert_untouched
from torch import nn

from helpers.capture import activations
from helpers.data import place
from helpers.networks import LeNet
from helpers.readout import contrast_centroid, position_readout, position_rule


class Coded(nn.Module):
    """First layer: the place of the bright pixel in code; second: nothing of it."""

    def __init__(self):
        super().__init__()
        self.code, self.blind = nn.Linear(64, 5), nn.Linear(64, 5)
        nn.init.zeros_(self.blind.weight)
        nn.init.zeros_(self.code.bias)
        with torch.no_grad():
            grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).view(64, 2)
            self.code.weight.copy_((grid @ torch.randn(2, 5, generator=torch.Generator().manual_seed(0))).T)

    def forward(self, x):
        return self.code(x.flatten(1)) + self.blind(x.flatten(1))


def test_a_place_in_code_is_read_and_a_lost_one_is_not():
    places = torch.randint(0, 8, (400, 2), generator=torch.Generator().manual_seed(1))
    images = place(torch.ones(400, 1, 1, 1), places, 8)
    model = Coded()
    with assert_untouched(model):
        errors = position_readout(model, images, places.float(), ["input", "code", "blind"])
    guess = places[200:].float().std().item()
    assert errors["code"] < 0.01
    assert errors["input"] < 0.2 * guess
    assert errors["blind"] == pytest.approx(guess, rel=0.05)


def test_a_rule_can_be_read_on_another_network():
    places = torch.randint(0, 8, (400, 2), generator=torch.Generator().manual_seed(1))
    images = place(torch.ones(400, 1, 1, 1), places, 8)
    model, other = Coded(), Coded()
    same = position_readout(model, images, places, ["code"], reader=other)["code"]
    assert same == position_readout(model, images, places, ["code"])["code"] < 0.01
    with torch.no_grad():
        other.code.bias += 100
    with assert_untouched(other):
        assert position_readout(model, images, places, ["code"], reader=other)["code"] > 10


def test_the_bright_spot_by_hand():
    maps = torch.full((3, 5, 7), 2.0)
    maps[0, 3, 1] = 9  # one place
    maps[1, 0, 2], maps[1, 4, 2] = 5, 5  # two alike: their middle
    assert contrast_centroid(maps)[:2].tolist() == [[3, 1], [2, 2]]
    assert contrast_centroid(maps)[2].isnan().all()
    maps[0, 3, 5] = 2 + 3 * 7  # three times as far above the background as the other
    assert contrast_centroid(maps[:1]).tolist() == [[3, 4]]
    maps[0, 3, 5] = -1.5  # below it counts as well, half as much
    torch.testing.assert_close(contrast_centroid(maps[:1]), torch.tensor([[3.0, (1 * 7 + 5 * 3.5) / 10.5]]))


def test_a_feature_that_hardly_ever_fires_does_not_spoil_the_rule():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(200, 1, 28, 28, generator=draw) * 0.01
    rows = torch.randint(0, 20, (200,), generator=draw)
    for image, row in zip(images, rows, strict=True):
        image[0, row : row + 4, 10:14] = 1
    images[150, 0, 0, 0], images[:150, 0, 0, 0] = 1, 1e-7  # silent while the rule is fitted, but for a trace
    net = nn.Sequential(nn.Identity())
    errors = position_readout(net, images, rows[:, None].float(), ["0"], train=0.75)
    assert errors["0"] < 0.7


def test_places_may_carry_a_graph():
    places = torch.rand(8, 2, requires_grad=True)
    position_readout(LeNet(), torch.rand(8, 1, 28, 28), places * 2, ["fc3"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contrast_centroid(torch.zeros(5, 7)), "maps must"),
        (lambda: position_readout(LeNet(), torch.rand(6, 1, 28, 28), torch.zeros(5, 2), ["fc1"]), "places must"),
        (
            lambda: position_readout(LeNet(), torch.rand(6, 1, 28, 28), torch.zeros(6, 2), ["fc1"], train=1),
            "train must",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_networks_of_half_precision_are_read():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    x, places = torch.rand(12, 3, 8, 8), torch.rand(12, 2)
    expected = position_readout(net, x, places, ["0"])["0"]
    assert position_readout(net.bfloat16(), x.bfloat16(), places, ["0"])["0"] == pytest.approx(expected, rel=0.05)


def test_layers_whose_first_axis_is_not_that_of_the_images_are_refused():
    net = nn.Sequential(
        nn.Flatten(2), nn.Unflatten(0, (-1, 1)), nn.Flatten(0, 2), nn.Unflatten(0, (-1, 3)), nn.Flatten()
    )
    match = r"layers must give something for each image, \(B, \.\.\.\), got '2', which gives \(18, 4\) for 6 images"
    with pytest.raises(ValueError, match=match):
        position_readout(net, torch.rand(12, 3, 2, 2), torch.rand(12, 2), "2")


def test_the_rule_itself_reads_places_as_the_readout_does():
    places = torch.randint(0, 8, (400, 2), generator=torch.Generator().manual_seed(1))
    images = place(torch.ones(400, 1, 1, 1), places, 8)
    model = Coded()
    with assert_untouched(model):
        rule = position_rule(model, images[:200], places[:200], "code")
        read = rule(activations(model, images[200:], "code")["code"])
    error = (read - places[200:]).square().mean().sqrt().item()
    assert error == pytest.approx(position_readout(model, images, places, "code")["code"], rel=1e-3)
    assert position_rule(model, images, places[:, :1], "code")(torch.zeros(3, 5)).shape == (3, 1)


@pytest.mark.parametrize(
    ("images", "places", "message"),
    [
        (torch.rand(1, 1, 8, 8), torch.zeros(1, 2), "the number of images must be"),
        (torch.rand(4, 1, 8, 8), torch.zeros(3, 2), "places must be"),
        (torch.rand(4, 64), torch.zeros(4, 2), "images must"),
    ],
)
def test_a_rule_without_enough_to_go_by_is_refused(images, places, message):
    with pytest.raises(ValueError, match=message):
        position_rule(Coded(), images, places, "code")
