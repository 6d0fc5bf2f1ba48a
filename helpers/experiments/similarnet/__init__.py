"""The record of chapter 4: `python -m helpers.experiments.similarnet`."""
