"""What builds, checks and moves the book. Nothing here is installed with `helpers`."""
