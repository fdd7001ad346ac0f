"""Small models that train well under differential privacy: logistic regression, MLP, CNN.

Each is a factory `(data, seed=None) -> Module` that can be pickled, and that
`functools.partial` sets. None has batch norm, which mixes the records of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from dpkit.knobs import Knob
from dpkit.words import marked

if TYPE_CHECKING:
    from dpkit.datasets import Dataset

Factory = Callable[..., nn.Module]

_SEED = Knob("seed", "makes the initial weights repeatable", 0, 2**53, integer=True, optional=True)
_WIDTH = Knob("h", "units of a hidden layer", 1, 1_000_000, integer=True)
_SMALLEST_IMAGE = 4
_LARGE_IMAGE = 16


def logistic(data: Dataset, seed: int | None = None) -> nn.Module:
    """Multinomial logistic regression, a convex problem.

    *Guarantee*
    - The weights begin at zero whatever the seed: every class is equally likely at first, and no
      part of the noise goes into undoing a random start.
    """
    _SEED.check("seed", seed)
    with torch.device("meta"):
        head = nn.Linear(math.prod(data.shape), data.num_classes)
    return _filled(nn.Sequential(nn.Flatten(), head), nn.init.zeros_)


def mlp(data: Dataset, seed: int | None = None, *, hidden: Sequence[int] = (100,)) -> nn.Module:
    """Fully connected layers with ReLU, 784-100-10 on MNIST.

    ReLU and Glorot's start, because they were measured: MNIST at epsilon 3 (batch 600, 15 epochs,
    mean of three seeds) gives 94.6% with both, 94.1% with tanh, 94.2% with torch's own start.
    """
    widths = tuple(hidden)
    for width in widths:
        _WIDTH.check("hidden", width)
    sizes = (math.prod(data.shape), *(int(width) for width in widths), data.num_classes)
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.device("meta"):
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
    return _started(nn.Sequential(*layers[:-1]), seed)


def cnn(data: Dataset, seed: int | None = None) -> nn.Module:
    """A small tanh CNN for images: 26,010 parameters on MNIST, 8,010 on the 8x8 digits.

    *Source*: Papernot et al., "Tempered sigmoid activations for deep learning with differential
    privacy" (2021), table of the MNIST network: bounded activations bound the gradients as well.
    Images under 16 pixels, which 8x8 kernels do not fit, get a single layer of 3x3 ones: at
    epsilon 3 it reached 95.6% on the digits, with a second layer and hidden units 85% to 95%.
    """
    if not data.is_image or min(data.shape[1:]) < _SMALLEST_IMAGE:
        raise ValueError(
            f"cnn needs images of shape (1 or 3 channels, height, width), {_SMALLEST_IMAGE} pixels "
            f"a side at least, but the records of {data.name!r} have shape {data.shape}: choose "
            f"mlp or logistic, or bring images into that shape, as inputs[:, None] does for grey."
        )
    channels, height, width = data.shape
    layers = _large if min(height, width) >= _LARGE_IMAGE else _small
    with torch.device("meta"):
        model = nn.Sequential(*layers(channels, height, width, data.num_classes))
    return _started(model, seed)


def released(
    data: Dataset,
    seed: int | None = None,
    *,
    public: nn.Module | None = None,
    centre: torch.Tensor | None = None,
    hidden: Sequence[int] = (),
) -> nn.Module:
    """A model for `NeuralDP`: public layers, frozen here, the private activation and a head.

    `public` makes an activation of each record; None releases the record itself, as it is after a
    public feature map. `centre` is a public point that activations are measured from. A head
    without `hidden` units begins at zero, one with them as `mlp` does. Its last layer has no bias:
    noisy rows teach it how frequent each class is, far too strongly for the clean ones that it
    then judges (MNIST at epsilon 2, on held-out training records: 80.7% with, 88.1% without).
    """
    from dpkit.methods.activation import PrivateActivation

    before: nn.Module = public if public is not None else nn.Sequential()
    before.requires_grad_(False)
    with torch.no_grad():
        width = before(torch.zeros(1, *data.shape)).numel()
    widths = (width, *hidden)
    layers: list[nn.Module] = []
    with torch.device("meta"):
        for inside, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inside, after), nn.ReLU()]
        layers.append(nn.Linear(widths[-1], data.num_classes, bias=False))
    head = nn.Sequential(*layers)
    started = _started(head, seed) if hidden else _filled(head, nn.init.zeros_)
    return nn.Sequential(before, PrivateActivation(centre), *started.children())


MODELS: dict[str, Factory] = {"logistic": logistic, "mlp": mlp, "cnn": cnn}
"""The factories by the names that code and settings use."""
TITLES = marked(
    {"logistic": "Logistic regression", "mlp": "MLP (100 ReLU)", "cnn": "Small CNN (tanh)"}
)
"""The same names as menus show them."""


def _large(channels: int, height: int, width: int, classes: int) -> list[nn.Module]:
    """Papernot's two strided convolutions with overlapping pools and 32 hidden units."""
    left = [((side - 2) // 2 - 4) // 2 for side in (height, width)]
    return [
        nn.Conv2d(channels, 16, 8, stride=2, padding=3), nn.Tanh(), nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2), nn.Tanh(), nn.MaxPool2d(2, stride=1),
        nn.Flatten(), nn.Linear(32 * math.prod(left), 32), nn.Tanh(), nn.Linear(32, classes),
    ]  # fmt: skip


def _small(channels: int, height: int, width: int, classes: int) -> list[nn.Module]:
    """One convolution that keeps the size, an overlapping pool and a linear head."""
    return [
        nn.Conv2d(channels, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2, stride=1),
        nn.Flatten(), nn.Linear(16 * (height - 1) * (width - 1), classes),
    ]  # fmt: skip


def _started(model: nn.Module, seed: int | None) -> nn.Module:
    """Glorot's uniform weights and zero biases, from a generator of their own.

    *Guarantee*
    - torch's global generator is neither read nor moved: a model can be built in one thread while
      another trains.
    - Without a seed the weights come from the operating system's entropy.
    """
    _SEED.check("seed", seed)
    generator = torch.Generator()
    generator.manual_seed(int(seed)) if seed is not None else generator.seed()

    def start(values: torch.Tensor) -> torch.Tensor:
        if values.dim() < 2:
            return nn.init.zeros_(values)
        return nn.init.xavier_uniform_(values, generator=generator)

    return _filled(model, start)


def _filled(model: nn.Module, start: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """Give layers that were made without memory (`meta`, so that no random number was drawn) real
    parameters. `Module.to_empty` would do, but imports sympy: two seconds before the first model.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(start(torch.empty(parameter.shape))))
    return model
