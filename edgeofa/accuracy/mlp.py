"""Accuracy predictors that are small networks: once-for-all's, read without running its code.

The official file (``acc_predictor.pth``) is a torch state dict of a ReLU network over one-hot
choices. It is loaded with torch's restricted unpickler, which builds tensors and nothing else, and
kept as safetensors with a description; from then on only numpy is needed.

The input, by the reference's encoder: for every elastic layer one-hot kernel, then for every one
one-hot expansion (both all zero for a layer past the depth), then one-hot resolution, 112 to 224 in
steps of 16. Layers are numbered by stage and position; stages without a choice do not count.

A network is not a sum over layers. The additive part of the contract, which the exact solver
needs, is a least-squares fit to the network's own predictions, per resolution; ``accuracy`` and
``rerank`` are the network's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeofa.accuracy.features import space_digest
from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.paths import atomic_path
from edgeofa.spaces.space import Layer, Space, Subnet
from edgeofa.torchfile import read_state_dict

Floats = NDArray[np.float64]
AnyFloats = NDArray[np.floating]

_MAX_BYTES = 64 << 20
_MAX_WIDTH = 1 << 14
PUBLISHED = (
    "the authors publish it: ofa/tutorial/accuracy_predictor.py of "
    "github.com/mit-han-lab/once-for-all names the address"
)
_MAX_LAYERS = 16
_RESOLUTIONS = tuple(range(112, 225, 16))
_FIT_SUBNETS = 2000
_RIDGE = 1e-6


class Description(BaseModel):
    """What a predictor is about; it travels in the file's metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    space: str
    space_digest: str
    encoding: Literal["ofa-one-hot"] = "ofa-one-hot"
    #: where it comes from and what its accuracies were measured on
    source: str = Field(max_length=400)
    #: mean absolute error as a fraction, where the source states one
    error: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True, eq=False)
class Network:
    """``weights[-1] @ relu(... relu(weights[0] @ x + biases[0]) ...) + biases[-1]``, one output."""

    weights: tuple[AnyFloats, ...]
    biases: tuple[AnyFloats, ...]

    def __call__(self, x: AnyFloats) -> Floats:
        """Outputs (n,) of inputs (n, features)."""
        return self.from_first(x @ self.weights[0].T + self.biases[0])

    def from_first(self, z: AnyFloats) -> Floats:
        """Outputs (n,) of the first layer's sums (n, width)."""
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            z = np.maximum(z, 0) @ weight.T + bias
        return z[:, 0].astype(np.float64)

    def gradient(self, x: AnyFloats) -> Floats:
        """The slope (n, features) of the linear piece that each input lies on."""
        z, active = x, []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = z @ weight.T + bias
            active.append(z > 0)
            z = np.maximum(z, 0)
        slope = np.repeat(self.weights[-1], len(x), axis=0)
        for weight, on in zip(self.weights[-2::-1], active[::-1], strict=True):
            slope = (slope * on) @ weight
        return slope.astype(np.float64)

    @cached_property
    def single(self) -> Network:
        """The same in single precision, as it was trained: half the time, 1e-7 off."""
        return Network(
            tuple(w.astype(np.float32) for w in self.weights),
            tuple(b.astype(np.float32) for b in self.biases),
        )


class Encoder:
    """Subnets of a space as the network's inputs."""

    def __init__(self, space: Space):
        self.space = space
        elastic = [
            (i, j)
            for i, j in space.slots
            if len(space.stages[i].layers_at(j)) * len(space.stages[i].depths) > 1
        ]
        kernels = sorted({k for i, _ in elastic for k in space.stages[i].kernels})
        expands = sorted({e for i, j in elastic for e in space.stages[i].expands_at(j)})
        first_expand = len(elastic) * len(kernels)
        first_resolution = first_expand + len(elastic) * len(expands)
        self.features = first_resolution + len(_RESOLUTIONS)
        self.resolutions = tuple(r for r in space.resolutions if r in _RESOLUTIONS)
        self._columns = {
            (i, j, layer): (
                n * len(kernels) + kernels.index(layer.kernel),
                first_expand + n * len(expands) + expands.index(layer.expand),
            )
            for n, (i, j) in enumerate(elastic)
            for layer in space.stages[i].layers_at(j)
        }
        self._resolution = {r: first_resolution + n for n, r in enumerate(_RESOLUTIONS)}

    def columns(self, stage: int, position: int, layer: Layer) -> tuple[int, ...]:
        """The inputs that a layer sets to 1; none for a layer without a choice."""
        return self._columns.get((stage, position, layer), ())

    def resolution_column(self, resolution: int) -> int:
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"the predictor knows no {resolution} px", hint=f"one of {known}")
        return self._resolution[resolution]

    def encode(self, subnets: Sequence[Subnet]) -> Floats:
        """(subnets, features) of zeros and ones."""
        x = np.zeros((len(subnets), self.features))
        for row, subnet in zip(x, subnets, strict=True):
            row[self.resolution_column(subnet.resolution)] = 1
            for i, layers in enumerate(subnet.stages):
                for j, layer in enumerate(layers):
                    row[list(self.columns(i, j, layer))] = 1
        return x


class MlpAccuracy:
    """An :class:`edgeofa.accuracy.base.AccuracyModel` whose best prediction is a network's."""

    claims_accuracy = True

    def __init__(self, space: Space, network: Network, description: Description):
        self.space = space
        self.network = network
        self.description = description
        self.encoder = Encoder(space)
        self._fits: dict[int, tuple[float, dict[tuple[int, int, Layer], float]]] = {}
        wanted = (description.space, description.space_digest)
        if wanted != (space.name, space_digest(space)):
            raise UsageError(
                f"a predictor of space {description.space}, or of another version of it",
                where=f"space {space.name}",
                hint=f"use it with --space {description.space}, or import it again",
            )
        if network.weights[0].shape[1] != self.encoder.features:
            raise UsageError(
                f"a predictor of {network.weights[0].shape[1]} inputs, where space {space.name} "
                f"is encoded in {self.encoder.features}",
                hint="the official one is of ofa_mbv3 and ofa_mbv3_w12",
            )

    @property
    def error(self) -> float | None:
        return self.description.error

    # ------------------------------------------------------------ the network

    def rerank(self, subnets: Sequence[Subnet]) -> Floats:
        return self.network(self.encoder.encode(subnets)) if subnets else np.zeros(0)

    def accuracy(self, subnet: Subnet) -> float:
        return float(self.rerank([subnet])[0])

    # ------------------------------------------------------------ the additive fit

    def intercept(self, resolution: int) -> float:
        return self._fit(resolution)[0]

    def layer_score(self, resolution: int, stage: int, position: int, layer: Layer) -> float:
        return self._fit(resolution)[1][stage, position, layer]

    def score(self, subnet: Subnet) -> float:
        intercept, terms = self._fit(subnet.resolution)
        return intercept + sum(
            terms[i, j, layer]
            for i, layers in enumerate(subnet.stages)
            for j, layer in enumerate(layers)
        )

    def _fit(self, resolution: int) -> tuple[float, dict[tuple[int, int, Layer], float]]:
        """Ridge regression of the network on which layers are there, made once a resolution."""
        known = self._fits.get(resolution)
        if known is None:
            rng = random.Random(resolution)
            subnets = [self.space.sample_by_choice(rng, resolution) for _ in range(_FIT_SUBNETS)]
            x = np.zeros((len(subnets), len(self._terms)))
            for row, subnet in zip(x, subnets, strict=True):
                for i, layers in enumerate(subnet.stages):
                    for j, layer in enumerate(layers):
                        row[self._terms[i, j, layer]] = 1
            y = self.rerank(subnets)
            centre, level = x.mean(axis=0), float(y.mean())
            x -= centre
            gram = x.T @ x + _RIDGE * len(subnets) * np.eye(len(self._terms))
            slopes = np.linalg.solve(gram, x.T @ (y - level))
            terms = {term: float(slopes[n]) for term, n in self._terms.items()}
            known = self._fits[resolution] = level - float(centre @ slopes), terms
        return known

    @cached_property
    def _terms(self) -> dict[tuple[int, int, Layer], int]:
        every = (
            (i, j, layer)
            for i, j in self.space.slots
            for layer in self.space.stages[i].layers_at(j)
        )
        return {term: n for n, term in enumerate(every)}


# ------------------------------------------------------------------------------------ files


def import_ofa_predictor(
    path: Path, space: Space, *, source: str = "", error: float | None = None
) -> MlpAccuracy:
    """The official predictor file, whose state dict has ``N.weight`` and ``N.bias``.

    Raises:
        MissingMaterial: no such file; the hint says where the authors publish it.
        FileFormatError: not a state dict of a ReLU network, or it holds more than tensors.
        UsageError: a predictor for another encoding (number of inputs).
    """
    import torch

    state = read_state_dict(path, _MAX_BYTES, PUBLISHED)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise FileFormatError(f"entry {name[:80]!r} is not floating-point", where=path)
    arrays = {k: v.to(torch.float64).numpy() for k, v in state.items()}
    description = Description(
        space=space.name,
        space_digest=space_digest(space),
        source=source or f"imported from {path.name}",
        error=error,
    )
    return MlpAccuracy(space, _network(arrays, path), description)


def save_predictor(model: MlpAccuracy, path: Path) -> None:
    """Write weights (float32, as trained) and description as safetensors, whole or not at all."""
    from safetensors.numpy import save_file

    tensors = {}
    for n, (weight, bias) in enumerate(
        zip(model.network.weights, model.network.biases, strict=True)
    ):
        tensors[f"{n}.weight"] = weight.astype(np.float32)
        tensors[f"{n}.bias"] = bias.astype(np.float32)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"edgeofa": model.description.model_dump_json()})


def load_predictor(path: Path, space: Space) -> MlpAccuracy:
    """What :func:`save_predictor` wrote; refused where corrupt or of another space."""
    from safetensors import SafetensorError, safe_open

    _check_size(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("edgeofa", "")
            arrays = {k: np.asarray(file.get_tensor(k), np.float64) for k in file.keys()}  # noqa: SIM118
        description = Description.model_validate(json.loads(text))
    except (SafetensorError, ValidationError, ValueError, TypeError) as failure:
        raise FileFormatError(
            f"not a predictor of edgeofa: {str(failure).splitlines()[0][:200]}",
            where=path,
            hint="edgeofa import predictor makes one of the official file",
        ) from failure
    return MlpAccuracy(space, _network(arrays, path), description)


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise MissingMaterial("no such predictor", where=path)
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError(f"larger than {_MAX_BYTES} bytes, not a predictor", where=path)


def _network(arrays: Mapping[str, Floats], path: Path) -> Network:
    """Layers in the order of their numbers, every shape checked."""
    numbers = sorted({int(head) for k in arrays if (head := k.partition(".")[0]).isdecimal()})
    names = [f"{n}.{part}" for n in numbers for part in ("weight", "bias")]
    if set(arrays) != set(names) or not 2 <= len(numbers) <= _MAX_LAYERS:
        raise FileFormatError("not the weights and biases of a chain of layers", where=path)
    weights = tuple(arrays[f"{n}.weight"] for n in numbers)
    biases = tuple(arrays[f"{n}.bias"] for n in numbers)
    width = weights[0].shape[-1] if weights[0].ndim == 2 else 0
    for n, weight, bias in zip(numbers, weights, biases, strict=True):
        if weight.ndim != 2 or weight.shape != (*bias.shape, width) or width > _MAX_WIDTH:
            raise FileFormatError(f"layer {n} does not fit the one before it", where=path)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FileFormatError(f"layer {n} has a weight that is not a number", where=path)
        width = len(bias)
    if width != 1:
        raise FileFormatError(f"{width} outputs, not 1", where=path)
    return Network(weights, biases)
