"""Who may ask, how much, and what was used: keys, rights, limits, accounting, and their store."""
