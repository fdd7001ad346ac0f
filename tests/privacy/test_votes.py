"""V. Votes: record on D, replay on a neighbour; one record moves each sum by what is charged.

Whatever is public between two runs with the same noisy sums must be the same to the last bit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.spending import Spend
from dpkit.votes import Discriminator, Generator, VotePlan, generate
from dpkit.votes.shards import Shards
from tests.privacy.cases import NEIGHBOURS, named
from tests.privacy.recording import Recording, drawing_kinds, listening, smuggled

RECORDS, WIDTH, CLASSES = 24, 6, 3
FAR = 40.0
PLANS = {
    "all": VotePlan(6, WIDTH, 9.0, 4, 0.3, 6.0, 1e-3),
    "top": VotePlan(6, 2, 9.0, 5, 0.0, 4.0, 1e-3),
    "chance": VotePlan(5, 3, 9.0, 3, 0.2, 4.0, 1e-3, stochastic=0.01),
    "twice": VotePlan(6, WIDTH, 9.0, 4, 0.3, 20.0, 1e-3, copies=2),
}
WIDE = Discriminator(hidden=64, width=1000.0)
"""Hidden units that hardly turn between records: a critic that is almost a plane."""


def data(seed=0):
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.standard_normal((RECORDS, WIDTH))).float()
    return inputs, torch.arange(RECORDS) % CLASSES


def ran(plan, records, ids, frozen=None, discriminator=WIDE, seed=3):
    """A run through the public entry point: its draws, and all that it made public."""
    log = Recording()
    dataset = smuggled(*records)
    object.__setattr__(dataset, "classes", tuple("abc"))
    with listening(log, None if frozen is None else frozen.draws):
        steps = generate(
            dataset, plan, discriminator=discriminator, generator=Generator(hidden=8),
            ids=ids, seed=seed, num_examples=RECORDS,
        )  # fmt: skip
        for step in steps:
            log.ends.append(len(log.draws))
            shown = (step.labels, step.images, step.noisy, step.direction, step.painter.output)
            log.weights.append([v.clone() for v in shown])
            log.public.append(f"{step.step} {step.steps} {step.epsilon!r}")
    log.ledger, log.epsilon = step.ledger, step.epsilon
    return log


def implied(plan):
    """How far a record may move a sum for the charge to be right: in votes."""
    return plan.noise / plan.charged.noise_multiplier


def differences(plan, left, right):
    """What tells two neighbours apart beyond their noisy sums."""
    found = [] if left.ends == right.ends else [f"releases: {left.ends}, {right.ends}"]
    for number, (a, b) in enumerate(zip(left.draws, right.draws, strict=True)):
        if a.mechanism != b.mechanism or a.norm != b.norm or a.total.shape != b.total.shape:
            found.append(f"draw {number}: {a.mechanism}, {a.norm}; {b.mechanism}, {b.norm}")
        if not (torch.isfinite(a.total).all() and torch.isfinite(b.total).all()):
            found.append(f"draw {number}: a sum that is not finite")
        if float((a.total - b.total).norm()) > implied(plan) * (1 + 1e-6):
            found.append(f"draw {number}: moved by {float((a.total - b.total).norm())}")
    for step, (a, b) in enumerate(zip(left.weights, right.weights, strict=True)):
        if not all(torch.equal(x, y) for x, y in zip(a, b, strict=True)):
            found.append(f"step {step}: what is public differs though every noisy sum is the same")
    if (left.ledger, left.public) != (right.ledger, right.public):
        found.append("the ledger or the public stream")
    return found


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=named)
def test_a_record_moves_each_sum_by_what_is_charged_and_nothing_else(neighbour, plan):
    """Every way of changing a record, in a row of records; others keep their ids."""
    for who in (0, 7, RECORDS - 1):
        clean, ids = data(who), np.arange(RECORDS) * 7 + 1
        if neighbour.removes:
            keep = np.delete(np.arange(RECORDS), who)
            other, theirs = (clean[0][keep], clean[1][keep]), ids[keep]
        else:
            other, theirs = (clean[0].clone(), clean[1].clone()), ids
            neighbour.change(*other, who)
        left = ran(plan, clean, ids)
        right = ran(plan, other, theirs, frozen=left)
        assert differences(plan, left, right) == [], neighbour.name


@pytest.mark.parametrize("plan", ["all", "top", "twice"])
def test_the_bound_is_reached_by_the_worst_record(plan):
    """All of a teacher's votes turn round, in every teacher that holds the record."""
    plan = PLANS[plan]
    inputs, targets = data()
    inputs[:] = 0.01 * inputs
    targets[:] = 1
    targets[5] = 0  # the only record of its class: its teachers follow it alone
    inputs[5] = FAR
    mirrored = inputs.clone()
    mirrored[5] = -FAR
    left = ran(plan, (inputs, targets), range(RECORDS))
    right = ran(plan, (mirrored, targets), range(RECORDS), frozen=left)
    moved = max(float((a.total - b.total).norm())
                for a, b in zip(left.draws, right.draws, strict=True))  # fmt: skip
    assert moved == pytest.approx(2 * plan.copies * plan.bound, rel=1e-6)
    assert implied(plan) == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_ledger_is_what_was_drawn_and_stays_within_the_budget(plan):
    log = ran(plan, data(), range(RECORDS))
    assert log.ledger == plan.ledger() and log.ledger.steps == len(log.draws)
    assert log.epsilon == plan.epsilon() <= plan.budget
    more = dp.Ledger.of([(plan.charged, len(log.draws) + plan.images)], log.ledger.relation)
    assert plan.accountant.epsilon(more, plan.delta) > plan.budget, "a step more would not fit"
    assert {d.norm for d in log.draws} == {plan.bound}
    assert all(d.total.shape == (WIDTH,) for d in log.draws), "one draw for each image"


def test_every_charge_is_written_before_its_noise_is_drawn(monkeypatch):
    plan, charged, seen = PLANS["all"], [], []
    original = Spend.charge
    monkeypatch.setattr(
        Spend, "charge", lambda self, entries: (original(self, entries), charged.extend(entries))
    )
    for kind in drawing_kinds():
        draw = kind.__dict__["draw"]
        monkeypatch.setattr(
            kind, "draw",
            lambda *a, draw=draw: (seen.append(sum(n for _, n in charged)), draw(*a))[1],
        )  # fmt: skip
    ran(plan, data(), range(RECORDS))
    assert len(seen) == plan.steps * plan.images
    assert all(paid >= drawn + 1 for drawn, paid in enumerate(seen))


def test_noise_goes_on_every_coordinate_and_has_the_charged_scale():
    """Teachers vote on one coordinate of 4,000: the others are as noisy as that one."""
    wide, plan = 4000, VotePlan(6, 1, 30.0, 4, 0.0, 3.0, 1e-3, most_steps=4)
    inputs = torch.zeros(RECORDS, wide)
    inputs[:, 0] = 1.0
    log = ran(plan, (inputs, data()[1]), range(RECORDS))
    noise = torch.stack([d.noise for d in log.draws])
    assert (torch.stack([d.total for d in log.draws]) == 0).double().mean() > 0.99
    n = noise.numel()
    assert abs(float((noise / 30.0).square().mean()) - 1) < 5 * math.sqrt(2 / n)
    for step, shown in enumerate(log.weights):
        drawn = torch.stack([d.noisy for d in log.of_step(step)])
        assert torch.equal(shown[2], drawn), "what is told as noisy is what was drawn"
    repeats = [float((noise[a] == noise[a + 1]).double().mean()) for a in range(len(noise) - 1)]
    assert max(repeats) < 1e-2, "the same noise again"


def test_a_record_is_dealt_out_by_its_own_id_alone():
    """Other records, their number and their order change nothing; nobody is held twice."""
    ids, shards = np.arange(500) * 3 + 1, Shards(40, key=bytes(16))
    places = shards.filled(ids.tolist(), 500)
    held = {int(ids[row]): t for t, row_set in enumerate(places) for row in row_set if row >= 0}
    assert len(held) == (places >= 0).sum() > 495, "each record sits in one shard at most"
    for seed in range(3):
        some = np.random.default_rng(seed).permutation(ids)[: 500 - seed]
        again = shards.filled(some.tolist(), 500)
        assert again.shape == places.shape, "a shard's room is public"
        where = {int(some[row]): t for t, rows in enumerate(again) for row in rows if row >= 0}
        assert all(held[record] == t for record, t in where.items() if record in held)
    assert shards.filled(ids[:40].tolist(), 500).shape == (40, shards.room(500))
    twice = Shards(40, 2, key=bytes(16)).filled(ids.tolist(), 500)
    seats = np.bincount(twice[twice >= 0], minlength=500)
    assert seats.max() == 2, "copies are what they say"
    assert not np.array_equal(places, Shards(40, key=bytes(15) + b"1").filled(ids.tolist(), 500))


def test_nobody_but_the_noise_sees_the_raw_sums():
    """Nothing public equals a sum before its noise, and the generator is a function of the rest."""
    plan = PLANS["all"]
    log = ran(plan, data(), range(RECORDS))
    raw = torch.stack([d.total for d in log.draws]).flatten()
    for shown in log.weights:
        for value in shown[1:3]:
            assert not np.isin(value.flatten().numpy(), raw[raw != 0].numpy()).any()
