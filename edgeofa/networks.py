"""From a chosen subnet to the graph that back ends compile: cut out, recalibrated, quantised."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeofa.errors import MissingMaterial
from edgeofa.graph.ir import DType, Graph
from edgeofa.spaces import Space, Subnet

if TYPE_CHECKING:
    from edgeofa.elastic.bundles import Bundle

Floats = NDArray[np.float32]

#: images that the ranges of an int8 graph are taken from, and that outputs are compared on
CALIBRATION_IMAGES = 128
COMPARED_IMAGES = 8
#: images of ``--data`` that batch norm is recalibrated on, and that the accuracy is measured on
RECALIBRATION_IMAGES = 1000
MEASURED_IMAGES = 1000
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Network:
    """A network as a graph, and what quantisation did to it.

    ``inputs`` are preprocessed images (NHWC float32) that outputs are compared on; trained
    networks were not quantised on them. ``sqnr_db`` compares int8 with float32 over them and is
    None for float32.
    """

    graph: Graph
    inputs: Floats
    sqnr_db: float | None


class WeightSource(Protocol):
    """Where the weights of a network come from."""

    kind: Literal["trained", "random"]
    #: images that batch norm and quantisation were calibrated on
    calibration_images: int

    def network(self, subnet: Subnet, precision: DType) -> Network:
        """The subnet as a graph of that precision."""
        ...

    def accuracy(self, network: Network) -> tuple[float, int] | None:
        """Top-1 on labelled images in the graph's own arithmetic, and their number."""
        ...


class RandomWeights:
    """Seeded random weights: the right shapes and the right work, no accuracy."""

    kind: Literal["trained", "random"] = "random"
    calibration_images = 0

    def __init__(self, space: Space, seed: int):
        self._space = space
        self._seed = seed

    def network(self, subnet: Subnet, precision: DType) -> Network:
        from edgeofa.graph.blocks import subnet_graph

        generator = np.random.default_rng(self._seed)
        shape = (COMPARED_IMAGES, subnet.resolution, subnet.resolution, 3)
        inputs = generator.standard_normal(shape).astype(np.float32)
        graph = subnet_graph(self._space, subnet, self._seed)
        return _network(graph, inputs, inputs, precision, compensate=False)

    def accuracy(self, network: Network) -> tuple[float, int] | None:  # noqa: ARG002 - the contract
        return None


class TrainedWeights:
    """A bundle's supernet, calibrated on the bundle's own images or on the user's."""

    kind: Literal["trained", "random"] = "trained"

    def __init__(self, bundle: Bundle, data: Path | None, seed: int):
        from edgeofa.training.labelled import load_labelled

        self._bundle = bundle
        self._seed = seed
        pixels, self._test = bundle.calibration, None
        if data is not None:
            labelled = load_labelled(
                data,
                bundle.space,
                calibration=RECALIBRATION_IMAGES,
                test=MEASURED_IMAGES,
                seed=seed,
            )
            pixels, self._test = labelled.calibration.pixels.numpy(), labelled.test
        if pixels is None:
            raise MissingMaterial(
                "this supernet came without calibration images, and batch norm has to be "
                "recalibrated for every subnet",
                where=bundle.folder,
                hint="labelled pictures with --data, or import it again with --calibration FOLDER",
            )
        self._pixels = pixels
        self._supernet = bundle.supernet()
        self.calibration_images = len(self._pixels)

    def network(self, subnet: Subnet, precision: DType) -> Network:
        import torch

        from edgeofa.elastic.extract import extract
        from edgeofa.graph.importers.torch_export import import_module
        from edgeofa.training.data import preprocess
        from edgeofa.training.recalibrate import recalibrate

        space = self._bundle.space
        images = preprocess(torch.from_numpy(self._pixels), subnet.resolution, space)
        module = extract(self._supernet, subnet)
        recalibrate(module, images.permute(0, 3, 1, 2))
        graph = import_module(module, images[:1].permute(0, 3, 1, 2), str(subnet))
        order = list(range(len(images)))
        random.Random(self._seed).shuffle(order)
        # at least half of a small set calibrates; what is judged on was not calibrated on
        judged_count = min(COMPARED_IMAGES, len(order) // 2)
        judged = images[order[:judged_count]].numpy()
        calibration = images[order[judged_count : judged_count + CALIBRATION_IMAGES]].numpy()
        return _network(graph, calibration, judged, precision, compensate=True)

    def accuracy(self, network: Network) -> tuple[float, int] | None:
        from edgeofa.graph.reference import run_real
        from edgeofa.training.data import preprocess

        if self._test is None:
            return None
        hits, count = 0, len(self._test)
        resolution = network.graph.input_tensor.shape[1]
        for start in range(0, count, _BATCH):
            pixels = self._test.pixels[start : start + _BATCH]
            images = preprocess(pixels, resolution, self._bundle.space).numpy()
            labels = self._test.labels[start : start + _BATCH].numpy()
            hits += int((run_real(network.graph, images).argmax(-1) == labels).sum())
        return hits / count, count


def load_weights(space: Space, data: Path | None, seed: int, *, random: bool) -> WeightSource:
    """The weights of the space's bundle, or random ones.

    Args:
        data: pictures to calibrate a bundle's subnets on, instead of its own.
    """
    if random:
        return RandomWeights(space, seed)
    from edgeofa.elastic.bundles import load_bundle

    return TrainedWeights(load_bundle(space), data, seed)


def _network(
    graph: Graph, calibration: Floats, judged: Floats, precision: DType, *, compensate: bool
) -> Network:
    """Quantise where asked."""
    if precision == "float32":
        return Network(graph, judged, None)
    return quantised(graph, calibration, judged, compensate=compensate)


def quantised(graph: Graph, calibration: Floats, judged: Floats, *, compensate: bool) -> Network:
    """The int8 form of a float32 graph, quantised on ``calibration`` and judged on other images."""
    from edgeofa.graph.quantize import quantize_with, sqnr_db
    from edgeofa.graph.reference import run_real

    # rewrites hard-swish as profiling does: a runtime splits an int8 graph at it
    # in small batches, so that activations stay in the caches
    batches = [calibration[i : i + _BATCH] for i in range(0, len(calibration), _BATCH)]
    found = quantize_with(graph, batches, compensate=compensate)
    quality = sqnr_db(run_real(graph, judged), run_real(found, judged))
    return Network(found, judged, quality)
