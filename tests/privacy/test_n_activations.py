"""N. Private activations: one row a record moves, nothing is drawn unpaid, nothing leaks after."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit import checkpoint as checkpoints
from dpkit import training
from dpkit.gradients import CrossRecordError
from dpkit.methods.activation import PrivateActivation
from tests.privacy import cases
from tests.privacy.recording import Recording, drawn, listening, record, smuggled, violations
from tests.privacy.test_b_noise import assert_variance

pytestmark = [
    pytest.mark.filterwarnings("ignore:epsilon .* promises next to nothing"),
    pytest.mark.filterwarnings("ignore:delta .* is not below 1/N"),
]
RECORDS = 10
SAMPLERS = [s for s in cases.SAMPLERS if dp.Neighbours.REPLACE_ONE in s.relations]
REPLACING = [n for n in cases.NEIGHBOURS if not n.removes and n.name != "far target"]
ONCE, EPOCHS, ANSWERS, _ = cases.ACTIVATIONS


def images():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Dropout(0.3))


PUBLIC = {
    "nothing": (nn.Sequential, (6,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True)), (6,)),
    "conv": (images, (2, 5, 5)),
}
"""Public layers before the activation, and the records that they take."""


def model_of(public="mlp", dtype=torch.float64, head=3):
    """Frozen public layers, an activation that is centred at a public point, a linear head."""
    build, shape = PUBLIC[public]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = build().requires_grad_(False)
        width = before(torch.zeros(1, *shape)).numel()
        centre = torch.randn(width)
        return nn.Sequential(before, PrivateActivation(centre), nn.Linear(width, head)).to(dtype)


def data_of(public="mlp", records=RECORDS, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.standard_normal((records, *PUBLIC[public][1]))).to(dtype)
    return inputs, torch.from_numpy(rng.integers(0, 3, records))


def plan_of(method, sampler=None, **options):
    options = {"delta": 1e-3, "accountant": dp.RDP()} | options
    return dp.Plan(method, sampler or dp.Poisson(0.4, 6), **options)


def replayed(plan, neighbour, public="mlp", seed=0, dtype=torch.float64):
    """Violations between a run on poisoned records and one with a harmless record instead."""
    clean, who = data_of(public, seed=seed, dtype=dtype), seed % RECORDS
    poisoned = clean[0].clone(), clean[1].clone()
    neighbour.change(*poisoned, who)
    if plan.method.labels is None:  # public: the same on both sides
        poisoned = poisoned[0], clean[1]
    else:
        poisoned[1][who] = (clean[1][who] + 1) % 3
    batches = drawn(plan.sampler, RECORDS, seed)
    common = {"num_examples": RECORDS, "decisions": batches}
    left = record(plan, model_of(public, dtype), poisoned, **common)
    right = record(plan, model_of(public, dtype), clean, frozen=left, **common)
    found = violations(left, right, 2.0, [True] * plan.steps)
    for a, b in zip(left.draws, right.draws, strict=True):
        assert len(a.total) == RECORDS, "every record is released, whoever is in the batch"
        moved = (a.total != b.total).reshape(RECORDS, -1).any(1)
        found += [f"row {row} moved" for row in moved.nonzero().ravel().tolist() if row != who]
    assert left.draws and not torch.equal(left.draws[0].total, right.draws[0].total)
    return found


@pytest.mark.parametrize("sampler", SAMPLERS, ids=cases.named)
@pytest.mark.parametrize("method", cases.ACTIVATIONS, ids=cases.named)
def test_one_row_moves_by_2c_at_most_and_nothing_else(method, sampler):
    """A. Record and replay, every neighbour; the weights follow from what was released alone."""
    plan = plan_of(method, sampler)
    for seed, neighbour in enumerate(REPLACING):
        assert replayed(plan, neighbour, seed=seed) == [], neighbour.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("public", PUBLIC)
def test_every_public_layer_in_both_precisions(public, normalise, dtype):
    plan = plan_of(dp.NeuralDP(1.3, 0.7, 0.2, normalise=normalise), dp.Shuffle(2, 2))
    for seed, neighbour in enumerate(REPLACING):
        assert replayed(plan, neighbour, public, seed, dtype) == [], neighbour.name


@pytest.mark.parametrize("method", cases.ACTIVATIONS, ids=cases.named)
def test_rows_have_norm_c_and_bear_the_charged_noise(method):
    """B. Scale, independence over rows, columns and releases, and no row without noise."""
    records, width = 400, 300
    before = nn.Linear(6, width).requires_grad_(False)
    model = nn.Sequential(before, PrivateActivation(), nn.Linear(width, 3)).double()
    plan = plan_of(method, dp.Poisson(0.1, 6))
    log = record(plan, model, data_of(records=records), num_examples=records)
    noises = [d.noise / (d.norm * d.mechanism.noise_multiplier) for d in log.draws
              if isinstance(d.mechanism, dp.Gaussian)]  # fmt: skip
    assert len(noises) == sum(bool(method.releases(t)) for t in range(6))
    for draw in log.draws[:1]:
        norms = draw.total.norm(dim=1)
        assert float(norms.max()) <= method.max_norm * (1 + 1e-9) and draw.norm == method.max_norm
        assert not method.normalise or torch.allclose(norms, torch.full_like(norms, draw.norm))
    for noise in noises:
        assert_variance(noise, 1.0, "all")
        for i in (0, 1, 17, records - 1):
            assert_variance(noise[i], 1.0, f"row {i}")
        assert abs(float((noise[1:] * noise[:-1]).mean())) < 5 / np.sqrt(noise.numel())
        assert abs(float((noise[:, 1:] * noise[:, :-1]).mean())) < 5 / np.sqrt(noise.numel())
    for a, b in zip(noises, noises[1:], strict=False):
        assert abs(float((a * b).mean())) < 5 / np.sqrt(a.numel()), "the same noise again"


def test_labels_are_answered_at_the_charged_rate():
    """B. Each answer is kept with the chance that is charged, and only answers are trained on."""
    records = 20_000
    plan = plan_of(ANSWERS, dp.Poisson(0.001, 2))
    inputs, targets = data_of(records=records)
    steps = dp.train(model_of(), smuggled(inputs, targets), plan, seed=0)
    next(steps)
    answers = steps.gi_frame.f_locals["self"].stepper.state()["kept"]["labels"]
    keep, others = ANSWERS.labels.keep, (1 - ANSWERS.labels.keep) / 2
    for shift, chance in ((0, keep), (1, others), (2, others)):
        found = float((answers == (targets + shift) % 3).double().mean())
        assert abs(found - chance) < 5 * np.sqrt(chance * (1 - chance) / records), shift


@pytest.mark.parametrize("method", cases.ACTIVATIONS, ids=cases.named)
def test_nothing_but_what_was_released_is_read_again(method):
    """G. Records overwritten after the first step change no later weight but by a new release."""
    plan = plan_of(method, dp.Poisson(0.5, 6))
    paths = []
    for spoiled in (False, True):
        inputs, targets = data_of()
        model, path = model_of(), []
        for step in dp.train(model, smuggled(inputs, targets), plan, seed=0):
            path.append(model[2].weight.detach().clone())
            if spoiled and step.step == 1:
                inputs.fill_(1e6), targets.copy_((targets + 1) % 3)
        paths.append(path)
    again = next((t for t in range(1, 6) if method.releases(t)), 6)
    if method.labels is None:  # public labels are used as they are, at every step
        paths = [path[:1] for path in paths]
    assert all(torch.equal(a, b) for a, b in zip(*(path[:again] for path in paths), strict=True))


def test_public_labels_are_kept_as_they_were_at_the_release():
    inputs, targets = data_of()
    steps = dp.train(model_of(), smuggled(inputs, targets), plan_of(ONCE), seed=0)
    next(steps)
    kept = steps.gi_frame.f_locals["self"].stepper.state()["kept"]["labels"]
    assert torch.equal(kept, targets)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=cases.named)
@pytest.mark.parametrize("method", cases.ACTIVATIONS, ids=cases.named)
def test_the_ledger_is_what_was_drawn(method, sampler):
    """F. (kind, measured noise) of every draw against the ledger; no sampler makes it cheaper."""
    plan = plan_of(method, sampler)
    records = 10 if isinstance(sampler, dp.FixedSize) else 40
    log = record(plan, model_of("conv"), data_of("conv", records), num_examples=records)
    assert log.ledger == plan.ledger() and log.epsilon == plan.epsilon()
    gaussians = [d for d in log.draws if isinstance(d.mechanism, dp.Gaussian)]
    assert len(gaussians) == (-(-plan.steps // (method.steps_per_epoch or plan.steps)))
    charged = dict(log.ledger.entries)
    answers = charged.pop(method.labels, 0)
    assert answers == (method.labels is not None) == len(log.draws) - len(gaussians)
    ((paid, count),) = charged.items()
    assert count == len(gaussians) and isinstance(paid, dp.Gaussian)
    for draw in gaussians:
        size = draw.noise.numel()
        found = float(draw.noise.std()) / draw.norm
        # Replacing a record moves its row by 2C: half of sigma is charged.
        assert found == pytest.approx(2 * paid.noise_multiplier, rel=5 / np.sqrt(2 * size))


def test_every_release_is_charged_before_it_is_drawn_and_step_by_step(monkeypatch):
    charged, seen = [], []
    original, draw = training.Spend.charge, dp.Gaussian.draw
    monkeypatch.setattr(
        training.Spend, "charge", lambda self, e: (charged.extend(e), original(self, e))[1]
    )
    monkeypatch.setattr(
        dp.Gaussian, "draw", lambda *a: (seen.append(sum(n for _, n in charged)), draw(*a))[1]
    )
    plan = plan_of(EPOCHS, dp.Poisson(0.4, 7))
    for step in dp.train(model_of(), smuggled(*data_of()), plan, seed=0):
        assert step.ledger == plan.ledger(step.step)
        assert step.ledger.steps == len(seen) == 1 + (step.step - 1) // 2
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("method, releases", [(ONCE, 1), (EPOCHS, 10)])
def test_the_price_is_that_of_the_releases_whatever_the_batches(method, releases):
    """mu = 2 sqrt(K) / sigma, exactly, at every sample rate and for every length."""
    sigma = method.noise_multiplier / 2 / np.sqrt(releases)
    exact = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(sigma), 1)]), 1e-5)
    for sampler in (dp.Poisson(0.001, 20), dp.Poisson(1.0, 20), dp.Shuffle(10, 2)):
        plan = dp.Plan(method, sampler, 1e-5)
        assert plan.neighbours is dp.Neighbours.REPLACE_ONE
        assert plan.epsilon() == pytest.approx(exact, rel=1e-9)
    once = dp.Plan(ONCE, dp.Poisson(0.01, 1), 1e-5).epsilon()
    assert dp.Plan(ONCE, dp.Poisson(0.01, 1000), 1e-5).epsilon() == once


@pytest.mark.parametrize("microbatch", [1, 3, None])
def test_microbatches_and_record_order_change_no_row(microbatch):
    inputs, targets = data_of("conv")
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    rows = []
    for x, y, size in ((inputs, targets, None), (inputs[order], targets[order], microbatch)):
        log = Recording()
        with listening(log):
            next(dp.train(model_of("conv"), smuggled(x, y), plan_of(ONCE), seed=0, microbatch=size))
        rows.append(log.draws[0].total)
    assert torch.allclose(rows[0][order], rows[1], rtol=1e-9, atol=1e-12)


def test_without_noise_and_bound_it_is_plain_training_of_the_head():
    inputs, targets = data_of()
    plan = plan_of(dp.NeuralDP(0.0, 1e6, 0.3, 0.9, normalise=False), dp.Poisson(1.0, 8))
    model, plain = model_of(), model_of()
    optimiser = torch.optim.SGD(plain[2].parameters(), lr=0.3, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # epsilon is infinite
        list(dp.train(model, smuggled(inputs, targets), plan, seed=0))
    for _ in range(8):
        optimiser.zero_grad()
        rows = plain[0](inputs) - plain[1].centre
        nn.functional.cross_entropy(plain[2](rows), targets).backward()
        optimiser.step()
    assert torch.allclose(model[2].weight, plain[2].weight, rtol=1e-9)


@pytest.mark.parametrize("method", cases.ACTIVATIONS, ids=cases.named)
def test_a_seeded_run_resumed_equals_the_unbroken_one(method, tmp_path):
    """K. Bit for bit, also where it breaks between two releases."""
    path, plan = tmp_path / "run.pt", plan_of(method, dp.Poisson(0.4, 9))
    whole, broken = model_of(), model_of()
    *_, end = dp.train(whole, smuggled(*data_of()), plan, seed=3)
    steps = dp.train(broken, smuggled(*data_of()), plan, seed=3, checkpoint=path)
    for step in steps:
        if step.step == 4:
            steps.close()
    again = model_of()
    *_, last = dp.train(again, smuggled(*data_of()), plan, seed=3, checkpoint=path)
    assert torch.equal(again[2].weight, whole[2].weight) and last.ledger == end.ledger


def interrupted(path, method, after):
    """What lies on disk if the power fails after `after` steps of a run without a seed."""
    log = Recording()
    plan = plan_of(method, dp.Poisson(0.4, 15))
    with listening(log):
        steps = dp.train(model_of(), smuggled(*data_of()), plan, checkpoint=path,
                         checkpoint_every=6)  # fmt: skip
        for _ in range(after):
            next(steps)
        held = path.read_bytes() if path.exists() else b""
        steps.close()
    path.write_bytes(held)
    return plan, log


@pytest.mark.parametrize("after", [1, 5, 7])
def test_a_release_that_was_paid_for_is_kept_and_never_drawn_again(after, tmp_path):
    """K. The noisy rows on disk are those that were drawn; going on draws none."""
    path = tmp_path / "run.pt"
    plan, log = interrupted(path, ANSWERS, after)
    assert len(log.draws) == 2
    kept = torch.load(path, weights_only=True)["stepper"]["kept"]
    drawn_rows, answers = (draw.noisy for draw in log.draws)
    assert torch.equal(kept["rows"], drawn_rows) and torch.equal(kept["labels"], answers)
    rest = Recording()
    with listening(rest), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the steps that were lost are told
        *_, last = dp.train(model_of(), smuggled(*data_of()), plan, checkpoint=path)
    assert not rest.draws and last.ledger == plan.ledger()


FRESH = dp.NeuralDP(
    1.3, 0.7, 0.2, release="each epoch", steps_per_epoch=3, labels=dp.RandomisedResponse(1.0, 3),
)  # fmt: skip


@pytest.mark.parametrize(("method", "draws"), [(ONCE, 1), (FRESH, 2)], ids=["rows", "labels too"])
def test_what_was_lost_is_neither_drawn_again_unpaid_nor_replaced(
    method, draws, tmp_path, monkeypatch
):
    """K. The power fails between the first draw and the disk: the run is over, in words.

    A fresh release of activations is due where the second run begins; raw labels are none.
    """
    path = tmp_path / "run.pt"
    monkeypatch.setattr(training._Run, "_kept_at_once", lambda self, done, released: None)
    plan, log = interrupted(path, method, 1)
    assert len(log.draws) == draws and checkpoints.read(path).paid == 6
    rest = Recording()
    with (
        listening(rest),
        pytest.warns(UserWarning, match="interrupted"),
        pytest.raises(dp.Refused, match="lost when it was interrupted"),
    ):
        list(dp.train(model_of(), smuggled(*data_of()), plan, checkpoint=path))
    assert not rest.draws


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_coarse_activations_keep_the_bound(dtype):
    """A. Halves would round a row beyond C, whole numbers to zero."""
    rows = (1000 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))).to(dtype)
    found, _ = PrivateActivation().bounded(rows)
    norms = found.double().norm(dim=1)
    assert found.dtype == torch.float32 and float(norms.max()) <= 1 + 1e-6
    assert float(norms.min()) >= 1 - 1e-6


def test_another_kind_of_release_is_another_plan(tmp_path):
    path = tmp_path / "run.pt"
    interrupted(path, ONCE, 2)
    other = plan_of(dp.NeuralDP(1.3, 0.7, 0.2, normalise=False), dp.Poisson(0.4, 15))
    with pytest.raises(ValueError, match="another plan"):
        dp.train(model_of(), smuggled(*data_of()), other, checkpoint=path)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        self.seen.copy_(x[-1])
        return x


@pytest.mark.parametrize("before, error, words", [
    (nn.Linear(6, 6), dp.Refused, "would be trained"),
    (nn.BatchNorm1d(6, affine=False), CrossRecordError, "BatchNorm"),
    (nn.BatchNorm1d(6).requires_grad_(False), CrossRecordError, "BatchNorm"),
    (Centred(), CrossRecordError, "records beside it"),
    (Remembering(), CrossRecordError, "buffer"),
], ids=["trainable", "batch norm", "frozen batch norm", "centred", "remembering"])  # fmt: skip
def test_what_breaks_the_promise_before_the_noise_is_refused(before, error, words):
    """Nothing is drawn, and the remedy is named."""
    model, log = nn.Sequential(before, PrivateActivation(), nn.Linear(6, 3)).double(), Recording()
    with listening(log), pytest.raises(error, match=words):
        dp.train(model, smuggled(*data_of()), plan_of(ONCE), seed=0)
    assert not log.draws


def test_batch_norm_after_the_noise_is_post_processing():
    model = nn.Sequential(PrivateActivation(), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    assert len(list(dp.train(model, smuggled(*data_of()), plan_of(ONCE), seed=0))) == 6


def test_a_head_cannot_share_a_weight_with_what_is_before():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, PrivateActivation(), copy.copy(layer), nn.Linear(6, 3)).double()
    with pytest.raises(dp.Refused, match="would be trained"):
        dp.train(model, smuggled(*data_of()), plan_of(ONCE), seed=0)


def test_training_below_by_dpsgd_is_in_the_same_ledger_exactly():
    """Two phases on the same records: what both cost together, for one relation."""
    replace = dp.Neighbours.REPLACE_ONE
    first = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.1, 30), 1e-5, replace)
    second = dp.Plan(ONCE, dp.Shuffle(4, 2), 1e-5, before=first.ledger().releases)
    alone = dp.Plan(ONCE, dp.Shuffle(4, 2), 1e-5)
    assert second.ledger().entries == (first.ledger() + alone.ledger()).entries
    both = dp.PLD().epsilon(first.ledger() + alone.ledger(), 1e-5)
    assert second.epsilon() == both > max(first.epsilon(), alone.epsilon())
    log = record(second, model_of(), data_of(), num_examples=RECORDS)
    assert log.ledger == second.ledger() and len(log.draws) == 1
    added = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.1, 30), 1e-5)
    with pytest.raises(dp.Refused, match="give both plans one relation"):
        dp.Plan(ONCE, dp.Shuffle(4, 2), 1e-5, before=added.ledger().releases)
