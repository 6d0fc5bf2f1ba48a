"""Where Networks Look: the thin torch package that the book's chapters compute with.

Every method reads `method(model, x, target, *, layer=None, ...) -> maps`: images `(B, C, H, W)` in, raw signed maps
out, on the device and in the dtype of `x`, and the model is left exactly as it was found. One topic, one module:
chapter 1 is `helpers.basics`, chapter 2 `helpers.saliency` and so on; `helpers.data` holds the worlds they measure on.
"""

__version__ = "0.1.0"
