"""The record of the what/where model: `python -m helpers.experiments.whatwhere`."""
