"""Networks whose graphs are written here, and the packages that carry their weights."""
