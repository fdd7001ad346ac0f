"""The whole domain: never a crash, a negative number or NaN; a bound, infinity or a refusal."""

import math
import os
from decimal import Decimal, localcontext

import numpy as np
import pytest

import dpkit as dp
from dpkit.accountants import GDP, PLD, RDP, ZCDP, Advanced, Basic, Moments, composition, sandwich
from dpkit.mechanisms import (
    EpsilonDelta,
    FixedSizeSampling,
    Gaussian,
    Ledger,
    Neighbours,
    PoissonSampling,
    ReplacedGaussian,
    SubsampledGaussian,
)
from dpkit.mechanisms import Refused as RefusedError

LONG = os.environ.get("DPKIT_LONG") == "1"
ACCOUNTANTS = (PLD(), RDP(), Moments(), ZCDP(), GDP(), Basic(), Advanced())
CURVED = 1e-6  # what rounding may take off a curve that rises


def drawn(random):
    """A value of each parameter, spread over its logarithm, the ends themselves now and then."""

    def one(low, high):
        at = random.random()
        value = math.exp(random.uniform(math.log(low), math.log(high)))
        return low if at < 0.08 else high if at < 0.16 else value

    q = min(one(float(random.choice([1e-9, 1e-5, 1e-3])), 1.0), 1.0)
    sampling = FixedSizeSampling(q) if random.random() < 0.25 else PoissonSampling(q)
    relation = list(Neighbours)[random.integers(3)]
    return sampling, relation, one(0.05, 1000.0), round(one(1, 1e7)), one(1e-15, 0.5)


def point(seed):
    """A ledger and delta from anywhere in the domain; what is refused is drawn again."""
    random = np.random.default_rng(seed)
    while True:
        sampling, relation, sigma, steps, delta = drawn(random)
        try:
            pair = Gaussian(sigma).pair(relation, sampling)
        except RefusedError as refusal:
            assert str(refusal).endswith(".") and "use" in str(refusal)
            continue
        return Ledger(((pair, steps),), relation), delta, random


@pytest.mark.parametrize("seed", range(3_000 if LONG else 24))
def test_anywhere_in_the_domain(seed):
    ledger, delta, random = point(seed)
    truth = PLD().bounds(ledger, delta)
    for accountant in ACCOUNTANTS:
        try:
            value = accountant.epsilon(ledger, delta)
        except RefusedError as refusal:
            assert isinstance(accountant, GDP) and str(refusal).endswith("use PLD.")
            continue
        assert value >= 0.0
        if accountant.is_bound:
            assert value >= truth.lower
        bounds = accountant.bounds(ledger, delta)
        assert 0.0 <= bounds.lower <= bounds.estimate == value <= bounds.upper
        for epsilon in (0.0, value, float(random.uniform(0, 20))):
            assert 0.0 <= accountant.delta(ledger, epsilon) <= 1.0
        if accountant.is_bound and 0.0 < value < math.inf:
            # A coarse grid answers the far ends: delta is then a bound, not within a tenth; and
            # where epsilon is in the thousands it promises nothing, whatever delta is.
            slack = 1e-5
            if isinstance(accountant, PLD):
                slack = 1.0 if value < 1e3 else math.inf
            assert accountant.delta(ledger, value) <= delta * (1 + slack)
        counts = np.array([[0], [1], [max(ledger.steps // 3, 1)], [ledger.steps]])
        curve = accountant.curve(ledger.mechanisms, counts, delta)
        assert curve[0] == 0.0 and curve[-1] == value
        assert np.all(curve[:-1] <= curve[1:] * (1 + CURVED) + 1e-9)


@pytest.mark.parametrize("seed", range(2_000 if LONG else 15))
def test_more_noise_fewer_steps_and_a_larger_delta_cost_less(seed):
    """Each parameter is moved alone; the way an answer is found may change, the order may not."""
    random = np.random.default_rng(10_000 + seed)
    _, _, sigma, steps, delta = drawn(random)
    q, factor = float(10 ** random.uniform(-6, 0)), float(random.uniform(1.01, 3.0))
    relation = (Neighbours.ADD_REMOVE, Neighbours.REPLACE_ONE)[random.integers(2)]
    for accountant in (PLD(), RDP(), ZCDP(), Moments(), Basic()):

        def epsilon(q=q, sigma=sigma, steps=steps, delta=delta, accountant=accountant):
            pair = Gaussian(sigma).pair(relation, PoissonSampling(q))
            return accountant.epsilon(Ledger(((pair, steps),), relation), delta)

        value = epsilon() * (1 + 2e-3) + 1e-9
        assert epsilon(sigma=sigma * factor) <= value
        assert epsilon(steps=math.floor(steps / factor)) <= value
        assert epsilon(q=q / factor) <= value
        assert epsilon(delta=min(delta * factor, 0.99)) <= value


@pytest.mark.parametrize(
    "q, sigma, steps, delta",
    [
        # The contour once cancelled to 3% too little here: rounding, times ten million.
        (2.692358717575752e-05, 1.7915434890230195, 9_471_200, 1.2303628986168406e-14),
        # ... and lies a millionth beside the sandwich here.
        (1.3375663625630335e-06, 0.05, 6_420_550, 1e-15),
    ],
)
def test_where_rounding_was_multiplied(q, sigma, steps, delta):
    pair = Gaussian(sigma).pair(Neighbours.REPLACE_ONE, PoissonSampling(q))
    ledger = Ledger(((pair, steps),), Neighbours.REPLACE_ONE)
    bounds, value = PLD().bounds(ledger, delta), PLD().epsilon(ledger, delta)
    assert bounds.lower <= bounds.estimate == value <= bounds.upper
    assert bounds.upper - bounds.lower < 2e-3 * bounds.upper


def test_a_rare_and_loud_loss_has_no_false_lower_side():
    """Seen once in a thousand million, and then for sure: adding up proves a tiny epsilon."""
    pair = Gaussian(0.2692845).pair(Neighbours.REPLACE_ONE, PoissonSampling(1e-9))
    ledger = Ledger(((pair, 5),), Neighbours.REPLACE_ONE)
    bounds, proven = PLD().bounds(ledger, 7.976e-10), Basic().epsilon(ledger, 7.976e-10)
    assert proven < 1e-4
    assert bounds.lower <= bounds.estimate == PLD().epsilon(ledger, 7.976e-10) <= proven


@pytest.mark.parametrize("gap", [2.2e-16, 1e-14, 1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("backward", [False, True])
def test_a_record_that_is_nearly_always_seen_costs_what_an_unsampled_one_does(gap, backward):
    """ "Not seen" is then so rare, and so loud, that a grid of losses must not be laid over it."""
    pair, delta = SubsampledGaussian(1 - gap, 1.0), math.exp(-2)
    ledger = Ledger(((pair.reverse if backward else pair, 3),))
    bounds, plain = PLD().bounds(ledger, delta), PLD().epsilon(Ledger(((Gaussian(1.0), 3),)), delta)
    assert bounds.lower <= bounds.estimate == PLD().epsilon(ledger, delta) <= bounds.upper
    assert bounds.lower <= plain and bounds.upper <= plain * 1.01
    assert bounds.estimate == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("rate", [0.0016004026902445643, 0.0024787521766663585])
def test_two_releases_at_a_tiny_delta_lie_within_their_bracket(rate):
    """The transform's terms cancel there to a millionth: once an epsilon 2e-5 too small."""
    pairs = (SubsampledGaussian(rate, 1.0), ReplacedGaussian(math.exp(-2), math.exp(1.5)))
    ledger, delta = Ledger.of([(pair, 1) for pair in pairs]), math.exp(-27)
    bounds = PLD().bounds(ledger, delta)
    assert bounds.lower <= bounds.estimate == PLD().epsilon(ledger, delta) <= bounds.upper


PI = Decimal("3.14159265358979323846264338327950288419716939937510")


def log_factorial(n):
    """Stirling's series where it is long enough."""
    if n < 300:
        return Decimal(math.factorial(n)).ln()
    n = Decimal(n)
    tail = 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5) - 1 / (1680 * n**7)
    return n * n.ln() - n + (2 * PI * n).ln() / 2 + tail


def pure_delta(loss, steps, epsilon):
    """delta of `steps` releases of pure epsilon `loss`: the binomial's tail, in 45 digits."""
    loss, epsilon = Decimal(loss), Decimal(epsilon)
    right = loss.exp() / (1 + loss.exp())
    k = int((epsilon / loss + steps) / 2)
    k += 1 if (2 * k - steps) * loss <= epsilon else 0
    chances = log_factorial(steps) - log_factorial(k) - log_factorial(steps - k)
    term = (chances + k * right.ln() + (steps - k) * (1 - right).ln()).exp()
    missed, total = (epsilon - (2 * k - steps) * loss).exp(), Decimal(0)
    for wins in range(k, steps + 1):
        total += term * (1 - missed)
        if term < total * Decimal("1e-25"):
            break
        term *= right / (1 - right) * (steps - wins) / (wins + 1)
        missed /= (2 * loss).exp()
    return total


@pytest.mark.parametrize(
    "loss, steps, delta", [(2.0**-2, 1000, 1e-6), (2.0**-10, 10**6, 1e-5), (2.0**-10, 10**6, 1e-12)]
)
def test_both_sides_of_the_sandwich_allow_for_rounding(loss, steps, delta):
    """A grid that meets pure losses is exact but for rounding, which a million releases multiply.

    Once the upper side of a million was 2e-10 of delta too low, and far out on the right the
    lower side was eight times the truth.
    """
    with localcontext() as context:
        context.prec = 45
        pair = EpsilonDelta(loss)
        layout = sandwich.laid_out((pair,), (steps,), delta)
        above, below = (sandwich.composed((pair,), (steps,), layout, up) for up in (True, False))
        middle = above.epsilon(delta)
        for epsilon in np.array([0.8, 1.0, 1.2, 1.5, 2.0]) * middle:
            exact = pure_delta(loss, steps, float(epsilon))
            assert Decimal(float(above.deltas(np.array([epsilon]))[0])) >= exact
            assert Decimal(float(below.deltas(np.array([epsilon]))[0])) <= exact
        near = float(above.deltas(np.array([middle]))[0])
        assert near <= float(pure_delta(loss, steps, middle)) * (1 + 1e-6)


@pytest.mark.parametrize("sigma", [1e-3, 1e-20])
@pytest.mark.parametrize(
    "sampler",
    [dp.Poisson(0.1, 20), dp.FixedSize(5, 100, 4), dp.BallsInBins(5, 4), dp.Shuffle(5, 4)],
    ids=lambda s: type(s).__name__,
)
def test_next_to_no_noise_has_a_bound_or_none_but_no_crash(sampler, sigma):
    """Below the domain that is promised, and easily met: e^(-k t) falls fast."""
    bounds = dp.Plan(dp.DPSGD(sigma), sampler, 1e-5).bounds()
    assert 0 <= bounds.lower <= bounds.estimate <= bounds.upper
    assert bounds.estimate > 1e5


@pytest.mark.parametrize("seed", range(12))
def test_the_direction_that_is_not_asked_costs_less(seed, monkeypatch):
    """Of two directions that are priced by grids the larger is the price, above and below."""
    random = np.random.default_rng(seed)
    noises, rates = random.uniform(0.15, 0.5, 2), random.uniform(0.02, 0.9, 2)
    pairs = [SubsampledGaussian(*at) for at in zip(rates, noises, strict=True)]
    pairs[seed % 2] = pairs[seed % 2].reverse if seed % 3 else pairs[seed % 2]
    mechanisms, counts = tuple(pairs), tuple(int(n) for n in random.integers(1, 5, 2))
    backward, asked = tuple(m.reverse for m in mechanisms), []
    for side, rest in ((sandwich.upper, ()), (sandwich.lower, (math.inf,))):
        both = [side(way, counts, 1e-5, *rest) for way in (mechanisms, backward)]

        def watched(way, *given, side=side):
            asked.append(way)
            return side(way, *given)

        found = sandwich.worse(watched, [mechanisms, backward], counts, 1e-5, *rest)
        assert found == max(both), (found, both)
        for way, value in zip((mechanisms, backward), both, strict=True):
            assert value <= sandwich.added(way, counts, 1e-5)[0]
    assert 2 <= len(asked) <= 4


def test_what_adds_up_is_infinite_where_a_loss_may_be():
    pair = EpsilonDelta(0.5, 1e-9)
    assert sandwich.added([pair], [10], 1e-5) == (math.inf, math.inf)
    assert sandwich.added([EpsilonDelta(0.5)], [10], 1e-5) == pytest.approx((5.0, 5.0), rel=1e-3)


def test_a_curve_at_next_to_no_noise_lays_no_grids_of_a_million_cells(monkeypatch):
    """It once took 40 seconds: for the direction that is the smaller one at every step."""
    cells, above = [], sandwich.grids.above

    def counted(mechanism, step, low, high):
        cells.append(low + high)
        return above(mechanism, step, low, high)

    monkeypatch.setattr(sandwich.grids, "above", counted)
    pair = SubsampledGaussian(0.089, 0.2)
    curve = PLD().curve([pair], np.arange(1, 113, 8)[:, None], 1e-5)
    assert np.all(np.diff(curve) > 0) and max(cells) < 10_000, max(cells)
    basic = composition.at_least([pair], [40], 1e-5)
    ledger = Ledger.of([(pair, 40)], Neighbours.ADD_REMOVE)
    assert 0.99 * Basic().epsilon(ledger, 1e-5) < basic < Basic().epsilon(ledger, 1e-5)
