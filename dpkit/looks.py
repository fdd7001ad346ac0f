"""Looks: what a schedule that reacts may see: public records, or an answer that is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpkit.budgets import Meter
from dpkit.mechanisms import Access, Gaussian, Refused, Release
from dpkit.plan import Plan

if TYPE_CHECKING:
    from dpkit.datasets import Dataset


class Looks:
    """The validation accuracies of one run, in the order in which they were seen.

    *Guarantee*
    - without noise they are measured on the data's public records, and on no others;
    - with noise they count right answers among the private records, each of which adds 0 or 1,
      and are paid and charged before their noise is drawn; the divisor is the public size.
    """

    def __init__(self, plan: Plan, data: Dataset) -> None:
        """Nothing is seen yet; refuses data without the records that are to be looked at."""
        self.plan, self.history = plan, tuple[float, ...]()
        self.schedule = plan.method.reacting
        free = self.schedule is not None and self.schedule.look_noise is None
        if free and not len(data.public_inputs):
            raise Refused(
                f"ValidationDecay may look, free of charge, at public records alone, and "
                f"{data.name!r} has none: split some off, as load(name, public=0.1) does, or pay "
                f"for each look by look_noise."
            )
        if self.schedule is not None and data.targets.is_floating_point():
            raise Refused("ValidationDecay needs classes, whose right answers can be counted.")
        self.public = data.public_inputs, data.public_targets

    def refuse(self, what: str, here: bool) -> None:
        """Refuse what is not offered for noise that reacts."""
        if self.schedule is not None and here:
            raise Refused(
                f"Noise that reacts to validation is not offered with {what}: what was seen is not "
                f"kept there; leave it out, or fix the schedule beforehand."
            )

    def before(self, step: int, run: Any, meter: Meter | None) -> bool:
        """See what must be seen before a step; False if the budget does not allow it."""
        schedule = self.schedule
        if schedule is None or not schedule.looks_before(step):
            return True
        if schedule.look_noise is None:
            seen = _accuracy(run, *self.public)
        else:
            release = Release(Gaussian(schedule.look_noise), access=Access.ALL)
            entries = [(release.mechanism.pair(self.plan.neighbours), release.count)]
            if meter is None or not meter.pay(entries):
                return False
            run.spend.charge(entries)
            seen = self._paid(run, release)
        self.history = (*self.history, seen)
        return True

    def _paid(self, run: Any, release: Release) -> float:
        """The noisy share of right answers among the private records."""
        import torch

        right = torch.zeros(1, dtype=torch.float64)
        if len(run.inputs):
            right += round(_accuracy(run, run.inputs, run.targets) * len(run.inputs))
        noisy = release.mechanism.draw(right, 1.0, run.noise)
        return float(noisy) / run.size


def _accuracy(run: Any, inputs: Any, targets: Any) -> float:
    accuracy = run.stepper.evaluate(inputs.to(run.device), targets.to(run.device))[1]
    return float(accuracy)
