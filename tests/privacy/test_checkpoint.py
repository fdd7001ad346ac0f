"""Checkpoints: bit for bit with a seed, never the same noise twice, never under-reported."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit import checkpoint as checkpoints
from dpkit.gradients import TorchOptimiser
from tests.privacy import cases
from tests.privacy.recording import Recording, listening, smuggled

STEPS, RECORDS = 23, 30
LENGTH = 100
FOREIGN = dp.DPSGD(1.2, 0.7, 0.02, optimiser=TorchOptimiser(torch.optim.RMSprop))
ROOT = Path(__file__).parents[2]


def plan_of(method=None, steps=STEPS):
    return dp.Plan(method or dp.DPSGD(1.3, 0.7, 0.2, 0.9), dp.Poisson(0.3, steps), 1e-3,
                   accountant=dp.RDP())  # fmt: skip


def data():
    rng = np.random.default_rng(0)
    private, public = (torch.from_numpy(rng.standard_normal((n, 6))).float() for n in (RECORDS, 8))
    return smuggled(private, torch.arange(RECORDS) % 3, public=(public, torch.arange(8) % 3))


def model():
    """With dropout: a model's own random numbers must go on as well."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Tanh(), nn.Linear(8, 3))


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def run(path=None, *, seed=None, stop=None, method=None, every=4):
    """Train afresh or onwards, up to `stop` steps: the model, the log and the last step."""
    net, log, last = model(), Recording(), None
    options = {} if path is None else {"checkpoint": path, "checkpoint_every": every}
    with listening(log):
        steps = dp.train(net, data(), plan_of(method), seed=seed, **options)
        for last in steps:
            if last.step == stop:
                break
        steps.close()
    return net, log, last


def crash(path, after, **options):
    """Leave the files as a power cut within step `after` + 1 would."""
    held = {}

    def copy(self, *args):
        original(self, *args)
        held["bytes"] = path.read_bytes()

    original = checkpoints.Keeper.write
    checkpoints.Keeper.write = copy
    try:
        net, log, last = model(), Recording(), None
        with listening(log):
            for last in dp.train(net, data(), plan_of(options.get("method")), checkpoint=path,
                                 checkpoint_every=4, seed=options.get("seed")):  # fmt: skip
                if last.step == after:
                    survived = held["bytes"]
                    break
    finally:
        checkpoints.Keeper.write = original
    path.write_bytes(survived)
    return net, log, last


@pytest.mark.parametrize("method", [*cases.METHODS, FOREIGN], ids=cases.named)
def test_a_seeded_run_resumed_equals_the_unbroken_run_bit_for_bit(method, tmp_path):
    whole, log, last = run(seed=7, method=method)
    for breaker in (run, crash):
        path = tmp_path / f"{breaker.__name__}.pt"
        if breaker is run:
            run(path, seed=7, stop=9, method=method)
        else:
            crash(path, 9, seed=7, method=method)
        again, _, end = run(path, seed=7, method=method)
        assert torch.equal(flat(again), flat(whole))
        assert end.ledger == last.ledger and end.epsilon == last.epsilon


def test_a_seed_repeats_dropout_and_leaves_the_global_stream_alone():
    torch.manual_seed(11)
    first = flat(run(seed=7)[0])
    after = torch.rand(4)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(4), after), "the global stream was moved"
    torch.manual_seed(12)
    assert torch.equal(flat(run(seed=7)[0]), first), "a seed does not repeat dropout"


def test_an_orderly_pause_loses_nothing_even_without_a_seed(tmp_path):
    path = tmp_path / "run.pt"
    _, log, last = run(path, stop=9)
    assert checkpoints.read(path) == checkpoints.Progress(9, 9, STEPS, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, rest, end = run(path)
    assert len(log.draws) == 9 and len(rest.draws) == STEPS - 9 and end.step == STEPS
    assert end.ledger == plan_of().ledger() and end.epsilon == plan_of().epsilon()
    assert list(dp.train(model(), data(), plan_of(), checkpoint=path)) == []


def test_a_crash_without_a_seed_is_paid_for_and_not_repeated(tmp_path):
    path = tmp_path / "run.pt"
    _, log, _ = crash(path, 10)
    at = checkpoints.read(path)
    assert at.done <= 10 <= at.paid and at.paid - at.done == 4
    with pytest.warns(UserWarning, match="stay paid for and are not repeated"):
        _, rest, end = run(path)
    assert len(rest.draws) == STEPS - at.paid and end.step == STEPS
    assert end.ledger == plan_of().ledger(), "the price stays the planned one"
    assert len(log.draws) + len(rest.draws) <= end.ledger.steps


def test_no_noise_is_ever_drawn_twice_without_a_seed(tmp_path):
    """Two resumptions of one file, as of a copy, share no noise with each other nor the past."""
    path = tmp_path / "run.pt"
    _, log, _ = crash(path, 10)
    before = path.read_bytes()
    noises = [d.noise for d in log.draws]
    for _ in range(2):
        path.write_bytes(before)
        with pytest.warns(UserWarning, match="interrupted"):
            noises += [d.noise for d in run(path)[1].draws]
    stack = torch.stack(noises)
    stack = stack / stack.norm(dim=1, keepdim=True)
    close = stack @ stack.T - torch.eye(len(stack))
    assert float(close.abs().max()) < 0.9
    assert b"noise" not in before, "the state of secret noise is on disk"


def test_the_spend_is_on_disk_before_the_noise_is_drawn(tmp_path, monkeypatch):
    path, seen = tmp_path / "run.pt", []
    original = dp.Gaussian.draw

    def draw(*args):
        seen.append(checkpoints.read(path).paid)
        return original(*args)

    monkeypatch.setattr(dp.Gaussian, "draw", draw)
    for seed in (None, 3):
        seen.clear()
        path.unlink(missing_ok=True)
        run(path, seed=seed, every=5)
        assert all(paid >= step + 1 for step, paid in enumerate(seen)) and len(seen) == STEPS


def test_the_file_is_private_and_complete_or_absent(tmp_path):
    path = tmp_path / "run.pt"
    run(path, stop=5)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert "never publish" in torch.load(path, weights_only=True)["private"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_other_runs_and_damage_are_refused_in_words(tmp_path):
    path = tmp_path / "run.pt"
    run(path, seed=1, stop=5)
    with pytest.raises(ValueError, match="another seed"):
        run(path, seed=2)
    with pytest.raises(ValueError, match="another seed"):
        run(path)
    with pytest.raises(ValueError, match="another plan"):
        run(path, seed=1, method=dp.DPSGD(1.4, 0.7, 0.2, 0.9))
    with pytest.raises(ValueError, match="other data"):
        other = data()
        object.__setattr__(other, "inputs", other.inputs + 1)
        dp.train(model(), other, plan_of(), seed=1, checkpoint=path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        run(tmp_path / "nowhere" / "run.pt")
    with pytest.raises(ValueError, match="checkpoint_every"):
        run(path, seed=1, every=0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="count its whole plan as spent"):
        run(path, seed=1)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        run(path, seed=1)


def test_two_runs_on_one_file_do_not_overwrite_each_other(tmp_path):
    """Whoever finds the file changed under its hands ends; all that both drew is paid for."""
    path, log = tmp_path / "run.pt", Recording()
    with listening(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"checkpoint": path, "checkpoint_every": 4}
        first = dp.train(model(), data(), plan_of(), **options)
        next(first)
        second = dp.train(model(), data(), plan_of(), **options)
        next(second)
        with pytest.raises(RuntimeError, match="another process"):
            list(first)
        assert len(log.draws) <= checkpoints.read(path).paid
        list(second)
    assert checkpoints.read(path) == checkpoints.Progress(STEPS, STEPS, STEPS, False)
    assert len(log.draws) <= STEPS


@pytest.mark.filterwarnings("ignore:epsilon is infinite")  # RDP of a truncated batch
@pytest.mark.parametrize("sampler", cases.SAMPLERS, ids=cases.named)
def test_every_sampler_goes_on_in_the_middle_of_its_epoch(sampler, tmp_path):
    """A seeded run over any sampler, broken and crashed, equals the unbroken one bit for bit."""
    plan = dp.Plan(dp.DPSGD(1.3, 0.7, 0.2), sampler, 1e-3, accountant=dp.RDP())
    few, path = cases.LAYERS[0].records(10, 0, torch.float32), tmp_path / "run.pt"

    def steps(net, **options):
        return dp.train(net, few, plan, seed=3, num_examples=10, **options)

    nets = [cases.LAYERS[0].model(torch.float32) for _ in range(2)]
    *_, end = steps(nets[0])
    broken = steps(nets[1], checkpoint=path, checkpoint_every=2)
    next(broken)
    broken.close()
    *_, last = steps(nets[1], checkpoint=path)
    assert torch.equal(flat(nets[0]), flat(nets[1])) and last.ledger == end.ledger


def child(path, log, seed):
    """A run that tells each draw to a log before it makes it; killed from outside."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    original = dp.Gaussian.draw

    def draw(*args):
        os.write(out, b".")
        time.sleep(0.001)
        return original(*args)

    dp.Gaussian.draw = draw
    net = model()
    for _ in dp.train(net, data(), long_plan(), seed=seed, checkpoint=path, checkpoint_every=7):
        pass
    torch.save(flat(net), f"{path}.end")


def long_plan():
    return plan_of(dp.DPSGD(4.0, 0.7, 0.2, 0.9), LENGTH)


def killings(folder, seed, kills):
    """Kill runs at random moments, resume each until it ends; what was seen at each kill.

    Runs in a process of its own that has imported everything: each run is a fork of it.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng, done, number = np.random.default_rng(kills), 0, 0
    whole = None if seed is None else _unbroken(seed)
    while done < kills:
        number += 1
        path, log = Path(folder) / f"{number}.pt", Path(folder) / f"{number}.log"
        for attempt in range(4):
            moment = float(rng.uniform(0, 0.4)) if attempt < 3 and done < kills else None
            done += _killed(path, log, seed, moment)
            _check_after_a_kill(path, log, seed)
        at = checkpoints.read(path)
        assert at.done == at.paid == LENGTH, at
        if seed is not None:
            assert torch.equal(torch.load(f"{path}.end", weights_only=True), whole)


def _killed(path, log, seed, moment):
    """Run in a fork, kill it after a moment (None: let it end); whether it died of it."""
    process = os.fork()
    if not process:
        try:
            child(path, log, seed)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(7)
    if moment is not None:
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
    ended = os.waitpid(process, 0)[1]
    assert ended == 0 or os.WIFSIGNALED(ended), "the run failed by itself"
    return os.WIFSIGNALED(ended)


def _check_after_a_kill(path, log, seed):
    """Whatever is on disk is whole, and covers every draw that was begun."""
    drawn = len(log.read_bytes()) if log.exists() else 0
    if not path.exists():
        assert drawn == 0, "noise was drawn before anything was on disk"
        return
    at = checkpoints.read(path)
    assert at.done <= at.paid <= LENGTH
    if seed is None:
        assert drawn <= at.paid, f"{drawn} draws, {at.paid} paid"


def _unbroken(seed):
    net = model()
    list(dp.train(net, data(), long_plan(), seed=seed))
    return flat(net)


@pytest.mark.parametrize("seed", [None, 5])
def test_killed_at_any_moment_it_resumes_and_never_under_reports(seed, tmp_path):
    """kill -9 at random moments; 100 of each kind in the long form, 8 here."""
    kills = 100 if cases.LONG else 8
    call = f"killings({str(tmp_path)!r}, {seed!r}, {kills})"
    code = f"from tests.privacy.test_checkpoint import killings\n{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
