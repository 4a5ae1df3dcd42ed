"""What stops an installation."""


class CannotInstall(Exception):
    """The service can't be installed; the message says why, and what to do."""
