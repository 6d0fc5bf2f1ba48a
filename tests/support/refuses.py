"""What a function may not be given, one bad value an argument; the checks themselves are tested in test_validate.py."""

from contextlib import nullcontext

import pytest

from support.untouched import assert_untouched


def refuses(function, arguments, **bad):
    """Each bad value, alone among good arguments, is refused by its name, and a network is left as it was found."""
    model = arguments.get("model")
    for name, value in bad.items():
        singular = name.removesuffix("s")  # of `layers` it may be a single layer that is wrong
        with (
            pytest.raises(ValueError, match=rf"^{singular}s?\b.* must "),
            assert_untouched(model) if model is not None else nullcontext(),
        ):
            function(**(arguments | {name: value}))
