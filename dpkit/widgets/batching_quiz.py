"""The exercises of the batching lesson, and three libraries that were asked for one epsilon."""

from __future__ import annotations

from dpkit.mechanisms import Neighbours
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import BallsInBins, Poisson, Sampler, Shuffle
from dpkit.widgets.exercises import Exercise

ZERO = Neighbours.ZERO_OUT


def _certain() -> tuple[float, float]:
    plan = Plan(DPSGD(2.0), Shuffle(50, 20), 1e-5, relation=ZERO)
    return 0.99 * plan.epsilon(), 1.01 * plan.epsilon()


def libraries() -> tuple[tuple[str, str, float], ...]:
    """Three libraries asked for one run's epsilon: what each draws, accounts, and prints."""
    method, delta = DPSGD(1.0), 1e-5
    coins, bins = Poisson(0.01, 100), BallsInBins(100, 1)

    def price(sampler: Sampler) -> float:
        return Plan(method, sampler, delta, relation=ZERO).epsilon()

    return (
        ("1", "shuffles its data every epoch; accounts Poisson batches", price(coins)),
        ("2", "shuffles its data every epoch; accounts balls in bins", price(bins)),
        ("3", "throws every record into a bin of its own; accounts balls in bins", price(bins)),
    )


EXERCISES = (
    Exercise(
        lambda: (3.0, 3.0),
        "what is drawn must be what is accounted: compare the two halves of each line.",
        "a shuffled epoch with σ = 1 and t = 100 costs at least 4.06, however it is accounted.",
        "Library 3 draws what it accounts. The others shuffle, and a shuffled run with these "
        "knobs costs at least 4.06: their numbers belong to runs that nobody made.",
    ),
    Exercise(
        _certain,
        "σ = 2, t = 50, E = 20: the panel of four bars stands there at the start.",
        "only the upper side of a band may be promised.",
        "The truth may be as low as 1.98, but only 11.49 is proven.",
    ),
    Exercise(
        lambda: (4.0, 4.0),
        "zeroing a record out moves a sum by C; replacing one moves it by 2C.",
        "rho is the square of the sensitivity over 2σ².",
        "Twice the sensitivity is four times rho: replacing costs what σ/2 costs.",
    ),
)
"""The exercises of the batching lesson."""
