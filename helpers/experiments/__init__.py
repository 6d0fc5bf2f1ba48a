"""Long runs, each one command: `python -m helpers.experiments.train NAME` makes the book's networks.

They write checkpoints and records; no chapter imports them.
"""
