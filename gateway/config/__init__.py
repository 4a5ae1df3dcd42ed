"""The configuration: its settings, their schema, and how both are read and found."""
