"""The configuration: the settings, their schema, and how the file is found and read."""
