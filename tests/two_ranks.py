"""One process of the two in tests/test_ranks.py: `torchrun --nproc-per-node 2 THIS FOLDER`."""

from __future__ import annotations

import sys
import warnings
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import distributed, nn

import dpkit as dp
from dpkit.gradients import Adam
from dpkit.methods import Freeze, Magnitude, Select
from dpkit.methods.masks import Mask
from dpkit.ranks import Ranks
from tests.privacy.planted.ranks import planted

RECORDS, STEPS = 90, 12
MASKS = {"frozen": Freeze(0.7), "selected": Select(0.7, by=Magnitude())}


def plan(sigma: float = 1.1, steps: int = STEPS, mask: Mask | None = None) -> dp.Plan:
    method = dp.DPSGD(sigma, 0.5, 0.05, optimiser=Adam(), mask=mask)
    return dp.Plan(method, dp.Poisson(0.2, steps), delta=1e-3)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    inputs = torch.randn(RECORDS, 6, generator=stream)
    return inputs, torch.arange(RECORDS) % 3


def model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def trained(net: nn.Module, wanted: dp.Plan, **options) -> dict:
    """A run, with the noise that this process drew and the slices that it saw."""
    drawn, original = [], dp.Gaussian.draw
    slices, own = [], Ranks.own

    def draw(self, total, norm, generator):
        given = total.clone()
        noisy = original(self, total, norm, generator)
        drawn.append(noisy - given)
        return noisy

    def kept(self, batch):
        slices.append(torch.as_tensor(own(self, batch)))
        return own(self, batch)

    dp.Gaussian.draw, Ranks.own = draw, kept
    try:
        steps = list(dp.train(net, data(), wanted, device="cpu", **options))
    finally:
        dp.Gaussian.draw, Ranks.own = original, own
    return {
        "weights": flat(net),
        "noise": torch.stack(drawn) if drawn else None,
        "slices": slices,
        "sizes": [step.peek.batch_size for step in steps],
        "losses": [step.peek.loss for step in steps],
        "epsilon": steps[-1].epsilon if steps else None,
    }


def refused(**options) -> str:
    """The sentence with which a run is refused."""
    try:
        dp.train(model(), data(), options.pop("plan", plan()), device="cpu", **options)
    except (ValueError, RuntimeError, MemoryError) as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    """Each case on both ranks; each rank writes what it saw."""
    with ExitStack() as stack:
        planted(stack)
        _cases(folder)


def _cases(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    path = folder / "run.pt"
    half = dp.train(model(), data(), plan(), seed=5, device="cpu", checkpoint=path)
    for step in half:
        if step.step == 5:
            half.close()
            break
    damaged = folder / f"damaged{rank}.pt"
    if rank == 1:
        damaged.write_bytes(b"no checkpoint")
    found = {
        "seeded": trained(model(), plan(), seed=5),
        "other start": trained(model(seed=rank), plan(), seed=5),
        "secret": trained(model(), plan(), seed=None),
        "resumed": trained(model(), plan(), seed=5, checkpoint=path),
        "other seeds": refused(seed=rank),
        "other plans": refused(plan=plan(1.0 + rank), seed=5),
        "damaged on one": refused(seed=5, checkpoint=damaged),
        "short of memory": refused(seed=5, memory_budget=None if rank else 10),
    }
    found |= {name: trained(model(), plan(mask=mask), seed=5) for name, mask in MASKS.items()}
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
