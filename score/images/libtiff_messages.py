"""Keeps libtiff, which decodes TIFF files inside Pillow, from writing to the process's stderr.

libtiff reports every damaged row of a file there: a kilobyte of fax code puts hundreds of megabytes
into the log. Pillow's other decoders write nothing. Errors that matter come back as exceptions all
the same.

libtiff's handlers belong to the whole process, so they are removed once, before any image is read.
Redirecting file descriptor 2 around a decode would lose what other threads log at that time.
"""

from __future__ import annotations

import ctypes

from PIL import _imaging


def silence() -> None:
    """Removes libtiff's handlers of errors and warnings; does nothing where it is not found.

    The symbols are looked up in the libraries that Pillow's decoder is linked to. They are hidden
    where libtiff was linked statically, as in Pillow for Windows.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        setters = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (OSError, AttributeError, TypeError):
        return
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(None)
