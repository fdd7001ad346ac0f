"""Private activations: prices, promises in words, refusals, and the reading that promises none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit.auditing import leaky
from dpkit.methods.activation import PrivateActivation
from dpkit.runs import plan_from_json, plan_to_json

SIGMAS = {
    1e-5: {0.5: 14.06, 1.0: 7.46, 2.0: 3.99, 4.0: 2.16, 8.0: 1.20},
    1e-4: {0.5: 11.79, 1.0: 6.37, 2.0: 3.47, 4.0: 1.92, 8.0: 1.09},
}
ANSWERS = dp.RandomisedResponse(1.0, 10)


@pytest.fixture(scope="module")
def digits():
    return dp.datasets.load("digits")


@pytest.mark.parametrize("delta, epsilon", [(d, e) for d in SIGMAS for e in SIGMAS[d]])
@pytest.mark.parametrize("releases", [1, 5])
def test_sigma_for_a_price(delta, epsilon, releases):
    """Within .5% of the closed form of one release, sqrt(K) times that for K."""
    often = {} if releases == 1 else {"release": "each epoch", "steps_per_epoch": 10}
    plan = dp.Plan(dp.NeuralDP(**often), dp.Poisson(0.1, 10 * releases), delta).calibrated(epsilon)
    wanted = SIGMAS[delta][epsilon] * releases**0.5
    assert plan.method.noise_multiplier == pytest.approx(wanted, rel=0.005)
    assert 0.99 * epsilon < plan.epsilon() <= epsilon


def test_the_promise_says_what_it_covers():
    """Unit, relation, number of releases, no amplification, and what it rests on."""
    once = dp.Plan(dp.NeuralDP(3.0), dp.Poisson(0.01, 500), 1e-5).guarantee()
    assert "the input of one example, its label being public (replace one record by" in once
    assert "noisy activation is released once: no batch amplifies that" in once
    assert "the layers before it are public and frozen, or paid for" in once
    often = dp.NeuralDP(9.0, release="each epoch", steps_per_epoch=100, labels=ANSWERS)
    text = dp.Plan(often, dp.Poisson(0.01, 450), 1e-5).guarantee()
    assert "for one example (replace" in text and "label being public" not in text
    assert "released 5 times, its label once by randomised response" in text


def test_randomised_labels_are_composed_exactly():
    plan = dp.Plan(dp.NeuralDP(3.0, labels=ANSWERS), dp.Poisson(0.01, 50), 1e-5)
    assert dict(plan.ledger().entries) == {dp.Gaussian(1.5): 1, ANSWERS: 1}
    alone = dp.Plan(dp.NeuralDP(3.0), dp.Poisson(0.01, 50), 1e-5).epsilon()
    assert alone < plan.epsilon() < alone + 1.0
    with pytest.raises(dp.Refused, match="No noise that NeuralDP allows"):
        plan.calibrated(0.5)


def test_a_plan_of_two_phases_is_stored():
    first = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.1, 30), 1e-5, dp.Neighbours.REPLACE_ONE)
    plan = dp.Plan(dp.NeuralDP(3.0, labels=ANSWERS), dp.Shuffle(4, 2), 1e-5,
                   before=first.ledger().releases)  # fmt: skip
    again = plan_from_json(plan_to_json(plan))
    assert again == plan and again.epsilon() == plan.epsilon()


@pytest.mark.parametrize("given, error, words", [
    ({"noise_multiplier": -1.0}, ValueError, "noise_multiplier .* must lie in"),
    ({"max_norm": 0.0}, ValueError, "max_norm .* must lie in"),
    ({"learning_rate": 0.0}, ValueError, "learning_rate .* must lie in"),
    ({"momentum": 1.0}, ValueError, "momentum .* must lie in"),
    ({"averaging": 1.0}, ValueError, "averaging .* must lie in"),
    ({"release": "twice"}, ValueError, 'must be "once" or "each epoch", got \'twice\''),
    ({"release": "each epoch"}, ValueError, "steps_per_epoch .* whole number .* got None"),
    ({"release": "each epoch", "steps_per_epoch": 0}, ValueError, "steps_per_epoch .* got 0"),
    ({"steps_per_epoch": 5}, ValueError, 'None for "once", got 5'),
    ({"normalise": 1}, TypeError, "must be True or False, got 1"),
    ({"labels": 2.0}, TypeError, "must be a RandomisedResponse"),
    ({"momentum": 0.9, "optimiser": dp.gradients.Adam()}, ValueError, "beside an optimiser"),
    ({"learning_rate": dp.schedules.ValidationDecay(1.0, 0.5, 2, 2, 0.1)}, ValueError, "cannot fo"),
])  # fmt: skip
def test_a_method_that_makes_no_sense_is_refused_in_a_sentence(given, error, words):
    with pytest.raises(error, match=words) as caught:
        dp.NeuralDP(**given)
    assert str(caught.value).rstrip().endswith(".")


@pytest.mark.parametrize("sampler, relation", [
    (dp.BallsInBins(5, 2), None),
    (dp.Poisson(0.1, 5), dp.Neighbours.ADD_REMOVE),
    (dp.Shuffle(5, 2), dp.Neighbours.ZERO_OUT),
])  # fmt: skip
def test_other_relations_are_refused(sampler, relation):
    with pytest.raises(dp.Refused, match="NeuralDP (with|and)"):
        dp.Plan(dp.NeuralDP(), sampler, relation=relation)


def plan(method=None):
    return dp.Plan(method or dp.NeuralDP(3.0, labels=ANSWERS), dp.Shuffle(4, 2), 1e-4)


class Wide(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], 1)


@pytest.mark.parametrize("model, words", [
    (nn.Linear(64, 10), "got Linear with 0"),
    (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "got Sequential with 0"),
    (nn.Sequential(nn.Flatten(), PrivateActivation(), PrivateActivation(), nn.Linear(64, 10)),
     "with 2: dp.zoo.released"),
    (nn.Sequential(nn.Sequential(nn.Flatten(), PrivateActivation()), nn.Linear(64, 10)),
     "among its own layers"),
    (nn.Sequential(nn.Flatten(), PrivateActivation()), "no trainable parameter"),
    (nn.Sequential(Wide(), PrivateActivation(), nn.Linear(64, 10)), "fails on records of shape"),
    (nn.Sequential(nn.Flatten(), PrivateActivation(), nn.Linear(64, 9)), "9 outputs for the 10"),
    (nn.Sequential(nn.Flatten(), PrivateActivation(torch.zeros(9)), nn.Linear(64, 10)),
     "fails on records"),
])  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_before_anything_is_drawn(digits, model, words):
    with pytest.raises(ValueError, match=words) as caught:
        dp.train(model, digits, plan())
    assert str(caught.value).rstrip().endswith(".")


class Differences(nn.Module):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)


def test_an_activation_whose_numbers_cancel_is_no_mixture_of_records(digits):
    public = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), Differences())
    model = dp.zoo.released(digits, 0, public=public)
    assert len(list(dp.train(model, digits, plan(dp.NeuralDP(3.0)), seed=0))) == 8


def test_labels_that_do_not_fit_are_refused(digits):
    few = dp.NeuralDP(3.0, labels=dp.RandomisedResponse(1.0, 4))
    with pytest.raises(ValueError, match=r"got 4: give RandomisedResponse\(1, 10\)"):
        dp.train(dp.zoo.released(digits), digits, plan(few))
    with pytest.raises(ValueError, match="vector of d finite numbers"):
        PrivateActivation(torch.tensor([1.0, torch.nan]))


def test_the_model_keeps_the_bound_that_it_was_trained_with(digits):
    """Whoever calls the model afterwards gets what was evaluated."""
    method = dp.NeuralDP(2.0, 5.0, 0.01, normalise=False)
    model = dp.zoo.released(digits, 0, public=nn.Flatten())
    *_, last = dp.train(model, digits, plan(method), seed=0)
    again = dp.zoo.released(digits, 1, public=nn.Flatten())
    again.load_state_dict(model.state_dict())
    hits = (again(digits.test_inputs).argmax(1) == digits.test_targets).double().mean()
    assert float(hits) == pytest.approx(last.peek.accuracy)
    assert float(again[1](100 * digits.inputs[:3]).norm(dim=1).max()) == pytest.approx(5.0)


def test_no_end_to_end_training_states_an_epsilon():
    """Neither a number nor a promise comes out of it."""
    told = leaky.Spotted(leaky.Errors(0, 5, 0, 5), 2.0, 1.0, 1e-5, 0.99)
    assert "No privacy is promised" in str(told) and leaky.NONE.startswith("none")
    for thing in (leaky, told):
        assert not {"epsilon", "guarantee", "price"} & set(dir(thing))


@pytest.mark.parametrize("sigma", [0.0, 1.2, 14.06, 1e4])
def test_a_record_outside_the_span_is_spotted_whatever_the_noise(digits, sigma):
    found = leaky.spotted(digits, 3, noise_multiplier=sigma, trials=60, seed=1)
    assert found.wrong == 0 and found.guesses == 60 and found.refuted > 1
    alone = leaky.recovered(digits, 3, noise_multiplier=sigma, batch_size=1, seed=1)
    assert alone.similarity > 0.9999
    beside = leaky.recovered(digits, 3, noise_multiplier=sigma, batch_size=8, seed=1)
    assert 0.1 < beside.similarity < 1


def test_the_same_attack_finds_nothing_where_the_layers_before_are_frozen(digits):
    """The sound reading: what is before the noise does not move at all."""
    public = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    before = public[1].weight.detach().clone()
    model = dp.zoo.released(digits, 0, public=public)
    list(dp.train(model, digits, plan(dp.NeuralDP(3.0)), seed=0))
    assert torch.equal(model[0][1].weight, before)
    trainable = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *model[1:])
    with pytest.raises(dp.Refused, match="their updates hold the raw records"):
        dp.train(trainable, digits, plan(dp.NeuralDP(3.0)))


def test_training_through_the_noise_runs_and_bad_input_is_refused(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), PrivateActivation(), nn.Linear(16, 10))
    curve = list(leaky.through(model, digits, noise_multiplier=1.2, epochs=2, seed=0))
    assert len(curve) == 2 and 0.2 < curve[-1] <= 1
    with pytest.raises(ValueError, match="their span is everything, got 64"):
        leaky.spotted(digits, 3, noise_multiplier=1.0, batch_size=64)
    with pytest.raises(ValueError, match="record must be"):
        leaky.recovered(digits, 9999, noise_multiplier=1.0)
    with pytest.raises(ValueError, match="noise_multiplier .* must lie"):
        leaky.spotted(digits, 3, noise_multiplier=-1.0)
