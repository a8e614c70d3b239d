"""Files of a source: only regular ones are opened, and what is skipped is said."""

import io
import os
from collections.abc import Callable
from pathlib import Path

from ..cli import note

MOST_FILE_BYTES = 2**31  # more than an uncompressed image of 179 million pixels, 8 bytes a pixel
NAMED = 3  # files in a message


def read_file(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file, or its first `most` bytes. Raises OSError for a pipe, a device
    or a folder, which might never end, and for files larger than MOST_FILE_BYTES."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        if length > MOST_FILE_BYTES:
            raise OSError(f"{length:,} bytes are more than {MOST_FILE_BYTES:,}")
        file.seek(0)
        return file.read(-1 if most is None else most)


def listed(folder: Path, wanted: Callable[[Path], bool]) -> tuple[list[str], list[str], list[str]]:
    """The files of a folder and its subfolders that are wanted, in order; those that are not; and
    what is no regular file: pipes, devices, broken links, and links to folders."""
    found, skipped, irregular = [], [], []
    for root, folders, files in os.walk(folder, onerror=_say_unlisted):
        above = Path(root).relative_to(folder)
        irregular += [
            (above / name).as_posix() for name in folders if (Path(root) / name).is_symlink()
        ]
        for name in files:
            path = Path(root) / name
            if not is_regular(path):
                irregular.append((above / name).as_posix())
            elif wanted(path):
                found.append((above / name).as_posix())
            else:
                skipped.append((above / name).as_posix())
    return sorted(found), skipped, irregular


def irregular_files(folder: Path) -> list[str]:
    """Pipes, devices and broken links in a folder and its subfolders: reading might never end."""
    return [name for name in listed(folder, lambda _: True)[2] if not (folder / name).is_dir()]


def say_skipped(names: list[str], plural: str, singular: str) -> None:
    """Note files that are not e.g. `regular`, if there are any."""
    if names:
        one = len(names) == 1
        named = ", ".join(utf8(name) for name in sorted(names)[:NAMED])
        note(
            f"{len(names)} {'file is' if one else 'files are'} not {singular if one else plural} "
            f"and {'was' if one else 'were'} skipped: {named}"
            f"{', ...' if len(names) > NAMED else '.'}"
        )


def is_regular(path: Path) -> bool:
    """True for a regular file and for a link to one."""
    try:
        return path.is_file()
    except OSError:  # e.g. no permission to follow a link
        return False


def utf8(name: str) -> str:
    """A name with the bytes that are not UTF-8 written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _say_unlisted(error: OSError) -> None:
    note(f"the folder {error.filename} cannot be listed ({error.strerror}) and was skipped.")
