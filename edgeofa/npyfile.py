"""Reading numpy's files from anywhere: never unpickled, and whatever is wrong is one error."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

#: what numpy and zipfile raise on damaged files: headers are Python literals, members packed
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, MemoryError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
