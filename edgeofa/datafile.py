"""Data files that people write (targets, spaces): TOML, checked whole, the first mistake named."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError

from edgeofa.errors import FileFormatError

_Model = TypeVar("_Model", bound=BaseModel)


def read_data_file(path: Path, model: type[_Model], max_bytes: int) -> _Model:
    """The content of a TOML file as ``model``; ``FileFormatError`` with line and reason."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror}", where=path) from error
    if len(content) > max_bytes:
        raise FileFormatError(
            f"a {model.__name__.lower()} file is at most {max_bytes >> 10} KiB", where=path
        )
    return parse_data(content, model, path)


def parse_data(content: bytes, model: type[_Model], where: str | Path) -> _Model:
    """``content`` as ``model``. The error names the line, the key, and for an unknown key the
    nearest one that exists."""
    try:
        text = content.decode()
        return model.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"not a TOML file: {error}", where=where) from error
    except ValidationError as error:
        raise FileFormatError(_explain(error, text, model), where=where) from error


def _explain(error: ValidationError, text: str, model: type[BaseModel]) -> str:
    # a misspelt key also makes the right one missing: the misspelling is the cause
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    location = first["loc"]
    # our own checks come as "Value error, ..."
    reason = first["msg"].removeprefix("Value error, ")
    message = f"{'.'.join(map(str, location)) or model.__name__.lower()}: {reason}"
    line = _line(text, location)
    if line is not None:
        message = f"line {line}: {message}"
    if first["type"] == "extra_forbidden":
        keys = list(_model_at(model, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), keys, n=1, cutoff=0.4)
        message += f" (valid keys: {', '.join(keys)}"
        message += f"; did you mean {near[0]}?)" if near else ")"
    return message


def _line(text: str, location: Sequence[str | int]) -> int | None:
    """The line of the innermost key of ``location`` that the file has; None where it has none."""
    # comments out of the way, every character in its place
    text = re.sub(r"(?m)^\s*#.*$", lambda match: " " * len(match[0]), text)
    position, found, pattern = 0, None, ""
    for part in location:
        if isinstance(part, str):
            key, count = re.escape(part), 1
            pattern = rf"(?m)(?<![\w.\"'-])\"?{key}\"?\s*=|^\s*\[+[^\]\n]*\b{key}\s*\]"
        elif re.compile(r"\s*\[\s*\{").match(text, position):
            pattern, count = r"\{", part + 1  # tables inside an array
        elif text[:position].endswith("]"):
            count = part  # a section for each, the first one is found
        else:
            break  # numbers
        matches = list(re.compile(pattern).finditer(text, position))[:count]
        if len(matches) < count:
            break
        if matches:
            position = found = matches[-1].end()
    return None if found is None else text.count("\n", 0, found) + 1


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """The model of the table at ``location`` in ``model``."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _table_model(model.model_fields[part].annotation) or model
    return model


def _table_model(annotation: object) -> type[BaseModel] | None:
    """The model inside an annotation such as ``tuple[Stage, ...]`` or ``Core | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for x in get_args(annotation) if (m := _table_model(x)) is not None), None)
