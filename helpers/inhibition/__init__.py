"""The parts of `helpers.licnn`."""
