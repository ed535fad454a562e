"""Inputs for a model of the user's own: what it is judged, calibrated and measured on."""

from __future__ import annotations

import random
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.graph.ir import Array, Graph
from edgeofa.graph.reference import dequantize_array
from edgeofa.npyfile import UNREADABLE

_MAX_ARRAY_BYTES = 1 << 32
_LABELS = ("i", "u")
Triple = tuple[float, float, float]
#: pixels as they are, 0 to 255
RAW_PIXELS: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs in real numbers (float32, NHWC, the graph's shape but for the batch), and the right
    classes where they are known."""

    inputs: Array
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def after(self, count: int) -> Examples | None:
        """All but the first ``count``; None where nothing is left."""
        if len(self) <= count:
            return None
        return Examples(self.inputs[count:], None if self.labels is None else self.labels[count:])


def parse_normalisation(mean: str | None, std: str | None) -> tuple[Triple, Triple] | None:
    """Mean and deviation as options give them: one number, or three with commas; None for none."""
    if mean is None and std is None:
        return None
    found = _triple(mean or "0", "--mean"), _triple(std or "1", "--std")
    if min(found[1]) <= 0:
        raise UsageError(f"a deviation of {std}", where="--std", hint="positive numbers")
    return found


def _triple(text: str, option: str) -> Triple:
    try:
        values = [float(part) for part in text[:200].split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not np.isfinite(values).all():
        raise UsageError(f"not a number or three: {text[:40]!r}", where=option, hint="127.5")
    return values[0], values[len(values) // 2], values[-1]


def random_inputs(graph: Graph, count: int, seed: int) -> Array:
    """Seeded inputs of a graph, float32: an int8 graph's over all of its input's range, exactly
    where its steps lie; a float32 graph's from a normal distribution."""
    rng = np.random.default_rng(seed)
    shape = (count, *graph.input_tensor.shape[1:])
    q = graph.input_tensor.quantization
    if q is None:
        return rng.standard_normal(shape).astype(np.float32)
    return dequantize_array(rng.integers(-128, 128, shape).astype(np.int8), q)


def load_examples(
    data: Path,
    graph: Graph,
    count: int,
    seed: int,
    normalisation: tuple[Triple, Triple] = RAW_PIXELS,
) -> Examples:
    """A seeded choice of at most ``count`` inputs of ``data`` for ``graph``.

    ``data`` is an .npy file of inputs, or an .npz file with ``inputs`` and, where the classes are
    known, ``labels``. Inputs are ``[N, height, width, channels]`` (or ``[N, channels, height,
    width]`` where only that fits the model): floats and uint8 are real numbers, int8 values are
    what an int8 model stores. Or it is a folder: of pictures, of one sub-folder of pictures a
    class, of such a ``test``, or CIFAR-10; pictures are resized to the model's input.

    Args:
        normalisation: mean and deviation of each channel, of pixels from 0 to 255.

    Raises:
        MissingMaterial: there is no such file, or no picture in the folder.
        FileFormatError: it holds something else. UsageError: inputs of another shape.
    """
    if data.is_dir():
        return _pictures(data, graph, count, seed, normalisation)
    inputs, labels = _read(data)
    order = np.random.default_rng(seed).permutation(len(inputs))[:count]
    chosen = _fitting(np.asarray(inputs[order]), graph, data)
    return Examples(chosen, None if labels is None else labels[order].astype(np.int64))


def _pictures(
    data: Path, graph: Graph, count: int, seed: int, normalisation: tuple[Triple, Triple]
) -> Examples:
    from edgeofa.training.data import is_archive, load_images
    from edgeofa.training.folders import all_pictures, read_pictures

    shape = graph.input_tensor.shape[1:]
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise UsageError(
            f"pictures for a model that takes {shape}",
            where=data,
            hint="an .npy file of inputs; pictures serve square inputs of three channels",
        )
    labels: Array | None = None
    if is_archive(data):
        images = load_images(data, "test")
        order = np.random.default_rng(seed).permutation(len(images))[:count]
        pixels, labels = images.pixels.numpy()[order], images.labels.numpy()[order]
        if pixels.shape[1:3] != shape[:2]:
            raise UsageError(f"pictures of {pixels.shape[1:3]} px, not {shape[:2]}", where=data)
    else:
        root = data / "test" if (data / "test").is_dir() else data
        classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        outputs = prod(graph.output_tensor.shape[1:])
        if classes and len(classes) != outputs:
            raise UsageError(
                f"{len(classes)} classes (sub-folders), the model has {outputs}", where=root
            )
        files = all_pictures(root)
        random.Random(seed).shuffle(files)
        pixels = read_pictures(files[:count], shape[0])
        if classes:
            names = {folder.name: label for label, folder in enumerate(classes)}
            places = [path.relative_to(root).parts[0] for path in files[:count]]
            if stray := [place for place in places if place not in names]:
                raise UsageError(f"{stray[0]} is in no sub-folder of a class", where=root)
            labels = np.array([names[place] for place in places], np.int64)
    mean, deviation = (np.array(values, np.float32) for values in normalisation)
    return Examples((pixels.astype(np.float32) - mean) / deviation, labels)


def _read(data: Path) -> tuple[Array, Array | None]:
    """Inputs and labels as they are stored; a large .npy file is not read whole."""
    if not data.is_file():
        raise MissingMaterial("no such file", where=data, hint="an .npy or .npz file of inputs")
    if data.stat().st_size > _MAX_ARRAY_BYTES:
        raise FileFormatError(f"larger than {_MAX_ARRAY_BYTES >> 30} GiB", where=data)
    try:
        if data.suffix == ".npy":
            inputs, labels = np.load(data, mmap_mode="r", allow_pickle=False), None
        else:
            with zipfile.ZipFile(data) as compressed:
                if sum(member.file_size for member in compressed.infolist()) > _MAX_ARRAY_BYTES:
                    raise FileFormatError(
                        f"arrays larger than {_MAX_ARRAY_BYTES >> 30} GiB", where=data
                    )
            with np.load(data, allow_pickle=False) as archive:
                if not {"inputs"} <= set(archive) <= {"inputs", "labels"}:
                    raise FileFormatError(
                        f"it holds {', '.join(sorted(archive))[:200]}",
                        where=data,
                        hint="arrays called inputs and, if there are classes, labels",
                    )
                inputs = archive["inputs"]
                labels = archive.get("labels")
    except UNREADABLE as error:
        raise FileFormatError(f"not an .npy or .npz file: {error}", where=data) from error
    if inputs.ndim < 2 or len(inputs) == 0:
        raise FileFormatError(f"inputs of shape {inputs.shape}", where=data)
    if labels is not None and (labels.shape != (len(inputs),) or labels.dtype.kind not in _LABELS):
        raise FileFormatError(
            f"labels {labels.dtype}{list(labels.shape)} of {len(inputs)} inputs", where=data
        )
    return inputs, labels


def _fitting(inputs: Array, graph: Graph, data: Path) -> Array:
    """The inputs in real numbers and in the graph's shape."""
    shape, q = graph.input_tensor.shape[1:], graph.input_tensor.quantization
    if inputs.dtype == np.int8:
        if q is None:
            raise UsageError("int8 inputs for a float32 model", where=data, hint="store floats")
        inputs = dequantize_array(inputs, q)
    elif inputs.dtype.kind not in "fu":
        raise UsageError(f"inputs of type {inputs.dtype}", where=data, hint="float32, uint8, int8")
    given = inputs.shape[1:]
    if given != shape and len(shape) == 3 and given == (shape[2], *shape[:2]):
        inputs = inputs.transpose(0, 2, 3, 1)
    elif given != shape and prod(given) != prod(shape):
        raise UsageError(f"inputs of shape {given}, the model takes {shape}", where=data)
    real = np.ascontiguousarray(inputs, dtype=np.float32).reshape(-1, *shape)
    if not np.isfinite(real).all():
        raise UsageError("an input is not finite", where=data)
    return real
