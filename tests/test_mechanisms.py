"""Mechanisms: profiles, moments, pairs, noise; the ledger and its stored form."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from dpkit.mechanisms import (
    Access,
    EpsilonDelta,
    FixedSizeGaussian,
    FixedSizeSampling,
    Gaussian,
    Laplace,
    Ledger,
    Mechanism,
    Neighbours,
    PoissonSampling,
    RandomisedResponse,
    Refused,
    Release,
    ReplacedGaussian,
    Reversed,
    Subsampled,
    SubsampledGaussian,
    grid,
    tangents,
)
from dpkit.mechanisms.ledger import STORED

EVERY = [
    Gaussian(0.5),
    Gaussian(30.0),
    SubsampledGaussian(0.01, 0.8),
    SubsampledGaussian(0.4, 3.0),
    ReplacedGaussian(0.05, 1.0),
    FixedSizeGaussian(0.05, 2.0),
    Laplace(2.0),
    Subsampled(Laplace(1.0), 0.1),
    Subsampled(Gaussian(1.2), 0.1),
    RandomisedResponse(1.0),
    RandomisedResponse(0.5, 6),
    EpsilonDelta(0.7, 0.01),
]
BOTH = EVERY + [mechanism.reverse for mechanism in EVERY if not mechanism.symmetric]
ADD, ZERO, REPLACE = Neighbours.ADD_REMOVE, Neighbours.ZERO_OUT, Neighbours.REPLACE_ONE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mechanism", BOTH, ids=repr)
def test_profile_is_a_profile(mechanism):
    eps = np.linspace(-6, 6, 1201)
    delta = mechanism.profile(eps)
    assert delta.shape == eps.shape and delta.dtype == np.float64
    assert np.all(delta >= np.maximum(0, 1 - np.exp(eps)) - 1e-12) and np.all(delta <= 1)
    assert np.all(np.diff(delta) <= 1e-12)
    slope = np.diff(delta) / np.diff(np.exp(eps))
    assert np.all(np.diff(slope) >= -1e-7)  # convex in e^eps
    assert mechanism.profile(0.5).shape == ()


@pytest.mark.parametrize("mechanism", BOTH, ids=repr)
def test_reverse_swaps_the_pair(mechanism):
    eps = np.linspace(-4, 4, 161)
    turned = 1 - np.exp(eps) + np.exp(eps) * mechanism.profile(-eps)
    assert mechanism.reverse.profile(eps) == pytest.approx(turned, abs=1e-12)
    assert mechanism.reverse_profile(eps) == pytest.approx(turned, abs=1e-12)
    assert mechanism.reverse.reverse == mechanism


@pytest.mark.parametrize(
    "mechanism", [m for m in BOTH if not (isinstance(m, EpsilonDelta) and m.delta)], ids=repr
)
def test_rdp_is_the_integral_of_the_profile(mechanism):
    alpha = np.array([1.05, 1.5, 2.0, 4.5, 9.0])
    read = np.real(grid.log_moment(mechanism, alpha - 1)) / (alpha - 1)
    own = mechanism.rdp(alpha)
    assert own == pytest.approx(read, rel=1e-4)
    assert np.all(read >= own * (1 - 1e-9))  # read off the profile from above
    assert np.all(np.diff(own) >= -1e-12)


@pytest.mark.parametrize("mechanism", [m for m in EVERY if m.smooth], ids=repr)
def test_complex_moments_agree_with_a_fine_quadrature(mechanism):
    x = np.linspace(-60, 60, 400_001)
    sigma = mechanism.noise_multiplier
    q = getattr(mechanism, "sample_rate", 1.0)
    bell = [np.exp(-0.5 * (x - c / sigma) ** 2) / math.sqrt(2 * math.pi) for c in (-1, 0, 1)]
    p = (1 - q) * bell[1] + q * bell[2]
    other = (1 - q) * bell[1] + q * bell[0] if isinstance(mechanism, ReplacedGaussian) else bell[1]
    kept = (p > 1e-280) & (other > 1e-280)
    loss = np.log(p[kept]) - np.log(other[kept])
    for z in (0.5, 2.0, 1.0 + 3.0j, 3.0 + 0.7j, -1.5, -2.0 + 1.0j):
        exact = np.sum(p[kept] * np.exp(z * loss)) * (x[1] - x[0])
        value = np.exp(mechanism.log_moment(np.array([z]))[0])
        assert value == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("mechanism", BOTH, ids=repr)
def test_grids_lie_above_and_below_the_profile(mechanism):
    eps = np.random.default_rng(1).uniform(-5, 5, 400)
    true = mechanism.profile(eps)
    for step in (0.01, 0.083, 0.5):
        origin = grid.origin_of(mechanism)
        low, high = math.ceil((20 + origin) / step), math.ceil((20 - origin) / step)
        for lay, sign in ((grid.above, 1), (tangents.below, -1)):
            side = lay(mechanism, step, low, high)
            gain = np.maximum(-np.expm1(np.subtract.outer(eps, side.losses)), 0.0)
            laid = gain @ side.mass + side.infinite
            assert np.all(sign * (laid - true) >= -1e-12)
            assert side.mass.sum() + side.infinite == pytest.approx(1.0, abs=1e-9)


def test_gaussian_pairs():
    plain, poisson = Gaussian(2.0), PoissonSampling(0.1)
    assert plain.pair(ADD) == plain.pair(ZERO) == plain
    assert plain.pair(REPLACE) == Gaussian(1.0)
    assert plain.pair(ADD, poisson) == plain.pair(ZERO, poisson) == SubsampledGaussian(0.1, 2.0)
    assert plain.pair(REPLACE, poisson) == ReplacedGaussian(0.1, 2.0)
    assert plain.pair(ADD, PoissonSampling(1.0)) == plain
    assert plain.pair(REPLACE, FixedSizeSampling(0.1)) == FixedSizeGaussian(0.1, 2.0)
    with pytest.raises(Refused, match="use Poisson sampling"):
        plain.pair(ADD, FixedSizeSampling(0.1))


def test_a_pair_at_full_rate_is_the_plain_one():
    eps = np.linspace(-3, 6, 50)
    assert SubsampledGaussian(1.0, 2.0).profile(eps) == pytest.approx(Gaussian(2.0).profile(eps))
    assert ReplacedGaussian(1.0, 2.0).profile(eps) == pytest.approx(Gaussian(1.0).profile(eps))
    assert FixedSizeGaussian(1.0, 2.0).profile(eps) == pytest.approx(Gaussian(1.0).profile(eps))
    alpha = np.array([1.5, 3.0])
    assert ReplacedGaussian(1.0, 2.0).rdp(alpha) == pytest.approx(Gaussian(1.0).rdp(alpha))


def test_the_generic_rule_agrees_with_the_gaussian_one():
    eps = np.linspace(-3, 4, 80)
    one, other = Subsampled(Gaussian(1.3), 0.07), SubsampledGaussian(0.07, 1.3)
    assert one.profile(eps) == pytest.approx(other.profile(eps), abs=1e-15)
    assert one.reverse.profile(eps) == pytest.approx(other.reverse.profile(eps), abs=1e-15)


def test_refusals_name_what_can_be_accounted():
    with pytest.raises(Refused, match="Poisson sampling"):
        Laplace(1.0).pair(REPLACE, PoissonSampling(0.1))
    with pytest.raises(Refused, match="replace one record by another"):
        RandomisedResponse(1.0).pair(ADD)
    with pytest.raises(Refused, match="Gaussian"):
        EpsilonDelta(1.0).pair(ADD, FixedSizeSampling(0.1))
    with pytest.raises(TypeError, match="draws nothing"):
        SubsampledGaussian(0.1, 1.0).draw(torch.zeros(3), 1.0, seeded())
    assert Laplace(1.0).pair(REPLACE) == Laplace(0.5)
    assert RandomisedResponse(1.0).pair(REPLACE) == RandomisedResponse(1.0)
    assert Laplace(1.0).pair(ADD, PoissonSampling(0.1)) == Subsampled(Laplace(1.0), 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Gaussian(-1.0),
        lambda: Gaussian(math.nan),
        lambda: Gaussian(math.inf),
        lambda: Laplace(-0.1),
        lambda: PoissonSampling(0.0),
        lambda: PoissonSampling(1.5),
        lambda: SubsampledGaussian(-0.1, 1.0),
        lambda: RandomisedResponse(1.0, 1),
        lambda: EpsilonDelta(1.0, 1.5),
        lambda: Release(Gaussian(1.0), count=-1),
    ],
)
def test_invalid_values_are_refused_in_a_sentence(wrong):
    with pytest.raises(ValueError, match=r"must (lie|be).*got"):
        wrong()


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_no_noise_costs_everything_and_changes_nothing(kind):
    bare = kind(0.0)
    assert np.all(bare.profile(np.array([0.0, 10.0, 500.0])) == 1.0)
    assert np.isinf(bare.rdp(2.0))
    total = torch.arange(5.0)
    out = bare.draw(total, 1.0, seeded())
    assert torch.equal(out, torch.arange(5.0))


@pytest.mark.parametrize(
    "mechanism, variance", [(Gaussian(1.3), 1.3**2), (Laplace(1.3), 2 * 1.3**2)], ids=repr
)
def test_the_noise_has_the_width_that_is_accounted(mechanism, variance):
    total, generator = torch.zeros(200, 2000), seeded(3)
    first, second = (mechanism.draw(total, 2.0, generator) for _ in range(2))
    n, want = total.numel(), variance * 4.0
    kurtosis = 2.0 if isinstance(mechanism, Gaussian) else 5.0  # of x^2, over its mean squared
    for noise in (first, second):
        flat = noise.double().flatten()
        assert abs(float(flat.mean())) < 5 * math.sqrt(want / n)
        assert abs(float(flat.var()) / want - 1) < 5 * math.sqrt(kurtosis / n)
        lag = float((flat[1:] * flat[:-1]).mean()) / want
        assert abs(lag) < 5 / math.sqrt(n)
    assert abs(float((first * second).mean())) / want < 5 / math.sqrt(n)
    assert total.abs().max() == 0  # the input is left alone
    assert torch.equal(mechanism.draw(total, 2.0, seeded(3)), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_keep_the_type_and_cast_after_adding(dtype):
    total = torch.full((4, 5), 3.0, dtype=dtype)
    out = Gaussian(1.0).draw(total, 1.0, seeded())
    assert out.dtype == dtype and out.shape == total.shape
    exact = total.double() + torch.empty(4, 5).double().normal_(generator=seeded())
    assert torch.equal(out, exact.to(dtype))


def test_randomised_response_keeps_answers_as_often_as_it_says():
    response, truth = RandomisedResponse(1.0, 4), torch.full((200_000,), 2)
    out = response.draw(truth, 1.0, seeded(1))
    shares = torch.bincount(out, minlength=4).double() / len(truth)
    spread = 5 * math.sqrt(0.25 / len(truth))
    assert abs(float(shares[2]) - response.keep) < spread
    for other in (0, 1, 3):
        assert abs(float(shares[other]) - response.keep * math.exp(-1.0)) < spread


def test_ledger_merges_keeps_order_and_drops_nothing():
    a, b = Gaussian(1.0), SubsampledGaussian(0.1, 1.0)
    ledger = Ledger.of([(b, 2), (a, 1), (b, 3), (Gaussian(9.0), 0)])
    assert ledger.entries == ((b, 5), (a, 1)) and ledger.steps == 6
    assert ledger.mechanisms == (b, a) and ledger.counts == (5, 1)
    assert (ledger + ledger).counts == (10, 2)
    assert len({ledger, Ledger.of([(b, 5), (a, 1)])}) == 1
    assert Ledger().steps == 0 and Ledger() + ledger == ledger == ledger + Ledger()
    with pytest.raises(Refused, match="different relations"):
        ledger + Ledger(((a, 1),), REPLACE)
    with pytest.raises(ValueError, match="whole number"):
        Ledger(((a, 1.5),))
    with pytest.raises(ValueError, match="whole number"):
        Ledger(((a, -1),))
    for wrong in (None, [1], {}, math.nan, math.inf, True, "3"):
        with pytest.raises(ValueError, match=r"must be a whole number in \[0, infinity\), got"):
            Ledger(((a, wrong),))
    with pytest.raises(TypeError, match="mechanisms"):
        Ledger((("gaussian", 1),))
    assert Release(a).access is Access.SAMPLED


def test_ledger_is_stored_and_loaded():
    ledger = Ledger(tuple((m, i + 1) for i, m in enumerate(EVERY)), ZERO)
    assert Ledger.from_json(ledger.to_json()) == ledger
    data = json.loads(ledger.to_json())
    for change, said in (
        ({"version": 99}, "version"),
        ({"relation": "FRIENDS"}, "relation"),
        ({"dpkit": "cake"}, "not a stored ledger"),
        ({"entries": [{"kind": "os.system", "values": {}, "count": 1}]}, "Unknown mechanism"),
        ({"entries": [{"kind": "Gaussian", "values": {"x": 1}, "count": 1}]}, "noise_multiplier"),
        ({"entries": [{"kind": "Gaussian", "values": {"noise_multiplier": -1}, "count": 1}]}, "-1"),
        ({"entries": [{"kind": "Gaussian"}]}, "kind, values and count"),
        ({"entries": 3}, "list"),
    ):
        with pytest.raises(ValueError, match=said):
            Ledger.from_json(json.dumps({**data, **change}))
    with pytest.raises(ValueError, match="must be JSON"):
        Ledger.from_json("{")

    class Own(Mechanism):
        def profile(self, epsilon):
            return Gaussian(1.0).profile(epsilon)

    with pytest.raises(Refused, match="no stored form"):
        Ledger(((Own(), 1),)).to_json()


def stored(kind="Gaussian", count=1, **values):
    values = values or {"noise_multiplier": 2.0}
    return {"entries": [{"kind": kind, "values": values, "count": count}]}


INNER = {"kind": "Gaussian", "values": {"noise_multiplier": 2.0}}
SHUFFLED = {"batches": 3, "noise_multiplier": 1.0, "replaced": False, "loudest": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((stored(count=c), "count") for c in (None, [1], {}, math.nan, math.inf, "1", True)),
        ({"relation": ["ZERO_OUT"]}, "Unknown relation"),
        ({"relation": None}, "Unknown relation"),
        ({"note": "mine", "also": 1}, r"got also \['also', 'note'\]"),
        ({"version": True}, "version True"),
        ({"version": 1.0}, "version 1.0"),
        ({"version": [1]}, "version"),
        (stored("Subsampled", mechanism=5, sample_rate=0.1), "mechanism of Subsampled"),
        (stored("Subsampled", mechanism=INNER | {"count": 1}, sample_rate=0.1), "kind and"),
        (stored("Reversed", forward="x"), "forward of Reversed"),
        (stored("Reversed", forward=None), "forward of Reversed"),
        (stored("FixedSizeGaussian", sample_rate=0.1, noise_multiplier=1.0, zeroed="no"),
         "zeroed of FixedSizeGaussian .* true or false"),
        (stored("ShuffledGaussian", **SHUFFLED | {"replaced": 1}), "replaced .* true or false"),
        (stored("ShuffledGaussian", **SHUFFLED | {"loudest": True}), "loudest .* number or null"),
        (stored("ShuffledGaussian", **SHUFFLED | {"loudest": "x"}), "loudest .* number or null"),
        (stored("UpperSide", mechanism=INNER, reason=5), "reason of UpperSide .* a text"),
        (stored(noise_multiplier=INNER), "noise_multiplier"),
        (stored(noise_multiplier=[1]), "noise_multiplier"),
        (stored(noise_multiplier=math.nan), "noise_multiplier"),
        (stored(noise_multiplier=10**400), "too large a number"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_stored_ledger_that_cannot_be_known_is_refused_in_one_sentence(change, said):
    data = json.loads(Ledger(((Gaussian(2.0), 1),)).to_json())
    with pytest.raises(ValueError, match=said) as caught:
        Ledger.from_json(json.dumps({**data, **change}))
    assert type(caught.value) is ValueError
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_ledger_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match="so deeply"):
        Ledger.from_json("[" * 200_000)


def test_every_stored_mechanism_with_a_mechanism_inside_is_loaded_again():
    for outer in (Subsampled(Laplace(1.0), 0.1), Reversed(Subsampled(Laplace(1.0), 0.1))):
        ledger = Ledger(((outer, 2),))
        assert Ledger.from_json(ledger.to_json()) == ledger
    known = {"float", "int", "bool", "str", "Mechanism", "float | None"}
    for kind in STORED:
        assert {field.type for field in dataclasses.fields(kind)} <= known, kind
