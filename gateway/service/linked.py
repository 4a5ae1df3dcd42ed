"""The service's command where a shell and sudo look for one: a link, in a folder on PATH.

A virtual environment's commands are on the PATH of who has activated it, and never on sudo's
(``secure_path`` in sudoers(5)). What somebody else has put there stays. All functions block.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.service.places import Places


def is_ours(places: Places) -> bool:
    """Return whether the link is there, and leads to the service's command."""
    link = places.link
    return link.is_symlink() and link.readlink() == places.command


def make(places: Places, say: Callable[[str], object], *, dry_run: bool) -> None:
    """Make the link, if its place is free; where it can't be made everything else goes on."""
    link, command = places.link, places.command
    if is_ours(places):
        say(f"kept     {link}")
    elif link.exists() or link.is_symlink():
        say(f"kept     {link}, which is not the service's: that is {command}")
    elif dry_run:
        say(f"link     {link} to {command}")
    else:
        try:
            link.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            link.symlink_to(command)
        except OSError as error:
            say(f"no link  {link}: {error.strerror}; the service's command is {command}")
        else:
            say(f"linked   {link} to {command}")


def remove(places: Places, say: Callable[[str], object], *, dry_run: bool) -> None:
    """Remove it if it is ours. Raises ``OSError``."""
    if is_ours(places):
        say(f"remove   {places.link}")
        if not dry_run:
            places.link.unlink()
