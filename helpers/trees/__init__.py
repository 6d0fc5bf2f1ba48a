"""What stands behind `helpers.quadtree`; import it from there."""
