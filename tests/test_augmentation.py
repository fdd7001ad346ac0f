"""Views of a record: the mean gradient is clipped, moves are moves, misuse is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from dpkit.gradients import Automatic, Engine, Flat, PerLayer, Shifts, Views

C = 0.4


def network(kind="cnn"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [nn.Flatten(), nn.Linear(36, 7)]
        if kind == "cnn":
            body = [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 7)]
        return nn.Sequential(*body, nn.Tanh(), nn.Linear(7, 3)).double()


def records(count=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 1, 6, 6, generator=rng, dtype=torch.float64)
    return inputs, torch.arange(count) % 3


def views(count=5, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Shifts(count, 1, mirrored=True).drawn(torch.device("cpu"))


def gradient(model, inputs, target):
    """Of the mean loss over some views, by plain autograd."""
    loss = functional.cross_entropy(model(inputs), target.expand(len(inputs)))
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


def total(engine, inputs, targets, some):
    return engine.transformed_sum(inputs, targets, lambda rows: rows, C, some)


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
@pytest.mark.parametrize("microbatch", [None, 1, 4])
def test_the_mean_over_views_is_what_is_clipped(kind, microbatch):
    (inputs, targets), some, model = records(), views(), network(kind)
    expected, norms, losses = 0.0, [], []
    for x, y in zip(inputs, targets, strict=True):
        each = some.of(x[None])
        rows = gradient(model, each, y)
        norms.append(float(rows.norm()))
        losses.append(functional.cross_entropy(model(each), y.expand(5)).item())
        expected = expected + rows * min(1.0, C / norms[-1])
    found = total(Engine(model, functional.cross_entropy, microbatch=microbatch), inputs, targets,
                  some)  # fmt: skip
    assert torch.allclose(found.total, expected, rtol=1e-9, atol=1e-12)
    assert found.norms.tolist() == pytest.approx(norms) and min(norms) > C
    assert found.losses.tolist() == pytest.approx(losses)


@pytest.mark.parametrize("clipping", [Flat(), PerLayer(), Automatic(0.01)])
@pytest.mark.parametrize("scale", [1.0, 1e8, float("nan"), float("inf")])
def test_a_record_moves_the_sum_by_c_however_many_views_it_has(clipping, scale):
    (inputs, targets), some = records(20), views(18)
    inputs[3] *= scale
    engine = Engine(network(), functional.cross_entropy, clipping)
    whole = total(engine, inputs, targets, some)
    keep = torch.arange(20) != 3
    apart = total(engine, inputs[keep], targets[keep], some)
    moved = float((whole.total - apart.total).norm())
    assert moved <= C * (1 + 1e-9) and whole.skipped == (0 if abs(scale) < 1e9 else 1)
    assert scale != 1.0 or moved > 0.3 * C, "a record counts"


def test_one_view_that_stays_is_no_augmentation():
    class Still(Views):
        count = 1

        def of(self, inputs):
            return inputs

    (inputs, targets), engine = records(), Engine(network(), functional.cross_entropy)
    seen = total(engine, inputs, targets, Still()).total
    assert torch.allclose(seen, engine.clipped_sum(inputs, targets, C).total, rtol=1e-12)


def test_a_batch_of_nobody_is_a_sum_of_nothing():
    inputs, targets = records(2)
    found = total(Engine(network(), functional.cross_entropy), inputs[:0], targets[:0], views())
    assert not found.total.any() and len(found.norms) == 0


def test_single_precision_keeps_its_bits_in_any_company():
    (inputs, targets), some = records(9), views()
    inputs = inputs.float()
    model = network().float()
    engine = Engine(model, functional.cross_entropy)
    alone = [total(engine, inputs[k : k + 1], targets[k : k + 1], some).norms for k in range(9)]
    assert torch.equal(torch.cat(alone), total(engine, inputs, targets, some).norms)


def test_shifts_are_moves_of_the_picture():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    found = Shifts(9, 1).drawn(torch.device("cpu")).of(image.expand(2, 1, 4, 5))
    assert found.shape == (18, 1, 4, 5) and torch.equal(found[:9], found[9:])
    middles = {tuple(view[0, 1:3, 1:4].flatten().tolist()) for view in found}
    wide = functional.pad(image, [1] * 4, mode="replicate")[0, 0]
    expected = {tuple(wide[1 + a : 3 + a, 1 + b : 4 + b].flatten().tolist())
                for a in range(3) for b in range(3)}  # fmt: skip
    assert middles == expected
    mirrored = Shifts(2, 0, mirrored=True).drawn(torch.device("cpu")).of(image)
    assert {bool(torch.equal(v, image[0])) for v in mirrored} == {True, False}
    assert any(torch.equal(v, image[0].flip(2)) for v in mirrored)


def test_all_moves_are_drawn_as_often():
    counts = torch.zeros(9)
    for seed in range(600):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for down, across, _ in Shifts(2, 1).drawn(torch.device("cpu")).moves:
                counts[3 * down + across] += 1
    assert counts.sum() == 1200 and (counts - 400 / 3).abs().max() < 60


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: Shifts(0), r"views \(K.*\[1, 1000\], got 0"),
        (lambda: Shifts(10, 1), r"whole number in \[1, 9\], as many .* by 1 pixels, got 10"),
        (lambda: Shifts(2, -1), r"pixels \(r.*got -1"),
        (lambda: Shifts().check((64,)), r"\(channels, height, width\), .* shape \(64,\): leave"),
        (lambda: Shifts(4, 5).check((1, 9, 4)), "less than the 4 pixels of .* side, got 5"),
    ],
)
def test_bad_input_is_told_in_a_sentence(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_more_views_than_gradients_fit_are_added_up_in_parts():
    (inputs, targets), some = records(3), views(18)
    whole = total(Engine(network(), functional.cross_entropy), inputs, targets, some)
    few = Engine(network(), functional.cross_entropy, microbatch=4)
    seen, examples = [], few._source.examples
    few._source.examples = lambda x, y: (seen.append(len(x)), examples(x, y))[1]
    parts = total(few, inputs, targets, some)
    assert max(seen) <= 4 and torch.allclose(parts.total, whole.total, rtol=1e-9)
    assert torch.allclose(parts.losses, whole.losses)


def test_right_answers_do_not_hang_on_the_company():
    """Constant images that are normalised are rounding: a look must count each as it would alone.

    Where the last chunk was as small as the records left over, taking one away moved the count of
    right answers by two.
    """
    for seed in range(60):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(2, 33, 3), nn.GroupNorm(33, 33), nn.Flatten(), nn.Linear(33 * 9, 3)]
        engine = Engine(nn.Sequential(*layers), functional.cross_entropy)
        inputs = torch.zeros(10, 2, 5, 5) + (2e6 * torch.rand(10, 1, 1, 1) - 1e6)
        with torch.no_grad():
            targets = torch.cat([engine.model(x).argmax(1) for x in inputs.split(8)])
        counts = [round(engine.evaluate(inputs[:n], targets[:n], 8)[1] * n) for n in (9, 10)]
        assert 0 <= counts[1] - counts[0] <= 1
