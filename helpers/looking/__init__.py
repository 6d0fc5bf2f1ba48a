"""The parts of `helpers.search`."""
