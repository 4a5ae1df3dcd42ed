"""Model files: where they are, what their headers say, and what models.json says of them."""
