"""The record of chapters 6 and 7 on whole images: `python -m helpers.experiments.search`."""
