"""What `helpers.cam` is made of: the maps of a network's head, Grad-CAM, boxes, and single units."""
