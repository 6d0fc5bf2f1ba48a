"""What the tests of boxes from maps share: a few scenes of one known object, and a network that knows them."""

from torch import Tensor, nn

from helpers import networks
from helpers.data import Photos, scenes
from helpers.networks import normalize


def located_scenes(n: int = 24) -> tuple[nn.Module, Tensor, Photos]:
    """A shipped network, scenes as it expects them, (n, 3, 64, 64), and their images, labels and boxes."""
    drawn = scenes(n, 77)
    network = networks.load("scenes-gap", "cpu")
    photos = Photos(drawn.images, drawn.labels[:, 0], drawn.boxes[:, 0], (), ())
    return network, normalize(drawn.images, network), photos
