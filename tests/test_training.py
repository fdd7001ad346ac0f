"""Training: spends what was planned, releases what was charged, repeats bit for bit by seed."""

import collections
import math
import warnings

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit import machine
from dpkit.methods import dpsgd
from dpkit.spending import price


def data(n=200, features=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, features, generator=generator)
    targets = (inputs[:, 0] > 0).long()
    return dp.datasets.Dataset.of(inputs, targets, test=(inputs[:50], targets[:50]), name="made")


def plan(noise=1.0, steps=30, rate=0.1, **method):
    return dp.Plan(
        dp.DPSGD(noise_multiplier=noise, max_grad_norm=1.0, learning_rate=0.5, **method),
        dp.Poisson(rate, steps),
        delta=1e-4,
    )


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))


class Log:
    """The engine's own log: what every draw was given and what it gave."""

    def __init__(self, monkeypatch):
        self.draws = []
        original = dp.Gaussian.draw

        def draw(mechanism, total, norm, generator):
            given = total.clone()
            noisy = original(mechanism, total, norm, generator)
            self.draws.append((given, norm, noisy.clone()))
            return noisy

        monkeypatch.setattr(dp.Gaussian, "draw", draw)


@pytest.mark.parametrize("noise", [1.3, lambda step: 2.0 - 0.02 * step, lambda t: 1.0 + 0.02 * t])
def test_spent_equals_planned_exactly_and_the_log_of_measured_noise(noise, monkeypatch):
    """PRIVACY_TESTS F: the ledger against what the engine really drew, not against itself."""
    log = Log(monkeypatch)
    p = plan(noise, steps=40)
    wide = torch.nn.Linear(6, 20_000)
    sizes = []
    for step in dp.train(wide, data(), p, loss=lambda o, y: 0 * o.sum(1), seed=1):
        sizes.append(step.peek.batch_size)
    assert step.epsilon == p.epsilon() and step.ledger == p.ledger()
    measured = collections.Counter()
    for total, norm, noisy in log.draws:
        measured[round(float((noisy - total).double().std()) / norm, 6)] += 1
    assert sum(measured.values()) == step.ledger.steps == 40
    charged = [m.noise_multiplier for m, count in step.ledger.entries for _ in range(count)]
    tolerance = 5 / math.sqrt(2 * wide.weight.numel())
    found = [float((y - x).double().std()) / c for x, c, y in log.draws]
    assert np.allclose(found, charged, rtol=tolerance)
    (rate,) = {m.sample_rate for m, _ in step.ledger.entries}
    spread = math.sqrt(200 * rate * (1 - rate) / 40)
    assert abs(np.mean(sizes) - 200 * rate) < 5 * spread


def test_epsilon_grows_along_the_plan():
    p = plan(steps=20)
    curve = p.curve(20)
    spent = [step.epsilon for step in dp.train(model(), data(), p, seed=0)]
    assert spent == pytest.approx(list(curve.epsilon), rel=1e-6)
    assert len(spent) == 20


def test_the_charge_is_written_before_the_noisy_value_is_used(monkeypatch):
    p, marks = plan(steps=5), []
    steps = dp.train(model(), data(), p, seed=0)
    original = dpsgd.DPSGDStepper.step

    def step(self, *args):
        marks.append(steps.gi_frame.f_locals["self"].spend.mark)
        return original(self, *args)

    monkeypatch.setattr(dpsgd.DPSGDStepper, "step", step)
    list(steps)
    assert [count for _, count in marks] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_seed_repeats_a_run_bit_for_bit_and_no_seed_does_not(momentum):
    def weights(seed):
        net = model()
        list(dp.train(net, data(), plan(momentum=momentum), seed=seed))
        return torch.cat([p.detach().ravel() for p in net.parameters()])

    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))
    assert not torch.equal(weights(None), weights(None))


@pytest.mark.filterwarnings("ignore:epsilon is infinite")
def test_without_noise_and_clip_it_is_sgd():
    net, plain, d = model(), model(), data(60)
    p = dp.Plan(dp.DPSGD(0.0, 1e6, 0.3, 0.9), dp.Poisson(1.0, 12))
    list(dp.train(net, d, p, seed=0))
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.3, momentum=0.9)
    for _ in range(12):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(plain(d.inputs), d.targets).backward()
        optimiser.step()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore:epsilon is infinite")
def test_the_divisor_is_public_whatever_the_batch(monkeypatch):
    """A gradient of known norm moves the weights by learning rate x C / (q x public N)."""
    d = data(64)
    for size in (64, 128):
        net = model()
        before = torch.cat([p.detach().ravel() for p in net.parameters()]).clone()
        p = dp.Plan(dp.DPSGD(0.0, 1.0, 1.0), dp.Poisson(1.0, 1))
        log = Log(monkeypatch)
        list(dp.train(net, d, p, seed=0, num_examples=size))
        after = torch.cat([p.detach().ravel() for p in net.parameters()])
        moved = (before - after).norm()
        assert moved == pytest.approx(float(log.draws[-1][0].norm()) / size, rel=1e-4)


def test_empty_batches_release_noise_all_the_same():
    p = plan(rate=1e-6, steps=5)
    net = model()
    before = [x.detach().clone() for x in net.parameters()]
    done = list(dp.train(net, data(), p, seed=0))
    assert [s.peek.batch_size for s in done] == [0] * 5
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert done[-1].epsilon == p.epsilon() and math.isnan(done[-1].peek.loss)


def test_one_record_trains():
    d = dp.datasets.Dataset.of(torch.randn(1, 6), torch.tensor([0]), test=None, name="one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = list(dp.train(torch.nn.Linear(6, 1), d, plan(steps=8, rate=0.5), seed=0))
    assert len(done) == 8


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_poisoned_record_neither_breaks_the_weights_nor_exceeds_its_share(poison, monkeypatch):
    clean = data()
    inputs = clean.inputs.clone()
    inputs[3] = poison
    sums = []
    for x in (clean.inputs, inputs):
        log = Log(monkeypatch)
        net = model()
        engine_data = dp.datasets.Dataset.of(clean.inputs, clean.targets, name="made")
        object.__setattr__(engine_data, "inputs", x)
        list(dp.train(net, engine_data, plan(rate=1.0, steps=1), seed=0))
        assert all(torch.isfinite(p).all() for p in net.parameters())
        sums.append(log.draws[-1][0])
    assert float((sums[0] - sums[1]).norm()) <= 2.0 * (1 + 1e-6)


def test_what_cannot_be_trained_is_refused_before_anything_is_drawn():
    bad = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="BatchNorm"):
        dp.train(bad, data(), plan(), seed=0)
    with pytest.raises(ValueError, match="seed"):
        dp.train(model(), data(), plan(), seed=-1)
    with pytest.raises(ValueError, match="num_examples"):
        dp.train(model(), data(), plan(), seed=0, num_examples=0)


def test_a_meaningless_delta_is_told():
    with pytest.warns(UserWarning, match="not below 1/N"):
        dp.train(model(), data(20), dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 2), delta=0.1), seed=0)


def test_evaluations_fall_on_the_first_and_the_last_step():
    tested = [s.step for s in dp.train(model(), data(), plan(steps=37), seed=0)
              if s.peek.accuracy is not None]  # fmt: skip
    assert tested[0] == 1 and tested[-1] == 37 and 20 <= len(tested) <= 37
    none = dp.train(model(), data(), plan(steps=7), seed=0, evaluate_every=0)
    assert all(s.peek.accuracy is None for s in none)


def test_it_learns():
    last = list(dp.train(model(), data(2000), plan(1.0, 100), seed=0))[-1]
    assert last.peek.accuracy > 0.9


class Reader(torch.nn.Module):
    """Says which of two tokens a text has more of."""

    def __init__(self):
        super().__init__()
        self.table, self.head = torch.nn.Embedding(9, 6), torch.nn.Linear(6, 2)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


def some_texts(num=400):
    tokens = torch.randint(0, 9, (num, 12), generator=torch.Generator().manual_seed(1))
    return tokens, ((tokens < 4).sum(1) > 5).long()


@pytest.mark.parametrize("as_dataset", [True, False])
def test_a_model_of_tokens_learns(as_dataset):
    data = some_texts()
    data = dp.datasets.Dataset.of(*data, test_share=0.2) if as_dataset else data
    method = dp.DPSGD(noise_multiplier=1.5, max_grad_norm=0.5, learning_rate=8.0)
    losses, weights = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = Reader()
        steps = list(dp.train(model, data, dp.Plan(method, dp.Poisson(0.2, 60), 1e-3), seed=0))
        losses.append([step.peek.loss for step in steps])
        weights.append(model.table.weight.detach())
        assert not as_dataset or steps[-1].peek.accuracy > 0.85
    assert losses[0] == losses[1] and torch.equal(*weights)
    assert np.mean(losses[0][-10:]) < 0.6 * np.mean(losses[0][:3])


def test_a_token_beyond_the_table_is_told_before_anything_is_drawn():
    tokens, targets = some_texts(20)
    tokens[7, 3] = 9
    method = dp.DPSGD(1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="token 9.* rows for 0 to 8 alone: .*num_embeddings=10"):
        dp.train(Reader(), (tokens, targets), dp.Plan(method, dp.Poisson(0.2, 3), 1e-3), seed=0)


@pytest.mark.parametrize("noise", [1.3, lambda step: 2.0 - 0.02 * step])
def test_pricing_many_steps_at_once_changes_no_digit(noise):
    steps = list(dp.train(torch.nn.Linear(6, 2), data(), plan(noise, steps=12), seed=1))
    alone = [step.accountant.epsilon(step.ledger, step.delta) for step in steps]
    assert price(steps) == alone == [step.epsilon for step in steps]
    assert price([]) == []


@pytest.mark.parametrize(
    "wrong", [{"num_examples": n} for n in (0, 2.5, math.nan, math.inf)]
    + [{"evaluate_every": n} for n in (-1, 1.5)],
    ids=str,
)  # fmt: skip
def test_sizes_that_are_no_whole_numbers_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match=r"must be a whole number in .* got"):
        dp.train(torch.nn.Linear(6, 2), data(), plan(), **wrong)


def run_weights(net, d, p, **options):
    steps = list(dp.train(net, d, p, seed=3, **options))
    return torch.cat([x.detach().ravel() for x in net.parameters()]), steps


def test_microbatches_and_budgets_change_no_result():
    d, p = data(), plan(steps=6)
    net = lambda: torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 2))  # noqa: E731
    whole, steps = run_weights(net(), d, p)
    torch.manual_seed(0)
    weights = []
    for options in ({}, {"microbatch": 1}, {"microbatch": 7}, {"memory_budget": 20_000}):
        torch.manual_seed(0)
        weights.append(run_weights(net(), d, p, **options)[0])
    for other in weights[1:]:
        assert (weights[0] - other).norm() < 1e-5 * weights[0].norm()
    assert steps[-1].epsilon == p.epsilon() and len(whole) == len(weights[0])


class Untouched:
    """Fails the test if noise is drawn."""

    def __init__(self, monkeypatch):
        def draw(*_):
            raise AssertionError("noise was drawn")

        monkeypatch.setattr(dp.Gaussian, "draw", draw)


WIDE = torch.nn.Linear(6, 2)
REFUSED = {
    "too small a budget": ({"memory_budget": 10}, MemoryError, "memory_budget .* larger budget"),
    "too large a microbatch": ({"memory_budget": 10**6, "microbatch": 10**9}, MemoryError,
                               r"microbatch .* at most [\d,]+ .* got 1,000,000,000: give fewer"),
    "no whole microbatch": ({"microbatch": 1.5}, ValueError, r"microbatch .* whole number in \[1"),
    "no whole seed": ({"seed": 1.5}, ValueError, r"seed .* whole number in \[0, .* got 1.5"),
    "a word for a seed": ({"seed": "a"}, TypeError, "seed .* whole number, got 'a'"),
    "a truth for a seed": ({"seed": True}, TypeError, "seed .* whole number, got True"),
    "a seed below zero": ({"seed": -1}, ValueError, "seed .* got -1"),
    "an unknown device": ({"device": "foo"}, ValueError, 'device must be "cpu",.* got .foo.'),
    "a device that is none": ({"device": 1.5}, ValueError, 'device must be "cpu",.* got 1.5'),
    "meta": ({"device": "meta"}, ValueError, 'device must be "cpu", "cuda".* got .meta.'),
    "a GPU that is not there": ({"device": "cuda:97"}, ValueError,
                                "this machine's GPUs .* got 'cuda:97'.*: give device=\"cpu\""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_are_told_at_once(case, monkeypatch):
    Untouched(monkeypatch)
    options, kind, told = REFUSED[case]
    with pytest.raises(kind, match=told):
        dp.train(WIDE, data(), plan(), **options)


def test_a_whole_seed_of_another_kind_is_the_same_seed():
    d, p = data(), plan(steps=3)
    found = [run_weights(model(), d, p)[0]]
    for seed in (np.int64(3), 3.0):
        net = model()
        list(dp.train(net, d, p, seed=seed))
        found.append(torch.cat([x.detach().ravel() for x in net.parameters()]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


UNFIT = {
    "float64 model": (lambda: torch.nn.Linear(6, 2).double(), "parameters are float64; use one"),
    "another width": (lambda: torch.nn.Linear(5, 2), r"shape \(N, 6\).* first layer"),
    "an embedding": (
        lambda: torch.nn.Embedding(6, 2),
        r"whole numbers; call it on inputs.long\(\)",
    ),
    "an output short": (lambda: torch.nn.Linear(6, 1), "1 outputs for the 2 classes of the data"),
    "recurrence": (lambda: torch.nn.Sequential(torch.nn.Linear(6, 2), Last()), "GRUCell"),
    "mixing": (lambda: torch.nn.Sequential(torch.nn.Linear(6, 2), Centred()), "records beside it"),
}


class Last(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.GRU(2, 2, batch_first=True)

    def forward(self, x):
        return self.layer(x[:, None])[0][:, -1]


class Centred(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.filterwarnings("ignore:Per-example gradients by torch.func.vmap")
def test_a_model_that_does_not_fit_is_told_before_the_first_step(case, monkeypatch):
    Untouched(monkeypatch)
    make, told = UNFIT[case]
    with pytest.raises(ValueError, match=told):
        dp.train(make(), data(), plan(), seed=0)


def test_autocast_is_told_at_the_call_and_at_each_step(monkeypatch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="leave the autocast block"):
            dp.train(model(), data(), plan(), seed=0)
    steps = dp.train(model(), data(), plan(), seed=0)
    next(steps)
    Untouched(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="leave the autocast block"):
            next(steps)


SIZED = {
    "FixedSize": (dp.FixedSize(20, 150, 5), "must be that of the data, 200, got 150"),
    "TruncatedPoisson": (dp.TruncatedPoisson(0.1, 5, 60, 150), "at least the 200 .* got 150"),
    "BallsInBins": (dp.BallsInBins(201, 1), "batches_per_epoch .* 200"),
    "Shuffle": (dp.Shuffle(201, 1), "batches_per_epoch .* 200"),
}


@pytest.mark.parametrize("case", SIZED)
def test_a_sampler_for_other_data_is_refused_at_the_call(case, monkeypatch):
    Untouched(monkeypatch)
    sampler, told = SIZED[case]
    p = dp.Plan(dp.DPSGD(), sampler, delta=1e-4)
    with pytest.raises(ValueError, match=told):
        dp.train(model(), data(), p, seed=0)
    if case in ("FixedSize", "TruncatedPoisson"):  # the data count, whatever is told of them
        with pytest.raises(ValueError, match=told):
            dp.train(model(), data(), p, seed=0, num_examples=150)


def test_every_process_of_a_group_takes_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert machine.device_of(None, 4) == machine.device_of("cuda", 4) == torch.device("cuda", 2)
    assert chosen == [2, 2]
    assert machine.device_of("cuda:1", 1) == torch.device("cuda", 1) and chosen == [2, 2]
    assert machine.device_of("cpu", 4) == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match="it has 4.*number 4 here.*start fewer processes"):
        machine.device_of(None, 5)


def test_data_that_no_gpu_holds_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    with pytest.raises(MemoryError, match='need 4,000 bytes, but cuda:0 has 1,000.*device="cpu"'):
        machine.placed(torch.device("cuda", 0), torch.zeros(1000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_seed_repeats_a_run_on_a_gpu_too():
    found = []
    for _ in range(2):
        net = model()
        steps = list(dp.train(net, data(), plan(), seed=4, device="cuda"))
        found.append(torch.cat([p.detach().ravel() for p in net.parameters()]))
    assert found[0].is_cuda and torch.equal(*found) and steps[-1].epsilon == plan().epsilon()


@pytest.mark.parametrize("seed, secure", [(4, False), (None, False), (None, True)])
def test_no_tensor_is_made_on_another_device_than_its_neighbours(seed, secure):
    """Where a notebook sets a default device, what forgets to name its own ends up there."""
    net, d = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2)), data()
    wide = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.GELU(), torch.nn.Linear(9, 2))
    for made in (net, wide, model()):
        with torch.device("meta"):
            steps = list(dp.train(made, d, plan(steps=4), seed=seed, secure=secure, device="cpu"))
        assert steps[-1].peek.accuracy is not None
