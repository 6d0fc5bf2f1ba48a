"""What `helpers.similarnet` is made of: what each filter is worth, and what is read where the map is hot."""
