"""The models: they fit the data they are made for, repeat by seed, and touch no global state."""

import copy
import functools
import math
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit import zoo
from dpkit.datasets import Dataset

# What a per-example gradient engine handles without looking inside.
HANDLED = (nn.Sequential, nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU, nn.Tanh, nn.MaxPool2d,
           nn.AvgPool2d)  # fmt: skip


def records(*shape, classes=3, n=6):
    generator = torch.Generator().manual_seed(0)
    return Dataset.of(torch.rand(n, *shape, generator=generator), torch.arange(n) % classes)


SHAPES = [(2,), (5,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 4, 4), (3, 15, 40), (1, 16, 33)]
PAIRS = [(name, shape) for name in zoo.MODELS for shape in SHAPES if name != "cnn" or shape[2:]]


@pytest.mark.parametrize("name, shape", PAIRS)
def test_every_model_fits_its_data_and_can_be_differentiated(name, shape):
    data = records(*shape, classes=4, n=8)
    model = zoo.MODELS[name](data, seed=0)
    outputs = model(data.inputs)
    assert outputs.shape == (8, 4)
    nn.functional.cross_entropy(outputs, data.targets).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(type(module) in HANDLED for module in model.modules())
    assert not list(model.buffers())


@pytest.mark.parametrize("name", zoo.MODELS)
def test_no_record_changes_what_the_model_says_of_another(name):
    """Batch norm would; then clipping each record's gradient would not bound its influence."""
    data = records(1, 12, 12)
    model = zoo.MODELS[name](data, seed=0).train()
    alone = torch.cat([model(record[None]) for record in data.inputs])
    assert torch.allclose(model(data.inputs), alone, atol=1e-6)


def test_the_mnist_models_have_the_published_sizes():
    mnist = records(1, 28, 28, classes=10, n=10)
    digits = records(1, 8, 8, classes=10, n=10)
    sizes = {name: sum(p.numel() for p in zoo.MODELS[name](mnist).parameters()) for name in
             zoo.MODELS}  # fmt: skip
    assert sizes == {"logistic": 7_850, "mlp": 79_510, "cnn": 26_010}
    assert sum(p.numel() for p in zoo.cnn(digits).parameters()) == 8_010


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_seed_repeats_the_weights_and_none_draws_new_ones(name):
    data, factory = records(1, 8, 8), zoo.MODELS[name]

    def weights(seed):
        return torch.cat([p.detach().flatten() for p in factory(data, seed).parameters()])

    assert torch.equal(weights(7), weights(7))
    assert not torch.equal(weights(7), weights(8))
    assert not torch.equal(weights(None), weights(None))


def test_logistic_regression_begins_undecided_whatever_the_seed():
    data = records(5)
    for seed in (None, 0, 1):
        assert torch.equal(zoo.logistic(data, seed)(data.inputs), torch.zeros(6, 3))


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("seed", [None, 3])
def test_the_global_generators_are_neither_read_nor_moved(name, seed):
    data = records(1, 8, 8)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = zoo.MODELS[name](data, seed)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        two = zoo.MODELS[name](data, seed)
    if seed is not None:
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(a, b)


def test_models_made_while_another_thread_draws_are_the_same():
    data, done = records(1, 28, 28), threading.Event()
    wanted = zoo.cnn(data, 0).state_dict()

    def draw():
        while not done.is_set():
            torch.rand(100)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(20):
            made = zoo.cnn(data, 0).state_dict()
            assert all(torch.equal(made[key], wanted[key]) for key in wanted)
    finally:
        done.set()
        thread.join()


def test_weights_are_glorots():
    for layer in zoo.mlp(records(400), 0, hidden=(600,)):
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(6 / sum(layer.weight.shape))
            assert layer.weight.abs().max() <= bound and not layer.bias.any()
            assert abs(layer.weight.std().item() / (bound / math.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize("hidden", [(), (7,), (32, 16, 8), [5]])
def test_hidden_layers_are_as_asked(hidden):
    factory = functools.partial(zoo.mlp, hidden=hidden)
    model = pickle.loads(pickle.dumps(factory))(records(1, 8, 8), seed=0)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*hidden, 3]
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == len(hidden)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_factories_and_models_can_be_pickled_and_copied(name):
    factory = pickle.loads(pickle.dumps(zoo.MODELS[name]))
    data = records(1, 8, 8)
    model = factory(data, seed=1)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(data.inputs), model(data.inputs))
    assert getattr(dp.zoo, name) is zoo.MODELS[name] and zoo.TITLES.keys() == zoo.MODELS.keys()


WRONG = {
    "points": (lambda: zoo.cnn(dp.datasets.load("moons", num_examples=10)), "'moons' have shape"),
    "no channel": (lambda: zoo.cnn(records(28, 28)), r"\(28, 28\).* inputs\[:, None\]"),
    "channels last": (lambda: zoo.cnn(records(28, 28, 3)), r"\(28, 28, 3\): choose mlp or"),
    "too small": (lambda: zoo.cnn(records(1, 3, 28)), "4 pixels a side at least"),
    "no width": (lambda: zoo.mlp(records(2), hidden=(0,)), r"hidden .*\[1, 1000000\], got 0"),
    "half a unit": (lambda: zoo.mlp(records(2), hidden=(2.5,)), "whole number"),
    "seed": (lambda: zoo.mlp(records(2), seed=-1), "seed .*got -1"),
    "seed text": (lambda: zoo.logistic(records(2), seed="a"), "seed .*got 'a'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_each_fault_is_one_sentence(fault):
    make, said = WRONG[fault]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name, steps, enough", [("logistic", 60, 0.85), ("mlp", 60, 0.85)])
def test_they_learn_digits_with_clipping_and_noise(name, steps, enough):
    """A few private steps written out by hand: the model can be trained, not only run."""
    data = dp.datasets.load("digits")
    model = zoo.MODELS[name](data, seed=0)
    generator = torch.Generator().manual_seed(0)
    names, start = zip(*model.named_parameters(), strict=True)

    def loss(values, record, target):
        weights = dict(zip(names, values, strict=True))
        outputs = torch.func.functional_call(model, weights, (record[None],))
        return nn.functional.cross_entropy(outputs, target[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    weights = tuple(p.detach().clone() for p in start)
    for _ in range(steps):
        batch = torch.randint(data.num_examples, (128,), generator=generator)
        rows = each(weights, data.inputs[batch], data.targets[batch])
        norms = sum(g.flatten(1).square().sum(1) for g in rows).sqrt()
        scale = (1 / norms).clamp(max=1)
        noisy = [torch.tensordot(scale, g, 1) for g in rows]
        noisy = [g + torch.randn(g.shape, generator=generator) for g in noisy]
        weights = tuple(w - g / 128 for w, g in zip(weights, noisy, strict=True))
    final = dict(zip(names, weights, strict=True))
    guess = torch.func.functional_call(model, final, (data.test_inputs,)).argmax(1)
    assert (guess == data.test_targets).float().mean() > enough
