"""A. Record on D, replay on a neighbour with frozen outputs: nothing but one bounded sum moves.

After Cebere et al., "Privacy auditing by record and replay", PETS 2026.
"""

from __future__ import annotations

import multiprocessing
import warnings

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.gradients import Engine
from tests.privacy import cases
from tests.privacy.recording import drawn, record, violations

RECORDS = 10
FULL = dp.DPSGD(1.3, 0.7, 0.2)


def plan_of(method, sampler, relation):
    return dp.Plan(method, sampler, 1e-3, relation, accountant=dp.RDP())


def replayed(plan, layer, neighbour, *, seed=0, dtype=torch.float64, decisions=None, also=()):
    """Violations between a run and its replays on neighbours, one for each changed record.

    The record that `neighbour` poisons is in D; D' lacks it, or holds a harmless one in its
    place under REPLACE_ONE. For each of `also` another D' lacks, or replaces, that one record
    and keeps the poison: its outputs are compared with those of the same run on D.
    """
    inputs, targets = layer.records(RECORDS, seed, dtype)
    who = seed % RECORDS
    batches = decisions or drawn(plan.sampler, RECORDS, seed)
    if not any(who in batch for batch in batches):  # a record that is never drawn tells nothing
        batches = [np.union1d(batches[0], [who]).astype(np.int64), *batches[1:]]
    common = {"num_examples": RECORDS, "loss": layer.loss}
    poisoned = inputs.clone(), targets.clone()
    if neighbour.change:
        neighbour.change(*poisoned, who)
    left = record(plan, layer.model(dtype), poisoned, decisions=batches, **common)
    replaces = plan.neighbours is dp.Neighbours.REPLACE_ONE
    found = []
    for one in (who, *also):
        clean = (inputs, targets) if one == who and neighbour.change else None
        other = _replaced(poisoned, one, clean) if replaces else _removed(poisoned, one)
        there = batches if replaces else [_without(b, one) for b in batches]
        right = record(plan, layer.model(dtype), other, decisions=there, frozen=left, **common)
        present = [one in b for b in batches]
        found += violations(left, right, 2.0 if replaces else 1.0, present)
    return found


def _removed(data, one):
    keep = np.delete(np.arange(RECORDS), one)
    return data[0][keep], data[1][keep]


def _replaced(data, one, clean):
    """Another record in its place: the harmless one, else its mirror image."""
    inputs, targets = data[0].clone(), data[1].clone()
    if clean is not None:
        inputs[one], targets[one] = clean[0][one], clean[1][one]
    else:
        inputs[one] = -inputs[one] if inputs.is_floating_point() else 0
    return inputs, targets


def _without(batch, who):
    kept = batch[batch != who]
    return kept - (kept > who)


@pytest.mark.parametrize("combination", cases.combinations(), ids=cases.named)
def test_every_method_sampler_and_relation(combination):
    """Every neighbour, on a small network, under one combination."""
    plan = plan_of(*combination)
    for seed, neighbour in enumerate(cases.NEIGHBOURS):
        assert replayed(plan, cases.LAYERS[2], neighbour, seed=seed) == [], neighbour.name


@pytest.mark.parametrize("relation", [dp.Neighbours.ADD_REMOVE, dp.Neighbours.REPLACE_ONE],
                         ids=cases.named)  # fmt: skip
@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_every_layer(layer, relation):
    """Every neighbour, in every kind of layer; the changed record comes first for some seeds."""
    plan = plan_of(FULL, dp.Poisson(0.6, 2), relation)
    for seed, neighbour in enumerate(cases.NEIGHBOURS):
        assert replayed(plan, layer, neighbour, seed=10 * seed) == [], neighbour.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("neighbour", cases.NEIGHBOURS, ids=cases.named)
def test_every_neighbour_alone_and_in_empty_batches(neighbour, dtype):
    """The record alone in its batch, batches without it, and batches without anybody."""
    nobody = np.array([], dtype=np.int64)
    for relation in dp.Neighbours:
        plan = plan_of(FULL, dp.Poisson(0.5, 5), relation)
        decisions = [np.array([3]), nobody, np.array([1, 2]), np.array([3]), np.arange(RECORDS)]
        for layer in (cases.LAYERS[0], cases.LAYERS[3]):
            found = replayed(plan, layer, neighbour, seed=3, dtype=dtype, decisions=decisions)
            assert found == []


@pytest.mark.parametrize("neighbour", cases.NEIGHBOURS, ids=cases.named)
def test_a_data_set_of_one_record(neighbour):
    """N = 1: the record is there or replaced, or its coin says no."""
    layer = cases.LAYERS[0]
    plan = plan_of(FULL, dp.Poisson(0.5, 3), dp.Neighbours.REPLACE_ONE)
    batches = [np.array([0]), np.array([], dtype=np.int64), np.array([0])]
    data = layer.records(1, 0)
    changed = data[0].clone(), data[1].clone()
    if neighbour.change:
        neighbour.change(*changed, 0)
    left = record(plan, layer.model(), changed, num_examples=1, decisions=batches)
    right = record(plan, layer.model(), data, num_examples=1, decisions=batches, frozen=left)
    assert violations(left, right, 2.0, [True, False, True]) == []
    absent = [np.array([], dtype=np.int64)] * 3
    gone = record(plan, layer.model(), data, num_examples=1, decisions=absent, frozen=left)
    assert violations(left, gone, 1.0, [True, False, True]) == []


@pytest.mark.parametrize("look", [None, 3.0], ids=["public-removed", "paid-removed"])
def test_noise_that_reacts_sees_public_or_paid_answers_alone(look):
    """On D and on D' the same accuracies are seen, and the same noise follows from them.

    A paid look is a sum like any other: right answers, moved by one record by 1 at most.
    """
    reacting = dp.schedules.ValidationDecay(2.0, 0.9, 1, 1, 0.05, look_noise=look)
    plan = dp.Plan(dp.DPSGD(reacting, 0.7, 0.5), dp.Poisson(0.5, 8), 1e-3,
                   budget=dp.RDPBudget(60.0, 4.0))  # fmt: skip
    layer = next(layer for layer in cases.LAYERS if layer.name == "mlp")
    batches, whole = drawn(plan.sampler, RECORDS, 1), layer.records(RECORDS, 1)
    common = {"num_examples": RECORDS, "public": layer.records(16, 2)}
    left = record(plan, layer.model(), whole, decisions=batches, **common)
    looks = [d for d in left.draws if d.total.numel() == 1]
    assert len(left.ends) == 8 and len(looks) == (7 if look else 0)
    assert len({d.mechanism for d in left.draws}) > 2, "the noise did react"
    for who in range(RECORDS):
        there = [_without(b, who) for b in batches]
        right = record(plan, layer.model(), _removed(whole, who), decisions=there, frozen=left,
                       **common)  # fmt: skip
        right_looks = [d for d in right.draws if d.total.numel() == 1]
        for a, b in zip(looks, right_looks, strict=True):
            assert a.norm == 1 and abs(float(a.total - b.total)) <= 1
            b.total.copy_(a.total)  # the rest must be as ever
        assert not violations(left, right, 1.0, [who in b for b in batches])


@pytest.mark.parametrize("path", ["weights", "masked", "transformed"])
@pytest.mark.parametrize("clipping", cases.CLIPPINGS, ids=cases.named)
@pytest.mark.parametrize("layer", cases.LAYERS, ids=cases.named)
def test_every_clipping_on_every_path_of_the_engine(layer, clipping, path):
    """The engine's own promise: one record moves the sum by at most C, in microbatches too."""
    summed = _summing(layer, clipping, path)
    for seed, neighbour in enumerate(cases.NEIGHBOURS):
        inputs, targets = layer.records(RECORDS, seed)
        if neighbour.change:
            neighbour.change(inputs, targets, 4)
        keep = torch.tensor([i for i in range(RECORDS) if i != 4])
        sums = [summed(inputs, targets), summed(inputs[keep], targets[keep])]
        assert all(torch.isfinite(total).all() for total in sums), neighbour.name
        moved = float((sums[0] - sums[1]).norm())
        assert moved <= 0.7 * (1 + 1e-6), f"{neighbour.name} moved the sum by {moved}"
        if neighbour.removes:
            assert moved > 0, "the record counts for nothing"


def _summing(layer, clipping, path):
    """A function from a batch to the engine's sum, on one of its paths, in microbatches."""
    loss = layer.loss or torch.nn.functional.cross_entropy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fall-back tells itself; test_g asks for the word
        engine = Engine(layer.model(), loss, clipping, microbatch=4)
        engine.clipped_sum(*layer.records(4, 99), 0.7)
    if path == "transformed":
        # Smooth on purpose: the sign of a gradient that is zero but for rounding may flip with
        # the company that a record keeps in its batch, and no clip can undo that.
        return lambda x, y: engine.transformed_sum(x, y, torch.tanh, 0.7).total
    mask = (torch.arange(engine.size) % 3 > 0).double() if path == "masked" else None
    return lambda x, y: engine.clipped_sum(x, y, 0.7, mask).total


def test_many_pairs():
    """Random pairs, 10,000 of them in the long form: every layer, both precisions."""
    if not cases.LONG:
        assert _random_pairs(0, 60) == 60
        return
    with multiprocessing.get_context("fork").Pool(2) as pool:
        shares = [pool.apply_async(_random_pairs, (seed, 500)) for seed in range(20)]
        assert sum(share.get() for share in shares) == 10_000


def _random_pairs(seed, pairs):
    """Each recorded run is replayed on ten neighbours, as it costs no less than a replay."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    plans = [plan_of(*c) for c in cases.combinations()]
    for _ in range(pairs // RECORDS):
        plan, layer, neighbour = (
            some[rng.integers(len(some))] for some in (plans, cases.LAYERS, cases.NEIGHBOURS)
        )
        who, dtype = int(rng.integers(2**31)), (torch.float64, torch.float32)[rng.integers(2)]
        also = [one for one in range(RECORDS) if one != who % RECORDS]
        found = replayed(plan, layer, neighbour, seed=who, dtype=dtype, also=also)
        assert found == [], (found, layer.name, neighbour.name, who, dtype, plan)
    return pairs // RECORDS * RECORDS
