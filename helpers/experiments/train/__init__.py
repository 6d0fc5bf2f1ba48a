"""Train the book's networks: `python -m helpers.experiments.train NAME`."""
