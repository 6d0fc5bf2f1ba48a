"""What the methods cost, beside their peers: `python -m helpers.experiments.benchmark SUITE`."""
