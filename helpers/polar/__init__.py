"""The parts of `helpers.retina`."""
