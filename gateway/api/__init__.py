"""HTTP handlers, and the checks that stand before them."""
