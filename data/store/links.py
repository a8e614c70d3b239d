"""Symbolic links, which writing and removing never follow."""

import os
from pathlib import Path

from ..errors import ConfigError


def check_not_link(folder: Path) -> None:
    """Raise ConfigError if a folder is a symbolic link."""
    if folder.is_symlink():
        raise ConfigError(
            f"{folder} must be a folder; got a symbolic link to {folder.readlink()}, which is not "
            "followed. Remove the link, or give another --home."
        )


def check_no_links(folder: Path) -> None:
    """Raise ConfigError if a folder is a symbolic link or holds one at any depth."""
    check_not_link(folder)
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ConfigError(
                        f"{folder} must hold no symbolic links to be written; got {entry.path}, "
                        f"which leads to {Path(entry.path).readlink()}. Remove the link, or run "
                        "the same command with --overwrite, which removes links and does not "
                        "follow them."
                    )
                if entry.is_dir():
                    waiting.append(Path(entry.path))
