"""The importer against torch itself: outputs, structure, and refusals by name."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from graph_cases import structure
from torch import Tensor, nn

from edgeofa.elastic.extract import extract
from edgeofa.elastic.supernet import Supernet
from edgeofa.errors import UnsupportedOperator, UsageError
from edgeofa.graph.blocks import subnet_graph
from edgeofa.graph.importers.torch_export import import_module
from edgeofa.graph.ir import Graph
from edgeofa.graph.reference import run
from edgeofa.spaces import load_space


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode, with batch norms that are not the identity."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
            nn.init.normal_(part.get_buffer("running_mean"), 0, 0.3)
            nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2.0)
    return module.eval().requires_grad_(False)


def imported(module: nn.Module, size: int = 24, channels: int = 3) -> Graph:
    """Import, and check the output on random images against torch."""
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))
    graph = import_module(module, x, "net")
    expected = module(x).numpy()
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    got = run(graph, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    error = np.abs(got.reshape(expected.shape) - expected).max()
    assert error <= 2e-5 * max(float(np.abs(expected).max()), 1e-3)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [
        op.kind if op.activation == "none" else f"{op.kind}+{op.activation}" for op in graph.ops
    ]


def norm_conv(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout)]


class Gate(nn.Module):
    """Squeeze-excite with the mean and the gate of one's choice."""

    def __init__(self, channels: int, mean: Callable[[Tensor], Tensor], gate: nn.Module):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)
        self.mean, self.gate = mean, gate

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gate(self.expand(F.relu(self.reduce(self.mean(x)))))
        return x * y


class DenseGate(nn.Module):
    """Squeeze-excite as it is written with linear layers."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, 8), nn.Linear(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).flatten(1)
        y = F.hardsigmoid(self.expand(F.relu(self.reduce(y))))
        return x * y.view(-1, x.shape[1], 1, 1)


class Bottleneck(nn.Module):
    def __init__(self, gate: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(
            *norm_conv(12, 32),
            nn.Hardswish(),
            *norm_conv(32, 32, 5, 1, 32),
            nn.Hardswish(),
            gate,
            *norm_conv(32, 12),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y + x


BOTTLENECK = [
    "conv2d",
    "hard_swish",
    "depthwise_conv2d",
    "hard_swish",
    "mean",
    "conv2d+relu",
    "conv2d+relu6",
    "mul",
    "conv2d",
    "add",
]


@pytest.mark.parametrize(
    "gate",
    [
        Gate(32, nn.AdaptiveAvgPool2d(1), nn.Hardsigmoid()),
        Gate(32, lambda x: x.mean((2, 3), keepdim=True), nn.Hardsigmoid(inplace=True)),
        Gate(32, lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True), nn.Hardsigmoid()),
        DenseGate(32),
    ],
)
def test_mbconv_with_squeeze_excite_and_hard_swish(gate: nn.Module) -> None:
    assert kinds(imported(settled(Bottleneck(gate)), channels=12)) == BOTTLENECK


def test_efficientnet_style_padding() -> None:
    net = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(3, 16, 3, 2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.ZeroPad2d((1, 2, 1, 2)),
        nn.Conv2d(16, 16, 5, 2, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(inplace=True),
        nn.Conv2d(16, 20, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(20, 10),
    )
    graph = imported(settled(net))
    assert kinds(graph) == [
        "conv2d+relu6",
        "depthwise_conv2d+relu6",
        "conv2d",
        "mean",
        "fully_connected",
    ]
    assert [op.pads for op in graph.ops[:2]] == [(0, 1, 0, 1), (1, 2, 1, 2)]


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *norm_conv(cin, cout, 3, stride), nn.ReLU(inplace=True), *norm_conv(cout, cout, 3)
        )
        self.shortcut = nn.Sequential(*(norm_conv(cin, cout, 1, stride) if stride > 1 else []))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        y += self.shortcut(x)
        return F.relu(y)


def test_resnet() -> None:
    net = nn.Sequential(
        *norm_conv(3, 8, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        Residual(8, 8, 1),
        Residual(8, 16, 2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 9, 10),
        nn.Softmax(dim=1),
    )
    assert kinds(imported(settled(net))) == [
        "conv2d+relu",
        "max_pool2d",
        "conv2d+relu",
        "conv2d",
        "add+relu",
        "conv2d+relu",
        "conv2d",
        "conv2d",
        "add+relu",
        "average_pool2d",
        "fully_connected",
        "softmax",
    ]


class Awkward(nn.Module):
    """Sharing, scalars and activations that cannot be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("scale", torch.linspace(-1, 2, 8).view(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        shared = F.relu(y) + self.norm(y)
        handmade = shared * F.relu6(shared + 3.0) / 6.0
        scaled = 0.5 * self.b(F.pad(handmade, (1, 1, 1, 1))) + 1.5
        pooled = F.avg_pool2d(scaled, 3, 2, 1) + F.max_pool2d(F.hardtanh(scaled, 0, 6), 3, 2, 1)
        return F.hardsigmoid(pooled) * self.get_buffer("scale")


def test_what_cannot_be_fused_is_still_right() -> None:
    graph = imported(settled(Awkward()))
    assert "hard_swish" not in kinds(graph)


def test_flattened_images_keep_their_order() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 25, 7))
    assert kinds(imported(settled(net), size=12)) == ["conv2d+relu", "fully_connected"]


class Placed(nn.Module):
    def __init__(self, bad: nn.Module):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.deep = nn.Sequential(nn.ReLU(), bad)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.deep(self.stem(x))
        return y


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (nn.GELU(), "gelu"),
        (nn.Conv2d(4, 4, 3, dilation=2), "dilation"),
        (nn.Conv2d(4, 8, 3, groups=2), "groups=2"),
        (nn.Conv2d(4, 8, (3, 1)), "square"),
        (nn.Hardtanh(-1, 1), "hardtanh"),
        (nn.ReflectionPad2d(1), "pad"),
        (nn.ConstantPad2d(1, 3.0), "zeros"),
        (nn.AdaptiveAvgPool2d(3), "22x22"),
        (nn.Softmax(dim=2), "classes"),
        (nn.ConvTranspose2d(4, 4, 2, 2), "conv_transpose2d"),
    ],
)
def test_unsupported_operators_are_named_with_their_place(bad: nn.Module, what: str) -> None:
    with pytest.raises(UnsupportedOperator, match=what) as caught:
        import_module(Placed(bad).eval(), torch.zeros(1, 3, 24, 24), "net")
    assert caught.value.where is not None
    assert caught.value.where.startswith("deep.1.")


def test_refusals() -> None:
    with pytest.raises(UsageError, match="training"):
        import_module(nn.Conv2d(3, 4, 1).train(), torch.zeros(1, 3, 8, 8), "net")
    with pytest.raises(UsageError, match="NCHW"):
        import_module(nn.Conv2d(3, 4, 1).eval(), torch.zeros(3, 8, 8), "net")


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("cifar_micro", 20), ("cifar_micro", 40), ("cifar_lite", 96), ("ofa_mbv3", 132)],
)
def test_extracted_subnets_have_the_profiled_structure(name: str, resolution: int) -> None:
    space = load_space(name)
    subnet = space.sample_by_choice(random.Random(resolution), resolution)
    network = settled(extract(Supernet(space), subnet))
    graph = imported(network, size=resolution)
    assert structure(graph) == structure(subnet_graph(space, subnet))
