"""Where Networks Look: the thin torch package that the book's chapters compute with.

Every method reads `method(model, x, target, *, layer=None, ...) -> maps`: images `(B, C, H, W)` in, raw signed maps
out, on the device and in the dtype of `x`, and the model is left exactly as it was found. One topic, one module:
chapter 1 is `helpers.basics`, chapter 2 `helpers.saliency` and so on; `helpers.data` holds the worlds they measure on.
`import helpers` is enough: a room is imported when it is first named, as in `helpers.cam.grad_cam`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

ROOMS = (
    *("background", "basics", "boxes", "cam", "capture", "checks", "claims", "compare", "data", "device", "factors"),
    *("filters", "licnn", "metrics", "networks", "plots", "quadtree", "readout", "results", "retina", "saliency"),
    *("sanity", "search", "similarnet", "tables", "training", "widgets"),
)


def __getattr__(name: str) -> Any:
    """Import a room when it is first named; `explain` is that of `helpers.compare`."""
    if name == "explain":
        return import_module(f"{__name__}.compare").explain
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """What completion offers: the rooms too, imported or not."""
    return sorted({*globals(), *ROOMS, "explain"})
