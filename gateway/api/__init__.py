"""HTTP handlers, one module for each group of routes, and the pipeline around them."""
