"""G. What must not change a private step, and what it must turn into at its limits."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import dpkit as dp
from dpkit.gradients import Engine, Flat
from tests.privacy import cases
from tests.privacy.recording import drawn, record

RECORDS = 11
CLIP = 0.7


def engine_for(layer, clipping=None, microbatch=None, dtype=torch.float64, loss=None):
    loss = loss or layer.loss or torch.nn.functional.cross_entropy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = Engine(layer.model(dtype), loss, clipping or Flat(), microbatch=microbatch)
        engine.clipped_sum(*layer.records(4, 99, dtype), CLIP)
    return engine


def one_by_one(layer, inputs, targets, clip):
    """Clipped gradients from batches of one by plain autograd."""
    model = layer.model()
    loss = layer.loss or (lambda o, t: torch.nn.functional.cross_entropy(o, t, reduction="none"))
    total, norms = 0.0, []
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        model.zero_grad()
        loss(model(x), y).sum().backward()
        g = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        norms.append(float(g.norm()))
        total = total + g * min(1.0, clip / norms[-1])
    return total, torch.tensor(norms, dtype=torch.float64)


@pytest.mark.parametrize("clip", [0.05, 0.7, 1e9])
@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_every_layer_against_a_loop_of_batches_of_one(layer, clip):
    """Norms and clipped sums, tied weights included."""
    inputs, targets = layer.records(RECORDS, 1)
    found = engine_for(layer).clipped_sum(inputs, targets, clip)
    total, norms = one_by_one(layer, inputs, targets, clip)
    assert torch.allclose(found.norms, norms, rtol=1e-9)
    assert float((found.total - total).norm()) <= 1e-10 * float(total.norm())


@pytest.mark.parametrize("clipping", cases.CLIPPINGS, ids=cases.named)
@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_microbatches_and_order_change_nothing(layer, clipping):
    inputs, targets = layer.records(RECORDS, 2)
    whole = engine_for(layer, clipping).clipped_sum(inputs, targets, CLIP).total
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(0))
    for microbatch in (1, 4):
        engine = engine_for(layer, clipping, microbatch)
        for x, y in ((inputs, targets), (inputs[order], targets[order])):
            again = engine.clipped_sum(x, y, CLIP).total
            assert torch.allclose(again, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_the_last_batch_leaves_no_trace(layer):
    """Another batch in between, or a poisoned one, does not change the next sum."""
    engine = engine_for(layer)
    inputs, targets = layer.records(RECORDS, 3)
    first = engine.clipped_sum(inputs, targets, CLIP).total.clone()
    other = layer.records(5, 4)
    if other[0].is_floating_point():
        other[0][2] = math.nan
    engine.clipped_sum(*other, CLIP)
    assert torch.equal(engine.clipped_sum(inputs, targets, CLIP).total, first)


@pytest.mark.parametrize("layer", [x for x in cases.LAYERS if x.loss is None], ids=cases.named)
def test_gradients_beyond_the_clip_may_grow_without_effect(layer):
    """A thousand times the loss, the same sum."""

    def scaled(factor):
        def loss(outputs, targets, reduction="none"):
            return factor * torch.nn.functional.cross_entropy(outputs, targets, reduction=reduction)

        return loss

    inputs, targets = layer.records(RECORDS, 5)
    sums = [
        engine_for(layer, loss=scaled(factor)).clipped_sum(inputs, targets, 1e-3).total
        for factor in (1e3, 1e6)
    ]
    assert torch.allclose(sums[0], sums[1], rtol=1e-9, atol=1e-15)
    assert float(sums[0].norm()) > 1e-4


@pytest.mark.parametrize("method", cases.METHODS, ids=cases.named)
def test_record_order_changes_neither_sums_nor_noise(method):
    layer, plan = cases.LAYERS[2], dp.Plan(method, dp.Poisson(0.5, 5), 1e-3, accountant=dp.RDP())
    inputs, targets = layer.records(RECORDS, 6)
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order).numpy()
    batches = drawn(plan.sampler, RECORDS, 0)
    common = {"num_examples": RECORDS, "seed": 0}
    left = record(plan, layer.model(), (inputs, targets), decisions=batches, **common)
    moved = [place[b] for b in batches]
    right = record(plan, layer.model(), (inputs[order], targets[order]), decisions=moved, **common)
    for a, b in zip(left.draws, right.draws, strict=True):
        assert torch.allclose(a.total, b.total, rtol=1e-9, atol=1e-12)
        assert torch.allclose(a.noise, b.noise, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_noise_and_clip_it_is_sgd(momentum):
    layer = cases.LAYERS[2]
    inputs, targets = layer.records(RECORDS, 7)
    plan = dp.Plan(dp.DPSGD(0.0, 1e6, 0.3, momentum), dp.Poisson(1.0, 8), 1e-3)
    log = record(plan, layer.model(), (inputs, targets), num_examples=RECORDS)
    plain = layer.model()
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.3, momentum=momentum)
    for _ in range(8):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(plain(inputs), targets).backward()
        optimiser.step()
    for ours, theirs in zip(log.weights[-1], plain.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_what_mixes_records_is_refused_before_any_noise_is_drawn():
    def centred(outputs, targets, reduction="none"):
        return (outputs - outputs.mean(0)).square().sum(1)

    layer = cases.LAYERS[0]
    with pytest.raises(ValueError, match="beside it"):
        engine_for(layer, loss=centred)
    mixing = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="BatchNorm"):
        Engine(mixing, torch.nn.functional.cross_entropy)
    with pytest.raises(ValueError, match="reduction"):
        engine_for(layer, loss=lambda o, t: torch.nn.functional.cross_entropy(o, t))


@pytest.mark.parametrize("layer", [x for x in cases.LAYERS if x.slow], ids=cases.named)
def test_a_slow_path_is_told(layer):
    with pytest.warns(UserWarning, match="slower, because"):
        engine = Engine(layer.model(), torch.nn.functional.cross_entropy)
        engine.clipped_sum(*layer.records(4, 0), CLIP)
