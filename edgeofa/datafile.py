"""Data files that people write (targets, spaces): TOML, checked whole, the first mistake named."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from edgeofa.errors import FileFormatError
from edgeofa.tomlplaces import line_of

_Model = TypeVar("_Model", bound=BaseModel)


def read_data_file(path: Path, model: type[_Model], max_bytes: int) -> _Model:
    """The content of a TOML file as ``model``; ``FileFormatError`` with line and reason."""
    return parse_data(read_bytes(path, model.__name__.lower(), max_bytes), model, path)


def read_bytes(path: Path, what: str, max_bytes: int) -> bytes:
    """The content of a file of at most ``max_bytes``; ``what`` names its kind in the error."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror}", where=path) from error
    if len(content) > max_bytes:
        raise FileFormatError(f"a {what} file is at most {max_bytes >> 10} KiB", where=path)
    return content


def parse_data(content: bytes, model: type[_Model], where: str | Path) -> _Model:
    """``content`` as ``model``. The error names the line, the key, and for an unknown key the
    nearest one that exists."""
    return check_data(parse_toml(content, where), model, where, content.decode())


def parse_toml(content: bytes, where: str | Path) -> dict[str, Any]:
    """The tables of a TOML text."""
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"not a TOML file: {error}", where=where) from error
    except RecursionError as error:
        raise FileFormatError("not a TOML file: nested too deep", where=where) from error


def check_data(
    data: Mapping[str, object], model: type[_Model], where: str | Path, text: str = ""
) -> _Model:
    """``data`` as ``model``; the error names the line of ``text`` that the mistake is on."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise FileFormatError(_explain(error, text, model), where=where) from error


def _explain(error: ValidationError, text: str, model: type[BaseModel]) -> str:
    # a misspelt key also makes the right one missing: the misspelling is the cause
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    # our own checks come as "Value error, ...", and some know the place inside the field
    cause = first.get("ctx", {}).get("error")
    location = (*first["loc"], *getattr(cause, "location", ()))
    reason = getattr(cause, "reason", first["msg"].removeprefix("Value error, "))
    message = f"{'.'.join(map(str, location)) or model.__name__.lower()}: {reason}"
    line = line_of(text, location)
    if line is not None:
        message = f"line {line}: {message}"
    if first["type"] == "extra_forbidden":
        keys = list(_model_at(model, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), keys, n=1, cutoff=0.4)
        message += f" (valid keys: {', '.join(keys)}"
        message += f"; did you mean {near[0]}?)" if near else ")"
    return message


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
