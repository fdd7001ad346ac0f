"""Public pretraining: ordinary SGD, and toy shapes that come from no data."""

import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit.pretraining import pretrained, shapes


@pytest.fixture(scope="module")
def digits():
    return dp.datasets.load("digits", public=0.3)


def accuracy(model, inputs, targets):
    return float((model(inputs).argmax(1) == targets).double().mean())


def test_it_is_the_sgd_of_torch(digits):
    ours, theirs = (dp.zoo.mlp(digits, 0) for _ in range(2))
    pretrained(ours, digits.public_inputs, digits.public_targets, epochs=2, batch_size=50, seed=3)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    stream = torch.Generator().manual_seed(3)
    for _ in range(2):
        for batch in torch.randperm(len(digits.public_inputs), generator=stream).split(50):
            optimiser.zero_grad()
            outputs = theirs(digits.public_inputs[batch])
            nn.functional.cross_entropy(outputs, digits.public_targets[batch]).backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_near_records_teach_the_digits_and_shapes_do_not(digits):
    far = shapes(digits, 500)
    near = digits.public_inputs, digits.public_targets
    test = digits.test_inputs, digits.test_targets
    taught = {name: pretrained(dp.zoo.mlp(digits, 0), *public, epochs=20)
              for name, public in {"near": near, "far": far}.items()}  # fmt: skip
    assert accuracy(taught["near"], *test) > 0.9 and accuracy(taught["far"], *test) < 0.4
    assert accuracy(taught["far"], *far) > 0.7, "shapes can be learnt"


def test_shapes_have_the_format_of_the_data_and_look_at_no_record(digits):
    inputs, targets = shapes(digits, 200, seed=5)
    assert inputs.shape == (200, *digits.shape) and set(targets.tolist()) == set(range(10))
    again = shapes(dp.datasets.load("digits", num_examples=100), 200, seed=5)
    assert torch.equal(inputs, again[0]) and torch.equal(targets, again[1])
    assert not torch.equal(inputs, shapes(digits, 200, seed=6)[0])
    shown = digits.scaling.shown(inputs.numpy())
    assert shown.min() >= 0 and shown.max() <= 1


def test_bad_input_is_told_in_a_sentence(digits):
    model, x, y = dp.zoo.mlp(digits, 0), digits.public_inputs, digits.public_targets
    private = dp.datasets.load("digits")
    for build, words in (
        (lambda: pretrained(model, x, y, epochs=0), "epochs .* got 0"),
        (lambda: pretrained(model, x, y, batch_size=1.5), "batch_size .* got 1.5"),
        (lambda: pretrained(model, x, y, learning_rate=0), "learning_rate .* got 0"),
        (lambda: pretrained(model, x, y, momentum=1.0), "momentum .* got 1"),
        (lambda: pretrained(model, x, y, seed=-1), "seed .* got -1"),
        (lambda: pretrained(model, x, y[:3]), "one target for each"),
        (lambda: pretrained(model, private.public_inputs, private.public_targets), "public=0.1"),
        (lambda: shapes(digits, 0), "n, pictures to draw"),
        (lambda: shapes(dp.datasets.load("moons"), 9), "shapes are grey square pictures"),
    ):
        with pytest.raises(ValueError, match=words) as told:
            build()
        assert str(told.value).endswith(".")
