"""M. Masks: before the clip, noise on the support alone, and nothing else moves by a bit."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.gradients import SGD, Adam, Engine
from dpkit.gradients.linear import MaskedOuter
from dpkit.methods import Freeze, Magnitude, Mask, PublicGradient, Random, Select
from dpkit.schedules import at
from tests.privacy import cases
from tests.privacy.recording import Recording, deciding, listening, published, record, smuggled

RECORDS, LONG_RUN = 12, 1_000
NET = next(layer for layer in cases.LAYERS if layer.name == "layer norm")
MASKS = [
    Freeze(0.9), Freeze(0.5, Magnitude()), Freeze(0.7, PublicGradient(4), ("*bias",)),
    Select(0.9, scaled_norm=True), Select(0.5, Magnitude(), ("2",)), Select(0.3, PublicGradient()),
    Freeze(dp.schedules.StepDecay(0.9, 0.5, 3)), Freeze(0.5, Magnitude(), scaled_norm=True),
]  # fmt: skip
"""Both kinds, every criterion, with and without exempt layers and the scaled norm."""
RULES = {
    "plain": {}, "momentum": {"momentum": 0.9},
    "nesterov and decay": {"optimiser": SGD(0.9, 0.1, True)},
    "Adam and decay": {"optimiser": Adam(weight_decay=0.1)},
    "averaged": {"momentum": 0.9, "averaging": 0.9},
}  # fmt: skip


def plan_of(mask, sigma=1.2, steps=8, rate=0.5, **rule):
    method = dp.DPSGD(sigma, 0.7, 0.05, mask=mask, **rule)
    return dp.Plan(method, dp.Poisson(rate, steps), 1e-3, accountant=dp.RDP())


def named(value):
    if not isinstance(value, Mask):
        return str(value)
    ratio = value.ratio if isinstance(value.ratio, float) else "falling"
    exempt = "-exempt" if value.exempt else ""
    scaled = "-scaled" if value.scaled_norm else ""
    return f"{type(value).__name__}-{type(value.by).__name__}-{ratio}{exempt}{scaled}"


def run(plan, seed=0, model=None):
    return record(plan, model or NET.model(), NET.records(RECORDS, 1), num_examples=RECORDS,
                  seed=seed)  # fmt: skip


def flat(weights):
    return torch.cat([w.reshape(-1) for w in weights])


def supports(mask, log, start):
    """The supports as the docstrings have them, worked out anew from the weights of a log."""
    model = NET.model()
    names = [(name, p.numel()) for name, p in model.named_parameters()]
    free = torch.cat([torch.full((n,), not _exempt(name, mask)) for name, n in names])
    places, found = free.nonzero().flatten(), []
    for step in range(len(log.weights)):
        chosen = start if step == 0 or isinstance(mask, Freeze) else flat(log.weights[step - 1])
        when = 0 if isinstance(mask, Freeze) else step
        scores = _scores(mask.by, when, chosen, model)[places]
        kept = math.ceil(round((1 - at(mask.ratio, step)) * len(places), 9))
        inside = ~free
        inside[places[scores.argsort(descending=True)[:kept]]] = True
        found.append(inside)
    return found


def _exempt(name, mask):
    return ("*bias" in mask.exempt and "bias" in name) or name.split(".")[0] in mask.exempt


def _scores(by, step, weights, model):
    if isinstance(by, Random):
        lots = np.random.Generator(np.random.PCG64([by.seed, step]))
        return torch.from_numpy(lots.random(len(weights), dtype=np.float32))
    if isinstance(by, Magnitude):
        return weights.abs()
    x, y = _public()
    chosen = torch.randperm(6, generator=torch.Generator().manual_seed(by.seed + step))[: by.count]
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]).abs()


@pytest.mark.parametrize("mask", MASKS, ids=named)
def test_the_support_is_what_the_docstrings_say(mask):
    start = flat(NET.model().state_dict().values())
    log = run(plan_of(mask))
    before = start
    for inside, weights, draw in zip(
        supports(mask, log, start), log.weights, log.draws, strict=True
    ):
        now = flat(weights)
        assert torch.equal(now != before, inside), "moved: the support, all of it and no more"
        assert draw.total.shape == (int(inside.sum()),)
        before = now


@pytest.mark.parametrize("mask", MASKS, ids=named)
def test_each_record_is_clipped_on_the_support(mask):
    """The sum of each step against per-example gradients by torch, restricted and then clipped."""
    plan = plan_of(mask, rate=1.0, steps=4)
    start = flat(NET.model().state_dict().values())
    log, before = run(plan), start
    for inside, weights, draw in zip(
        supports(mask, log, start), log.weights, log.draws, strict=True
    ):
        rows = _rows(before)[:, inside]
        share = float(inside.sum()) / len(inside)
        bound = 0.7 * (math.sqrt(share) if mask.scaled_norm else 1.0)
        wanted = (rows * (bound / rows.norm(dim=1)).clamp_max(1.0)[:, None]).sum(0)
        assert draw.norm == pytest.approx(bound, rel=1e-12)
        assert torch.allclose(draw.total, wanted, rtol=1e-8, atol=1e-12)
        before = flat(weights)


def _rows(weights):
    model, rows = NET.model(), []
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    for x, y in zip(*NET.records(RECORDS, 1), strict=True):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x[None]), y[None]).backward()
        rows.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone())
    return torch.stack(rows)


@pytest.mark.parametrize("rule", RULES)
def test_noise_never_touches_a_frozen_coordinate_in_a_thousand_steps(rule):
    """Bit for bit, whatever remembers, pulls or averages."""
    for mask in (Freeze(0.9, exempt=("2",)), Freeze(0.5, Magnitude())):
        model = NET.model(torch.float32)
        start = flat(p.detach() for p in model.parameters()).clone()
        inside = supports(mask, _Log, start.double())[0]
        data = smuggled(*NET.records(RECORDS, 1, torch.float32))
        plan = plan_of(mask, 4.0, LONG_RUN, 0.05, **RULES[rule])
        for last in dp.train(model, data, plan, seed=3):
            now = flat(p.detach() for p in model.parameters())
            assert torch.equal(now[~inside], start[~inside]), last.step
        assert last.step == LONG_RUN and bool((now != start)[inside].all())


class _Log:
    weights = (None,)


@pytest.mark.parametrize("rule", RULES)
def test_what_a_step_does_not_select_stays_in_it(rule):
    for mask in (Select(0.8, Random(4)), Select(0.5, Magnitude())):
        log, before = run(plan_of(mask, steps=30, **RULES[rule])), None
        for weights, draw in zip(log.weights, log.draws, strict=True):
            now = flat(weights)
            if before is not None:
                assert int((now != before).sum()) <= draw.total.numel()
            before = now


@pytest.mark.parametrize("rule", ["momentum", "nesterov and decay", "Adam and decay"])
def test_an_optimiser_remembers_the_support_alone(rule):
    """Against torch on the very coordinates that are kept, with the noise as the gradient."""
    mask, steps = Freeze(0.6), 6
    start = flat(NET.model().state_dict().values())
    log = run(plan_of(mask, steps=steps, **RULES[rule]))
    inside = supports(mask, log, start)[0]
    own = torch.nn.Parameter(start[inside].clone())
    theirs = {
        "momentum": lambda: torch.optim.SGD([own], 0.05, 0.9),
        "nesterov and decay": lambda: torch.optim.SGD([own], 0.05, 0.9, 0, 0.1, nesterov=True),
        "Adam and decay": lambda: torch.optim.Adam([own], 0.05, weight_decay=0.1),
    }[rule]()
    for weights, draw in zip(log.weights, log.draws, strict=True):
        own.grad = draw.noisy / (0.5 * RECORDS)
        theirs.step()
        assert torch.allclose(flat(weights)[inside], own.detach(), rtol=1e-9, atol=1e-12)


def test_momentum_under_a_changing_support_moves_by_what_was_kept_of_each_coordinate():
    """A coordinate's velocity waits while the coordinate does."""
    log = run(plan_of(Select(0.5, Random(2)), steps=9, momentum=0.9))
    start = flat(NET.model().state_dict().values())
    velocity, before = torch.zeros_like(start), start
    for inside, weights, draw in zip(
        supports(Select(0.5, Random(2)), log, start), log.weights, log.draws, strict=True
    ):
        velocity[inside] = 0.9 * velocity[inside] + draw.noisy / (0.5 * RECORDS)
        now = flat(weights)
        assert torch.allclose(now - before, -0.05 * velocity * inside, rtol=1e-8, atol=1e-12)
        before = now


def test_epsilon_does_not_depend_on_the_mask():
    prices = {plan_of(mask).epsilon() for mask in [None, *MASKS]}
    ledgers = {plan_of(mask).ledger() for mask in [None, *MASKS]}
    assert len(prices) == len(ledgers) == 1
    assert {run(plan_of(mask)).epsilon for mask in MASKS[:3]} == prices


def test_the_private_records_do_not_choose_the_support():
    """Others in their place, with the same noisy sums: the same supports at every step."""
    for mask in MASKS:
        plan = plan_of(mask, rate=1.0)
        left, right = run(plan), Recording()
        model = NET.model()
        other = smuggled(*NET.records(RECORDS, 77), public=_public())
        with listening(right, left.draws), deciding(plan.sampler, [np.arange(RECORDS)] * 8):
            for step, _ in enumerate(dp.train(model, other, plan, seed=0)):
                now = flat(p.detach() for p in model.parameters())
                assert torch.equal(now, flat(left.weights[step])), named(mask)


def _public():
    inputs, targets = published(torch.zeros(2, 6, dtype=torch.float64))
    return inputs.double(), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_every_layer_on_a_support_is_its_rows_on_it(layer, kept, dtype):
    """Sparse products, gathered rows and frozen layers against whole rows times a mask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = Engine(layer.model(dtype), layer.loss or torch.nn.functional.cross_entropy)
        engine.clipped_sum(*layer.records(2, 0, dtype), 0.7)
    stream = torch.Generator().manual_seed(5)
    mask = torch.rand(engine.size, generator=stream) < kept
    mask[torch.randint(engine.size, (1,), generator=stream)] = True
    batch = layer.records(RECORDS, 0, dtype)
    rows = engine.transformed_sum(*batch, lambda rows: rows * mask, 0.7)
    found = engine.clipped_sum(*batch, 0.7, mask)
    tolerance = 1e-9 if dtype is torch.float64 else 1e-4
    assert torch.allclose(found.norms, rows.norms, rtol=tolerance, atol=tolerance)
    assert torch.allclose(found.total, rows.total, rtol=tolerance, atol=tolerance)
    views = engine.transformed_sum(*batch, lambda rows: rows, 0.7, mask=mask)
    assert torch.allclose(views.total, rows.total, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("inputs", "outputs", "kept", "summed"), [
    (60, 90, 0.1, True), (60, 90, 0.5, False), (90, 60, 0.5, False), (90, 60, 0.13, True),
])  # fmt: skip
def test_a_wide_layer_is_clipped_on_its_support(inputs, outputs, kept, summed):
    """The paths that narrow layers never take, with records that are no numbers and giant ones."""
    wide = torch.nn.Sequential(torch.nn.Linear(6, inputs), torch.nn.Tanh(),
                               torch.nn.Linear(inputs, outputs), torch.nn.ReLU(),
                               torch.nn.Linear(outputs, 3))  # fmt: skip
    engine = Engine(wide.double(), torch.nn.functional.cross_entropy)
    x, y = NET.records(150, 3)
    x[2], x[4] = float("nan"), 1e6
    mask = torch.rand(engine.size, generator=torch.Generator().manual_seed(1)) < kept
    made, original = [], MaskedOuter._summed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MaskedOuter, "_summed", lambda self, *a: (made.append(1), original(self, *a))[1]
        )
        found = engine.clipped_sum(x, y, 0.01, mask)
    rows = engine.transformed_sum(x, y, lambda rows: rows * mask, 0.01)
    assert bool(made) == summed and found.skipped == rows.skipped == 1
    sound = torch.arange(150) != 2
    assert torch.allclose(found.norms[sound], rows.norms[sound], rtol=1e-9, atol=1e-12)
    assert torch.allclose(found.total, rows.total, rtol=1e-9, atol=1e-12)
    keep = torch.arange(150) != 4
    moved = found.total - engine.clipped_sum(x[keep], y[keep], 0.01, mask).total
    assert 0 < float(moved.norm()) <= 0.01 * (1 + 1e-9)


@pytest.mark.parametrize("kept", ["attend.out_proj", "attend.out_proj.weight", "head", "table"])
def test_attention_on_a_part_of_its_weights_is_the_whole_sums_part(kept):
    """A. Without a clip, the sum on a support is that of all weights, cut out."""
    layer = next(layer for layer in cases.LAYERS if layer.name == "multi-head attention")
    inputs, targets = layer.records(20, 0)
    engine = Engine(layer.model(), torch.nn.functional.cross_entropy)
    mask = torch.zeros(engine.size, dtype=torch.bool)
    for name, place in engine.slices.items():
        mask[place] = name == kept or name.startswith(f"{kept}.")
    assert mask.any()
    whole = engine.clipped_sum(inputs, targets, 1e9).total.clone()
    part = engine.clipped_sum(inputs, targets, 1e9, mask).total
    assert torch.allclose(part, whole * mask, atol=1e-12) and float(part.norm()) > 0
