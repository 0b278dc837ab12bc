"""Files and folders as they are configured."""

from __future__ import annotations

from pathlib import Path


def path_of(setting: str, text: str) -> Path:
    """The file or folder that a setting names, in which `~` and `~user` are home folders.

    setting: its name as its user writes it, for messages. Raises OSError where there is no such
    home folder: neither `HOME` nor an entry for the user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise OSError(f"no home folder for {text}; {setting} can name another") from error
