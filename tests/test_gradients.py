"""The gradient engine against a loop of batches of one, and what it must refuse."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients import (
    SGD,
    Adam,
    Automatic,
    CrossRecordError,
    Engine,
    Flat,
    PerLayer,
    TorchOptimiser,
)
from dpkit.gradients.dense import Dense
from dpkit.gradients.fallback import Vmapped
from dpkit.gradients.sizes import GRADIENT_BYTES
from dpkit.gradients.tape import Taped

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

RECORDS, CLASSES = 11, 4
LIMIT = {torch.float32: 2e-6, torch.float64: 1e-12}
ce = functional.cross_entropy


class Skip(nn.Module):
    """In-place operations that a hook on modules must survive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.first(x))
        y = self.second(y)
        y += x
        return self.relu(y)


class Words(nn.Module):
    """An embedding, a layer used twice, and a head that may share the embedding's table."""

    def __init__(self, tied: bool = False, padding: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(13, 6, padding_idx=padding)
        self.norm, self.mix, self.head = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 13)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        for _ in range(2):
            x = x + torch.relu(self.mix(self.norm(x)))
        return self.head(x).mean(1)


class Attending(nn.Module):
    """Multi-head attention in one of the ways in which people call it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.table, self.head = nn.Embedding(13, 8), nn.Linear(8, CLASSES)
        first = way != "tokens first"
        self.attend = nn.MultiheadAttention(8, 2, batch_first=first, bias=way != "no bias")

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        if self.way == "tokens first":
            y = self.attend(*[x.transpose(0, 1)] * 3, attn_mask=later)[0].transpose(0, 1)
        elif self.way == "across":
            y = self.attend(x, x.flip(1), x.tanh(), need_weights=False)[0]
        elif self.way == "padded":
            end = torch.arange(tokens.shape[1]).expand_as(tokens) >= 5
            y = self.attend(x, x, x, key_padding_mask=end, attn_mask=later)[0]
        else:
            y = self.attend(x, x, x, need_weights=False)[0]
        return self.head(x + y).mean(1)


class Scale(nn.Module):
    """A bare parameter, which no kernel knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.line = nn.Parameter(torch.ones(5)), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x * self.scale)


class Borrowed(nn.Module):
    """A weight used outside the layer that holds it: hooks see only half of its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.head = nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.line(x)) @ self.line.weight)


def image_net(*layers: nn.Module, size: tuple[int, ...] = (3, 8, 7)) -> nn.Module:
    body = nn.Sequential(*layers)
    with torch.no_grad():
        width = body(torch.zeros(2, *size)).flatten(1).shape[1]
    return nn.Sequential(body, nn.Flatten(), nn.Linear(width, CLASSES))


def conv(*args: int, **options: object) -> Callable[[], nn.Module]:
    return lambda: image_net(nn.Conv2d(3, *args, **options), nn.Tanh())  # type: ignore[arg-type]


def line(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: image_net(layer(), nn.Tanh(), size=(3, 9))


IMAGE, LINE, TOKENS, VECTOR = (3, 8, 7), (3, 9), (7,), (5,)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], type]] = {
    "logistic": (lambda: nn.Sequential(nn.Linear(5, CLASSES)), VECTOR, Dense),
    "mlp": (lambda: mlp(nn.ReLU(inplace=True)), VECTOR, Dense),
    "mlp tanh": (lambda: mlp(nn.Tanh()), VECTOR, Dense),
    "mlp sigmoid, no bias": (lambda: mlp(nn.Sigmoid(), bias=False), VECTOR, Dense),
    "mlp of images": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(168, 9), nn.ReLU(),
                                            nn.Linear(9, CLASSES)), IMAGE, Dense),
    "mlp gelu": (lambda: mlp(nn.GELU()), VECTOR, Taped),
    "activation first": (lambda: nn.Sequential(nn.Tanh(), *mlp(nn.ReLU())), VECTOR, Taped),
    "activations in a row": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.ReLU(),
                                                   nn.Linear(6, CLASSES)), VECTOR, Taped),
    "layer twice": (lambda: (lambda m: nn.Sequential(m, nn.ReLU(), m, nn.Linear(5, CLASSES)))(
        nn.Linear(5, 5)), VECTOR, Taped),
    "frozen below": (lambda: frozen(mlp(nn.Tanh()), 0), VECTOR, Dense),
    "frozen above": (lambda: frozen(mlp(nn.Tanh()), 2), VECTOR, Dense),
    "frozen bias": (lambda: freeze(mlp(nn.Tanh()), "0.bias"), VECTOR, Dense),
    "frozen weight": (lambda: freeze(mlp(nn.Tanh()), "2.weight"), VECTOR, Dense),
    "conv": (conv(5, 3), IMAGE, Taped),
    "conv stride": (conv(5, 3, stride=2, padding=1), IMAGE, Taped),
    "conv dilated": (conv(5, (3, 2), stride=(2, 3), dilation=(3, 2), padding=(2, 1)), IMAGE, Taped),
    "conv same circular": (conv(5, 4, padding="same", padding_mode="circular"), IMAGE, Taped),
    "conv one by one": (conv(5, 1, stride=2, bias=False), IMAGE, Taped),
    "conv short of its stride": (conv(5, 2, stride=4), IMAGE, Taped),
    "conv grouped": (conv(6, 3, groups=3, padding=1, padding_mode="reflect"), IMAGE, Taped),
    "conv wide": (lambda: image_net(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, padding="same")),
                  IMAGE, Taped),
    "conv uneven padding": (lambda: image_net(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 4,
                            padding="same")), IMAGE, Taped),
    "conv1d": (line(lambda: nn.Conv1d(3, 5, 3, padding=1)), LINE, Taped),
    "conv1d dilated": (line(lambda: nn.Conv1d(3, 5, 3, stride=2, dilation=2, padding=3,
                                              padding_mode="replicate")), LINE, Taped),
    "group norm": (lambda: image_net(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU()),
                   IMAGE, Taped),
    "group norm first": (lambda: image_net(nn.GroupNorm(1, 3)), IMAGE, Taped),
    "instance norm": (lambda: image_net(nn.InstanceNorm2d(3, affine=True)), IMAGE, Taped),
    "layer norm": (lambda: image_net(nn.LayerNorm((8, 7))), IMAGE, Taped),
    "layer norm of vectors": (lambda: nn.Sequential(nn.LayerNorm(5), *mlp(nn.ReLU())),
                              VECTOR, Taped),
    "pooling": (lambda: image_net(nn.Conv2d(3, 5, 3), nn.MaxPool2d(2, 1)), IMAGE, Taped),
    "skip in place": (lambda: image_net(nn.Conv2d(3, 3, 1), Skip()), IMAGE, Taped),
    "words": (Words, TOKENS, Taped),
    "words with padding": (lambda: Words(padding=3), TOKENS, Taped),
    "tied words": (lambda: Words(tied=True), TOKENS, Taped),
    **{f"attention, {way}": (lambda way=way: Attending(way), TOKENS, Taped)
       for way in ("itself", "no bias", "tokens first", "across", "padded")},
    "transformer": (lambda: nn.Sequential(nn.Embedding(13, 8), nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(56, CLASSES)),
        TOKENS, Taped),
    "bare parameter": (Scale, VECTOR, Vmapped),
    "borrowed weight": (Borrowed, VECTOR, Vmapped),
    "transposed conv": (lambda: image_net(nn.ConvTranspose2d(3, 4, 3)), IMAGE, Vmapped),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(
        nn.Linear(5, 6)), nn.Linear(6, CLASSES)), VECTOR, Vmapped),
}  # fmt: skip


def mlp(activation: nn.Module, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7, bias=bias), activation, nn.Linear(7, CLASSES, bias=bias))


def frozen(model: nn.Sequential, number: int) -> nn.Sequential:
    model[number].requires_grad_(False)
    return model


def freeze(model: nn.Module, name: str) -> nn.Module:
    dict(model.named_parameters())[name].requires_grad_(False)
    return model


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor, type]:
    torch.manual_seed(len(name))
    factory, shape, kind = NETS[name]
    tokens = shape is TOKENS
    x = torch.randint(0, 13, (RECORDS, *shape)) if tokens else torch.randn(RECORDS, *shape)
    y = torch.randint(0, CLASSES, (RECORDS,))
    return factory().to(dtype), x if tokens else x.to(dtype), y, kind


def quiet(model: nn.Module, loss: Callable[..., Tensor] = ce, **options: object) -> Engine:
    """An engine whose fallback needs no mention here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Engine(model, loss, **options)  # type: ignore[arg-type]


def rows_of(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor] = ce
) -> tuple[Tensor, Tensor]:
    """Per-example gradients and losses in float64, by a loop of batches of one."""
    model = copy.deepcopy(model).double()
    leaves = [p for p in model.parameters() if p.requires_grad]
    x = x.double() if x.is_floating_point() else x
    y = y.double() if y.is_floating_point() else y
    rows, losses = [], []
    for i in range(len(x)):
        value = loss(model(x[i : i + 1]), y[i : i + 1], reduction="none").sum()
        grads = torch.autograd.grad(value, leaves, allow_unused=True)
        pairs = zip(leaves, grads, strict=True)
        rows.append(torch.cat([(p * 0 if g is None else g).reshape(-1) for p, g in pairs]))
        losses.append(value)
    return torch.stack(rows).detach(), torch.stack(losses).detach()


def clipped(rows: Tensor, bound: float) -> Tensor:
    return (rows * (bound / rows.norm(dim=1)).clamp(max=1.0)[:, None]).sum(0)


def distance(total: Tensor, reference: Tensor) -> float:
    return float((total.double() - reference).norm() / reference.norm())


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_sums_equal_a_loop_of_batches_of_one(name: str, dtype: torch.dtype) -> None:
    model, x, y, kind = made(name, dtype)
    rows, losses = rows_of(model, x, y)
    bound = float(rows.norm(dim=1).median())  # half of the records are clipped
    reference = clipped(rows, bound)
    for microbatch in (None, 1, 4):
        engine = quiet(copy.deepcopy(model), microbatch=microbatch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = engine.clipped_sum(x, y, bound)
        assert type(engine._source) is kind
        assert distance(result.total, reference) <= LIMIT[dtype]
        assert distance(result.norms, rows.norm(dim=1)) <= LIMIT[dtype]
        assert distance(result.losses, losses) <= LIMIT[dtype]
        same = engine.transformed_sum(x, y, lambda rows: rows, bound)
        assert distance(same.total, reference) <= LIMIT[dtype]
        every = engine.clipped_sum(x, y, bound, mask=torch.ones(engine.size, dtype=torch.bool))
        assert distance(every.total, reference) <= LIMIT[dtype]


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("name", ["conv", "conv wide", "conv stride", "group norm", "pooling"])
def test_the_layout_of_the_images_does_not_matter(name: str, dtype: torch.dtype) -> None:
    model, x, y, _ = made(name, dtype)
    reference = clipped(rows_of(model, x, y)[0], 0.1)
    for images in (
        x.to(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([x, x], dim=1)[:, 1],
    ):
        result = Engine(copy.deepcopy(model), ce).clipped_sum(images, y, 0.1)
        assert distance(result.total, reference) <= LIMIT[dtype]


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1)


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[[], Tensor]]] = {
    "smoothed": (functools.partial(ce, label_smoothing=0.1),
                 lambda: torch.randint(0, CLASSES, (RECORDS,))),
    "weighted": (lambda o, t, reduction: ce(o, t, torch.arange(1.0, 5.0).to(o),
                                            reduction=reduction),
                 lambda: torch.randint(0, CLASSES, (RECORDS,))),
    "soft targets": (ce, lambda: torch.rand(RECORDS, CLASSES)),
    "ignored class": (ce, lambda: torch.tensor([-100, 1, 2, -100, 0, 1, 2, 3, 0, 1, -100])),
    "squared": (squared, lambda: torch.rand(RECORDS, CLASSES)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("net", ["mlp tanh", "mlp gelu", "conv"])
def test_any_loss_of_one_value_a_record(name: str, net: str) -> None:
    loss, targets = LOSSES[name]
    model, x, _, _ = made(net, torch.float64)
    y = targets()
    y = y.double() if y.is_floating_point() else y

    def with_reduction(o: Tensor, t: Tensor, reduction: str = "none") -> Tensor:
        return loss(o, t) if loss is squared else loss(o, t, reduction=reduction)

    rows, losses = rows_of(model, x, y, with_reduction)
    result = Engine(model, loss).clipped_sum(x, y, 0.5)
    assert distance(result.total, clipped(rows + 1e-300, 0.5)) <= 1e-12
    assert torch.allclose(result.losses, losses, rtol=1e-12)


def test_small_loads_and_the_order_of_records() -> None:
    model, x, y, _ = made("mlp", torch.float64)
    engine = Engine(model, ce)
    none = engine.clipped_sum(x[:0], y[:0], 1.0)
    assert none.total.shape == (engine.size,) and not none.total.any()
    assert len(none.norms) == len(none.losses) == none.skipped == 0
    whole = engine.clipped_sum(x, y, 0.3).total
    order = torch.randperm(RECORDS)
    assert distance(engine.clipped_sum(x[order], y[order], 0.3).total, whole) < 1e-12
    parts = sum(engine.clipped_sum(x[i : i + 1], y[i : i + 1], 0.3).total for i in range(RECORDS))
    assert distance(whole, parts) < 1e-12
    assert whole.data_ptr() != engine.clipped_sum(x, y, 0.3).total.data_ptr()


def test_no_bound_is_plain_gradient_descent_and_beyond_it_size_does_not_matter() -> None:
    model, x, y, _ = made("mlp", torch.float64)
    plain = rows_of(model, x, y)[0].sum(0)
    engine = Engine(model, ce)
    assert distance(engine.clipped_sum(x, y, math.inf).total, plain) < 1e-12
    small = engine.clipped_sum(x, y, 1e-3).total

    def louder(outputs: Tensor, targets: Tensor) -> Tensor:
        return 1000 * ce(outputs, targets, reduction="none")

    assert distance(Engine(model, louder).clipped_sum(x, y, 1e-3).total, small) < 1e-12


BAD = {"huge": 1e6, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "1e38": 1e38, "zero": 0.0}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    "name", ["mlp", "mlp gelu", "conv", "conv wide", "group norm", "layer norm", "bare parameter"]
)
def test_a_record_moves_the_sum_by_at_most_the_bound(name: str, value: str) -> None:
    model, x, y, _ = made(name, torch.float32)
    for bound, clipping in ((1.0, Flat()), (0.01, PerLayer()), (10.0, Automatic())):
        engine = quiet(copy.deepcopy(model), clipping=clipping)
        without = engine.clipped_sum(x[1:], y[1:], bound)
        bad = x.clone()
        bad[0] = BAD[value]
        for batch in (slice(None), slice(0, 1)):
            result = engine.clipped_sum(bad[batch], y[batch], bound)
            base = without.total if batch.stop is None else torch.zeros_like(without.total)
            assert torch.isfinite(result.total).all()
            assert float((result.total - base).double().norm()) <= bound * (1 + 1e-5)
            if not math.isfinite(BAD[value]):
                assert result.skipped == 1
                assert torch.equal(result.total, base) or distance(result.total, base) < 1e-6
        unlike = engine.transformed_sum(bad, y, torch.sign, bound)
        assert torch.isfinite(unlike.total).all()
        assert float(unlike.total.double().norm()) <= bound * RECORDS * (1 + 1e-5)


def test_a_token_seen_twice_is_clipped_however_its_gradients_cancel() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 1))
    head = model[2]
    with torch.no_grad():
        head.weight[0, 4:] = -head.weight[0, :4] * (1 + 1e-5)  # type: ignore[union-attr, index, operator]

    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square()

    for freezes in (False, True):
        head.requires_grad_(not freezes)
        engine = Engine(copy.deepcopy(model), squared)
        total = engine.clipped_sum(torch.tensor([[3, 3]]), torch.tensor([1e12]), 1.0).total
        assert 0.1 < float(total.double().norm()) <= 1 + 1e-5


def test_a_product_of_a_vanishing_and_a_huge_factor_is_clipped() -> None:
    model = nn.Sequential(nn.Linear(2, CLASSES))
    x, y = torch.full((2, 2), 1e-24), torch.zeros(2, dtype=torch.long)

    def loud(outputs: Tensor, targets: Tensor) -> Tensor:
        return 1e18 * ce(outputs, targets, reduction="none")

    frozen_bias = freeze(model, "0.bias")
    result = Engine(frozen_bias, loud).clipped_sum(x, y, 1e-7)
    assert float(result.total.norm()) <= 2e-7 * (1 + 1e-5)


def test_bad_targets_and_losses_are_counted_too() -> None:
    model, x, _, _ = made("mlp", torch.float32)
    y = torch.rand(RECORDS, CLASSES)
    engine = Engine(model, squared)
    clean = engine.clipped_sum(x[2:], y[2:], 1.0)
    y[0], y[1] = math.nan, math.inf
    result = engine.clipped_sum(x, y, 1.0)
    assert result.skipped == 2 and distance(result.total, clean.total.double()) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_a_mask_acts_before_the_clip(name: str) -> None:
    model, x, y, _ = made(name, torch.float64)
    engine = quiet(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine.clipped_sum(x[:3], y[:3], 1.0)
    mask = torch.rand(engine.size) < 0.3
    reference = clipped(rows_of(model, x, y)[0] * mask + 1e-300, 0.05)
    result = engine.clipped_sum(x, y, 0.05, mask=mask)
    assert distance(result.total, reference) <= 1e-12
    assert not result.total[~mask].any()
    assert distance(engine.clipped_sum(x, y, 0.05, mask=mask.float()).total, reference) <= 1e-12


def test_a_transform_acts_before_the_clip() -> None:
    model, x, y, _ = made("conv", torch.float64)

    def top(rows: Tensor) -> Tensor:
        kept = rows.abs().topk(20, dim=1).indices
        return torch.zeros_like(rows).scatter(1, kept, rows.gather(1, kept))

    reference = clipped(top(rows_of(model, x, y)[0]), 0.05)
    for microbatch in (None, 4):
        engine = Engine(copy.deepcopy(model), ce, microbatch=microbatch)
        result = engine.transformed_sum(x, y, top, 0.05)
        assert distance(result.total, reference) <= 1e-12


def test_a_transform_of_a_large_model_stays_within_memory_and_bound() -> None:
    """800,000 parameters: few rows at a time, and norms that are not told too small."""
    model = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, CLASSES))
    x, y = torch.randn(24, 784), torch.arange(24) % CLASSES
    exact = Engine(copy.deepcopy(model).double(), ce).clipped_sum(x.double(), y, 0.1).total
    engine, seen = Engine(model, ce), []

    def same(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows

    total = engine.transformed_sum(x, y, same, 0.1).total
    assert distance(total, exact) < 2e-6
    assert sum(seen) >= 24 and max(seen) * engine.size * 4 <= GRADIENT_BYTES
    lone = engine.transformed_sum(x[:1], y[:1], same, 0.1).total
    assert abs(float(lone.double().norm()) / 0.1 - 1) < 1e-6


def test_clipping_by_layer() -> None:
    model, x, y, _ = made("conv", torch.float64)
    rows = rows_of(model, x, y)[0]
    for shares in (None, (3.0, 4.0)):
        engine = Engine(copy.deepcopy(model), ce, clipping=PerLayer(shares))
        assert engine.blocks == ("0.0", "2")
        result = engine.clipped_sum(x, y, 0.05)
        cut = engine.slices["2.weight"].start
        bounds = (0.03, 0.04) if shares else (0.05 / math.sqrt(2),) * 2
        parts = [clipped(rows[:, :cut], bounds[0]), clipped(rows[:, cut:], bounds[1])]
        assert distance(result.total, torch.cat(parts)) < 1e-12
        one = engine.clipped_sum(x[:1], y[:1], 0.05)
        assert float(one.total.norm()) <= 0.05 * (1 + 1e-12)
    with pytest.raises(ValueError, match="2 layers .* got 3"):
        Engine(model, ce, clipping=PerLayer((1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="got -1"):
        PerLayer((1.0, -1.0))


def test_automatic_clipping() -> None:
    model, x, y, _ = made("mlp", torch.float64)
    rows = rows_of(model, x, y)[0]
    result = Engine(model, ce, clipping=Automatic(0.1)).clipped_sum(x, y, 2.0)
    reference = (rows * (2.0 / (rows.norm(dim=1) + 0.1))[:, None]).sum(0)
    assert distance(result.total, reference) < 1e-12
    with pytest.raises(ValueError, match="gamma"):
        Automatic(0.0)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "batch norm": (nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), "GroupNorm"),
    "batch norm without parameters": (nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(
        5, affine=False, track_running_stats=False)), "GroupNorm"),
    "sync batch norm": (nn.Sequential(nn.Linear(5, 5), nn.SyncBatchNorm(5)), "GroupNorm"),
    "running statistics": (nn.Sequential(nn.Conv1d(3, 3, 1), nn.InstanceNorm1d(
        3, track_running_stats=True)), "track_running_stats=False"),
    "max norm": (nn.Embedding(4, 4, max_norm=1.0), "max_norm=None"),
    "nothing to train": (nn.Linear(5, 5).requires_grad_(False), "requires_grad"),
    "half precision": (nn.Linear(5, 5).half(), "model.float()"),
    "two precisions": (nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5).double()), "one dtype"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused_at_once(name: str) -> None:
    model, remedy = REFUSED[name]
    with pytest.raises(ValueError, match=remedy.replace("(", r"\(").replace(")", r"\)")):
        Engine(model, ce)


class Through(nn.Module):
    """A linear layer followed by some function of the batch."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.line, self.function = nn.Linear(5, CLASSES), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.line(x))


class TokensThrough(nn.Module):
    """Integer inputs whose embedding is centred over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(13, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens).mean(1)
        return x - x.mean(0)


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "centred": lambda x: x - x.mean(0),
    "centred by a constant": lambda x: x - x.mean(0).detach(),
    "functional batch norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "maximum": lambda x: x / x.abs().max(),
    "cumulative": lambda x: x.cumsum(0).flip(0),
    "counted": lambda x: x / len(x),
    "rolled": lambda x: x.roll(1, 0),
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("records", [1, 2, RECORDS])
def test_functions_of_the_batch_are_refused(name: str, records: int) -> None:
    torch.manual_seed(0)
    engine = Engine(Through(MIXING[name]), ce)
    x, y = torch.randn(records, 5), torch.randint(0, CLASSES, (records,))
    with pytest.raises(CrossRecordError, match="record beside|records beside"):
        engine.clipped_sum(x, y, 1.0)


def test_mixing_of_tokens_is_refused_and_dropout_is_not() -> None:
    tokens, y = torch.randint(0, 13, (3, 7)), torch.tensor([0, 1, 2])
    for batch in (slice(None), slice(0, 1)):
        with pytest.raises(CrossRecordError):
            Engine(TokensThrough(), ce).clipped_sum(tokens[batch], y[batch], 1.0)
    dropping = nn.Sequential(nn.Linear(5, 50), nn.Dropout(0.5), nn.Linear(50, CLASSES))
    before = torch.get_rng_state()
    engine = Engine(dropping, ce)
    engine._prepare(torch.randn(3, 5, generator=torch.Generator()), y, 1.0)
    assert torch.equal(before, torch.get_rng_state())
    assert type(engine._source) is Taped and dropping.training


BAD_LOSSES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "mean": (lambda o, t: ce(o, t), 'reduction="none"'),
    "module": (nn.CrossEntropyLoss(), 'reduction="none"'),
    "matrix": (lambda o, t: o.square(), "positions of a record"),
    "compared": (lambda o, t: ce(o, t, reduction="none") - ce(o, t), "beside it"),
    "divided": (lambda o, t: ce(o, t, reduction="none") / len(o), "beside it"),
    "balanced": (lambda o, t: ce(o, t, reduction="none") / (t == t[:1]).sum(), "beside it"),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_losses_that_mix_records_are_refused(name: str) -> None:
    loss, reason = BAD_LOSSES[name]
    model, x, y, _ = made("mlp", torch.float32)
    with pytest.raises(ValueError, match=reason):
        Engine(model, loss).clipped_sum(x, y, 1.0)
    with pytest.raises(TypeError, match="cross_entropy"):
        Engine(model, "cross_entropy")  # type: ignore[arg-type]


def test_losses_that_look_at_the_classes_of_others_are_refused() -> None:
    def adjusted(outputs: Tensor, targets: Tensor, reduction: str = "none") -> Tensor:
        prior = torch.bincount(targets, minlength=CLASSES) / len(targets)
        return ce(outputs + torch.log(prior + 1e-3), targets, reduction=reduction)

    def balanced(outputs: Tensor, targets: Tensor, reduction: str = "none") -> Tensor:
        seldom = 1 / torch.bincount(targets, minlength=CLASSES)[targets]
        return seldom * ce(outputs, targets, reduction=reduction)

    x, y = torch.randn(6, 5), torch.zeros(6, dtype=torch.long)
    for loss in (adjusted, balanced):
        with pytest.raises(CrossRecordError, match="loss of one record changes"):
            Engine(mlp(nn.ReLU()), loss).clipped_sum(x, y, 1.0)


class Remembering(nn.Module):
    """Keeps a running mean of what it sees, and uses it in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, CLASSES)
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))  # type: ignore[operator, union-attr]
            return self.line(x)
        return self.line(x - self.seen)


class Counting(Remembering):
    """Counts its steps: a buffer that tells nothing of the records."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1.0)  # type: ignore[operator, union-attr]
        return self.line(x)


class Scaled(nn.Module):
    """Divides by the largest input of the batch, but only if that is large."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x / x.abs().max().clamp_min(4.0))


def test_what_remembers_or_mixes_only_large_records_is_refused() -> None:
    x, y = torch.randn(6, 5), torch.arange(6) % CLASSES
    model = Remembering()
    with pytest.raises(CrossRecordError, match="buffer seen changes with the records"):
        Engine(model, ce).clipped_sum(x, y, 1.0)
    assert not model.seen.any(), "the look left something behind"
    counting = Counting()
    Engine(counting, ce).clipped_sum(x, y, 1.0)
    assert counting.seen[0] == 1, "the look counted too"
    with pytest.raises(CrossRecordError, match="records beside it"):
        Engine(Scaled(), ce).clipped_sum(x, y, 1.0)


def test_evaluation_leaves_a_frozen_part_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(), nn.Linear(6, CLASSES))
    model[1].eval()
    Engine(model, ce).evaluate(torch.randn(4, 5), torch.arange(4) % CLASSES)
    assert model.training and not model[1].training


def test_bad_arguments_are_told_in_a_sentence() -> None:
    model, x, y, _ = made("mlp", torch.float32)
    engine = Engine(model, ce)
    for bound in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_grad_norm"):
            engine.clipped_sum(x, y, bound)
    with pytest.raises(ValueError, match="one row for each record"):
        engine.clipped_sum(x, y[1:], 1.0)
    with pytest.raises(ValueError, match="mask"):
        engine.clipped_sum(x, y, 1.0, mask=torch.ones(3))
    with pytest.raises(ValueError, match="shape"):
        engine.transformed_sum(x, y, lambda rows: rows.sum(0), 1.0)
    with pytest.raises(MemoryError, match="memory_budget"):
        Engine(model, ce, memory_budget=1).clipped_sum(x, y, 1.0)
    with pytest.raises(
        MemoryError, match="microbatch .* at most [1-9].* got 1,000,000: give fewer"
    ):
        Engine(model, ce, memory_budget=100_000, microbatch=1_000_000).clipped_sum(x, y, 1.0)
    for wrong in (0, 2.5, math.nan):
        with pytest.raises(ValueError, match="microbatch"):
            Engine(model, ce, microbatch=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="memory_budget"):
            Engine(model, ce, memory_budget=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one record"):
        engine.evaluate(x[:0], y[:0])
    model[0].weight = nn.Parameter(torch.zeros(7, 5))
    with pytest.raises(RuntimeError, match="Engine was made"):
        engine.clipped_sum(x, y, 1.0)


def test_an_input_changed_after_its_layer_is_refused() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            z = self.second(y)
            y.mul_(2)
            return z

    engine = Engine(Overwrites(), ce)
    with pytest.raises(RuntimeError, match="in place|inplace"):
        engine.clipped_sum(torch.randn(3, 5), torch.tensor([0, 1, 2]), 1.0)


@pytest.mark.parametrize("name", [n for n, net in NETS.items() if net[2] is Vmapped])
def test_the_fallback_is_told_once(name: str) -> None:
    model, x, y, _ = made(name, torch.float32)
    with pytest.warns(UserWarning, match="torch.func.vmap") as told:
        engine = Engine(model, ce)
        engine.clipped_sum(x, y, 1.0)
        engine.clipped_sum(x, y, 1.0)
    assert len(told) == 1 and told[0].filename == __file__


def test_what_cannot_be_differentiated_by_record_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.line = nn.Parameter(torch.ones(5)), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(x * self.scale if float(x.detach().sum()) else x)

    engine = quiet(Branches())
    with pytest.raises(ValueError, match="cannot be clipped"):
        engine.clipped_sum(torch.randn(3, 5), torch.tensor([0, 1, 2]), 1.0)


def test_parameters_are_one_vector_and_the_model_is_left_as_it_was() -> None:
    model, x, y, _ = made("conv wide", torch.float32)
    state = copy.deepcopy(model.state_dict())
    engine = Engine(model, ce)
    again = Engine(model, ce)
    assert again.parameters.data_ptr() == engine.parameters.data_ptr()
    engine.clipped_sum(x, y, 1.0)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert sum(s.stop - s.start for s in engine.slices.values()) == engine.size
    with torch.no_grad():
        engine.parameters.fill_(2.0)
    assert all((p == 2).all() for p in model.parameters())
    assert tuple(engine.slices) == engine.names == tuple(dict(model.named_parameters()))
    copied = copy.deepcopy(model)
    engine.parameters.zero_()
    assert all((p == 2).all() for p in copied.parameters())


def test_a_hook_of_the_user_is_heard() -> None:
    model, x, y, _ = made("mlp", torch.float32)
    engine = Engine(model, ce)
    engine.clipped_sum(x, y, 1.0)
    heard = []
    handle = model[0].register_forward_hook(lambda *_: heard.append(1))
    before = engine.clipped_sum(x, y, 1.0)
    handle.remove()
    assert heard and distance(engine.clipped_sum(x, y, 1.0).total, before.total.double()) < 1e-6


def test_evaluation() -> None:
    model, x, y, _ = made("mlp", torch.float64)
    dropping = nn.Sequential(model[0], nn.Dropout(0.9), model[2])
    engine = Engine(dropping, ce)
    loss, accuracy = engine.evaluate(x, y, batch=3)
    outputs = model[2](model[0](x))
    assert loss == pytest.approx(float(ce(outputs, y).detach()))
    assert accuracy == pytest.approx(float((outputs.argmax(1) == y).double().mean()))
    assert dropping.training
    assert Engine(model, squared).evaluate(x, torch.rand(RECORDS, CLASSES).double())[1] is None


@pytest.mark.parametrize("mine, theirs", [
    (SGD(), functools.partial(torch.optim.SGD, lr=1.0)),
    (SGD(momentum=0.9), functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9)),
    (SGD(momentum=0.9, weight_decay=0.1, nesterov=True),
     functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9, weight_decay=0.1, nesterov=True)),
    (Adam(), torch.optim.Adam),
    (Adam(0.8, 0.9, 1e-3, 0.1),
     functools.partial(torch.optim.Adam, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)),
])  # fmt: skip
def test_optimisers_follow_torch(mine: SGD | Adam, theirs: Callable) -> None:
    model, _, _, _ = made("conv", torch.float64)
    engines = [Engine(copy.deepcopy(model), ce) for _ in range(2)]
    updaters = [mine.start(engines[0]), TorchOptimiser(theirs).start(engines[1])]
    for step in range(5):
        gradient = torch.randn(engines[0].size, dtype=torch.float64)
        for updater in updaters:
            updater.step(gradient.clone(), learning_rate=0.1 / (1 + step))
    assert distance(engines[0].parameters, engines[1].parameters) < 1e-14
    assert not torch.equal(engines[0].parameters, Engine(model, ce).parameters)


def test_optimisers_that_are_refused() -> None:
    engine = Engine(nn.Linear(5, 5), ce)
    with pytest.raises(ValueError, match="closure"):
        TorchOptimiser(torch.optim.LBFGS).start(engine)
    with pytest.raises(ValueError, match="momentum"):
        SGD(nesterov=True)
    with pytest.raises(ValueError, match="momentum"):
        SGD(momentum=1.0)


def test_parameters_that_the_loss_does_not_reach_have_no_gradient() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.idle = Words(tied=True), nn.Linear(3, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.words.table(tokens).mean(1)

    model, tokens = Idle().double(), torch.randint(0, 13, (6, 7))
    y = torch.randint(0, 6, (6,))
    reference = clipped(rows_of(model, tokens, y)[0], 0.1)
    engine = Engine(model, ce)
    for _ in range(2):
        total = engine.clipped_sum(tokens, y, 0.1).total
        assert distance(total, reference) < 1e-12
        assert not total[engine.slices["idle.weight"]].any()
        total.fill_(math.nan)  # so that memory handed out again is seen
        del total


@pytest.mark.parametrize("count", [1, 2, 3, 7, 15, 17, 40])
def test_a_gradient_that_hangs_on_rounding_does_not_hang_on_the_company(count):
    """A constant image, normalised, is rounding alone: others must not change how it rounds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Flatten(), nn.Linear(36, 3)
    )
    engine = Engine(net, nn.functional.cross_entropy)
    x, y = torch.randn(41, 2, 5, 5), torch.arange(41) % 3
    x[0] = 1e6
    whole = engine.clipped_sum(x, y, 1.0).norms
    assert torch.allclose(engine.clipped_sum(x[:count], y[:count], 1.0).norms, whole[:count])


class Inside(nn.Module):
    """A model that turns on autocast by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


UNFIT: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor, str]] = {
    "float64 records": (lambda: mlp(nn.ReLU()), torch.zeros(6, 5).double(), torch.zeros(6).long(),
                        r"float64 .* parameters are float32; .* inputs.to\(torch.float32\)"),
    "float64 model": (lambda: mlp(nn.ReLU()).double(), torch.zeros(6, 5), torch.zeros(6).long(),
                      r"float32 .* parameters are float64; .* model.to\(torch.float32\)"),
    "integers to Linear": (lambda: mlp(nn.ReLU()), torch.zeros(6, 5).long(), torch.zeros(6).long(),
                           r"int64 .* Embedding layers alone; .* inputs.float\(\)"),
    "numbers to Embedding": (Words, torch.zeros(6, 5), torch.zeros(6).long(),
                             r"an Embedding takes whole numbers; .* inputs.long\(\)"),
    "another width": (lambda: mlp(nn.ReLU()), torch.zeros(6, 9), torch.zeros(6).long(),
                      r"shape \(N, 9\) .* first layer"),
    "targets of numbers": (lambda: mlp(nn.ReLU()), torch.zeros(6, 5), torch.zeros(6),
                           r"targets of shape \(N\) and float32 .* targets.long\(\)"),
    "autocast within": (Inside, torch.zeros(6, 5), torch.zeros(6).long(),
                        "Linear layer computes in bfloat16 .* out of the model"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_together_is_told_in_a_sentence(name: str) -> None:
    factory, x, y, told = UNFIT[name]
    for records in (6, 0):  # what is said depends on no record
        with pytest.raises(ValueError, match=told):
            Engine(factory(), ce).clipped_sum(x[:records], y[:records], 1.0)


def test_more_classes_than_outputs_are_refused_without_a_look_at_the_targets() -> None:
    x, y = torch.zeros(6, 5), torch.zeros(6, dtype=torch.long)
    for loss in (ce, functools.partial(ce, label_smoothing=0.1)):
        with pytest.raises(
            ValueError, match="4 outputs for the 5 classes .* give its last layer 5"
        ):
            Engine(mlp(nn.ReLU()), loss).prepare(x, y, classes=CLASSES + 1)
        Engine(mlp(nn.ReLU()), loss).prepare(x, y, classes=CLASSES)
    Engine(mlp(nn.ReLU()), squared).prepare(x, torch.zeros(6, CLASSES), classes=9)


def test_autocast_is_refused_at_every_step() -> None:
    model, x, y, _ = made("mlp", torch.float32)
    engine = Engine(model, ce)
    engine.clipped_sum(x, y, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="leave the autocast block"):
            engine.clipped_sum(x, y, 1.0)
    engine.clipped_sum(x, y, 1.0)


class Reshaped(nn.Module):
    """Records and positions in one dimension, as transformers are sometimes written."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.head = nn.Linear(3, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        lines = torch.tanh(self.line(x.reshape(-1, 3)))
        return self.head(lines.view(len(x), -1, 6).mean(1))


class Places(nn.Module):
    """Positions that are looked up once for all records."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places, self.head = (
            nn.Embedding(13, 6),
            nn.Embedding(7, 6),
            nn.Linear(6, 4),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.places(torch.arange(tokens.shape[1]))
        return self.head((self.table(tokens) * places).mean(1))


@pytest.mark.parametrize("net, shape", [(Reshaped, (5, 3)), (Reshaped, (1, 3)), (Places, (7,)),
                                        (Places, (3,)), (Places, (4,))])  # fmt: skip
def test_records_that_leave_the_first_dimension_are_clipped_all_the_same(net, shape) -> None:
    torch.manual_seed(0)
    model, y = net().double(), torch.arange(RECORDS) % CLASSES
    numbers = net is Reshaped
    x = (
        torch.randn(RECORDS, *shape).double()
        if numbers
        else torch.randint(0, 13, (RECORDS, *shape))
    )
    reference = clipped(rows_of(model, x, y)[0], 0.1)
    engine = Engine(model, ce)
    if shape == (1, 3):
        assert distance(engine.clipped_sum(x, y, 0.1).total, reference) <= 1e-12
        return
    with pytest.warns(UserWarning, match="vmap.*because .* first dimension|because some parameter"):
        total = engine.clipped_sum(x, y, 0.1).total
    assert distance(total, reference) <= 1e-12


class Recurrent(nn.Module):
    """A recurrent layer, or its cell in a loop."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.RNNBase):
            return self.head(self.layer(x)[0][:, -1])
        state = x.new_zeros(len(x), 6)
        for t in range(x.shape[1]):
            state = self.layer(x[:, t], state)
        return self.head(state)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_fused_recurrence_is_refused_and_the_remedy_works(kind: str) -> None:
    x, y = torch.randn(6, 5, 3).double(), torch.arange(6) % CLASSES
    fused = quiet(Recurrent(getattr(nn, kind)(3, 6, batch_first=True)).double())
    with pytest.raises(ValueError, match=f"its {kind} at once: loop .* torch.nn.{kind}Cell"):
        fused.clipped_sum(x, y, 0.1)
    model = Recurrent(getattr(nn, f"{kind}Cell")(3, 6)).double()
    reference = clipped(rows_of(model, x, y)[0], 0.1)
    assert distance(quiet(model).clipped_sum(x, y, 0.1).total, reference) <= 1e-12


@pytest.mark.filterwarnings("ignore:There is a performance drop because")
def test_an_lstm_is_clipped_where_vmap_can_and_else_refused() -> None:
    """torch hands single precision to oneDNN, which vmap takes apart, where there is oneDNN."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 5, 3), torch.arange(6) % CLASSES
    model = Recurrent(nn.LSTM(3, 6, batch_first=True))
    reference = clipped(rows_of(model, x, y)[0], 0.1)
    try:
        total = quiet(model).clipped_sum(x, y, 0.1).total
    except ValueError as error:
        assert "torch.nn.LSTMCell" in str(error)
    else:
        assert distance(total, reference) <= 2e-6
    with pytest.raises(ValueError, match="torch.nn.LSTMCell"):
        quiet(copy.deepcopy(model).double()).clipped_sum(x.double(), y, 0.1)


@pytest.mark.parametrize("rule", [SGD(), SGD(0.9), SGD(weight_decay=0.1), Adam()])
def test_a_move_by_a_sum_is_a_step_by_its_mean(rule: SGD | Adam) -> None:
    model, _, _, _ = made("mlp", torch.float64)
    engines = [Engine(copy.deepcopy(model), ce) for _ in range(2)]
    updaters = [rule.start(engine) for engine in engines]
    for _ in range(3):
        total = torch.randn(engines[0].size, dtype=torch.float64)
        updaters[0].move(total.clone(), 37.0, 0.2)
        updaters[1].step(total / 37.0, 0.2)
    assert distance(engines[0].parameters, engines[1].parameters) < 1e-14
    assert not torch.equal(engines[0].parameters, Engine(model, ce).parameters)


@pytest.mark.parametrize("name", [n for n in NETS if not n.startswith("attention")])
def test_no_tensor_is_made_on_another_device_than_its_neighbours(name: str) -> None:
    model, x, y, _ = made(name, torch.float32)
    with torch.device("meta"):
        engine = quiet(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            total = engine.clipped_sum(x, y, 1.0).total
            engine.transformed_sum(x, y, torch.sign, 1.0)
    assert total.device.type == "cpu" and torch.isfinite(total).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("name", NETS)
def test_a_gpu_gives_the_sums_of_the_processor(name: str) -> None:
    model, x, y, kind = made(name, torch.float64)
    rows = rows_of(model, x, y)[0]
    bound = float(rows.norm(dim=1).median())
    engine = quiet(model.to("cuda"))
    with warnings.catch_warnings(), torch.device("cuda"):  # masks made in forward follow
        warnings.simplefilter("ignore")
        result = engine.clipped_sum(x.to("cuda"), y.to("cuda"), bound)
    assert type(engine._source) is kind
    assert distance(result.total.cpu(), clipped(rows, bound)) <= LIMIT[torch.float64]
