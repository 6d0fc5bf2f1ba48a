"""How the drawn worlds are drawn: numbers from a seed, outlines, shapes and textures, the same bits everywhere."""
