"""Pictures, maps, boxes and paths for the tests of the plots, and what is read off a drawn figure."""

import numpy as np

RNG = np.random.Generator(np.random.PCG64(0))
GRAY, COLOR = RNG.random((3, 8, 10)), RNG.random((3, 3, 8, 10))
SIGNED = RNG.random((3, 4, 5)) - 0.5
BOXES = np.array([[1, 2, 5, 6], [0, 0, 10, 8], [np.nan] * 4])
PATHS = np.array([[[-1, -1], [0, 0.5], [1, 1]], [[0, 0], [-0.5, 0], [0.2, 0.9]], [[0.6, -0.8], [0, 0], [-0.6, 0.8]]])


def arrays(figure):
    return [np.asarray(ax.images[-1].get_array()) for ax in figure.axes if ax.images]


def limits(figure):
    return [ax.images[-1].get_clim() for ax in figure.axes if ax.images]


def has_bar(figure):
    return any(not ax.images and ax.get_label() == "<colorbar>" for ax in figure.axes)


def written(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def drawn_images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images]


def own_bars(figure):
    """What stands at the ends of the bars below the panels."""
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    return [" ".join(label.get_text() for label in ax.get_xticklabels()) for ax in bars]
