"""What stands behind `helpers.saliency`, one file a kind of method; import it from there."""
