"""Every word that the playground shows, in one table."""

from __future__ import annotations

LABELS = {
    "data": "Data",
    "model": "Model",
    "accountant": "Accountant",
    "batching": "Batching",
    "mode": "Set",
    "scene": "Scene",
    "settings": "Settings as text",
    "method.noise_multiplier": "Noise multiplier σ",
    "method.max_grad_norm": "Clip norm C",
    "method.learning_rate": "Learning rate η",
    "method.momentum": "Momentum m",
    "frozen": "Pruning ratio p",
    "kept": "Coordinates kept k (0: all)",
    "threshold": "Threshold τ",
    "sends": "A record sends",
    "batch_size": "Batch size L",
    "epochs": "Epochs E",
    "delta": "Delta δ",
    "epsilon": "Target epsilon ε",
    "num_examples": "Training records N",
    "seed": "Seed",
}
ENDS = {
    "method.noise_multiplier": ("more accurate", "more private"),
    "epsilon": ("more private", "more accurate"),
    "method.max_grad_norm": ("clips all", "clips none"),
    "batch_size": ("small", "large"),
    "epochs": ("short", "long"),
    "frozen": ("all move", "few move"),
    "kept": ("all, as DP-SGD", "many"),
    "threshold": ("keep all", "keep what stands out"),
    "delta": ("stricter", "looser"),
    "method.learning_rate": ("careful", "bold"),
    "num_examples": ("few", "many"),
    "method.momentum": ("none", "much"),
}
ACTIONS = {
    "train": "Train",
    "pause": "Pause",
    "stop": "Stop",
    "reset": "Reset",
}
EXPORTS = {
    "python": "Show Python",
    "html": "Save page (HTML)",
    "json": "Save run (JSON)",
    "weights": "Save weights",
}
BATCHING = {
    "Poisson": "Poisson",
    "Shuffle": "Shuffle",
    "BallsInBins": "Balls in bins",
    "FixedSize": "Fixed size",
}
SENDS = {"numbers": "numbers, clipped", "signs": "signs, as votes"}
MODES = {"noise": "noise σ", "epsilon": "epsilon ε"}
PLOTS = {
    "accuracy": "Test accuracy",
    "epsilon": "Privacy spent: ε",
    "picture": "Predictions",
    "loss": "Test loss",
    "norms": "Gradient norms (not private)",
}
DATA = {
    "digits": "Digits 8×8",
    "moons": "Moons, 2-D",
    "circles": "Circles, 2-D",
    "spiral": "Spirals, 2-D",
    "blobs": "Blobs, 2-D",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "pneumonia": "PneumoniaMNIST",
}
SEED_HELP = "A number makes a repeatable teaching run; empty draws secret noise."
LOADING = "Loading {name}…"
READY = "Ready: press Train."
SCENES = {
    "good": (
        "A good trade-off",
        "data=digits model=mlp noise=1.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        "Watch accuracy climb above 90% while ε stays in single figures.",
    ),
    "huge clip": (
        "A clip norm far too large",
        "data=digits model=mlp noise=1.0 clip=50.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        "The noise is σ times C: a clip norm that clips nothing drowns the gradients in noise, at "
        "the very same ε.",
    ),
    "drowned": (
        "Noise that drowns the signal",
        "data=digits model=mlp noise=15.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        "ε is tiny and the model learns next to nothing: privacy is cheap if nothing is learned.",
    ),
    "no noise": (
        "Clipping without noise",
        "data=digits model=mlp noise=0.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        "Clipping alone promises nothing: ε is infinite, however small C is.",
    ),
    "few records": (
        "Too few records",
        "data=moons model=mlp noise=1.0 clip=1.0 rate=0.5 momentum=0.5 batch=20 epochs=20 "
        "examples=40",
        "Among 40 records each one matters: the same noise costs a far larger ε. Raise N to 2,000 "
        "and look again.",
    ),
}
CHOOSE = "choose…"
RESUME = "Resume"
ACTIONS_LABEL = "Run"
EXPORTS_LABEL = "Take it with you"
PROGRESS = "Progress"
SAVED = "Saved as `{name}` beside the notebook."
ESTIMATE = " (an estimate, not a bound)"
PLANNED = (
    "**Planned ε = {epsilon}**{kind} at δ = {delta:g} · σ = {sigma:.4g} · "
    "q = {rate:.4g} · {steps:,} steps\n\nNeighbours **{relation}**; {sampler}.{band}{remainder}"
)
BAND = " Its true ε is not known exactly: it lies between **{low}** and **{high}**."
ACCURACY = " · accuracy {accuracy:.1%}"
STEP = (
    "step {step:,} of {steps:,} · {left} left · {rate:,.0f} steps/s{accuracy} · ε spent {epsilon}"
)
ENDED = "{state}: {done:,} of {steps:,} steps in {seconds}{accuracy} · ε spent {epsilon}"
RECORDS = "Training records (not private)"
RUNS = "Runs"
RUN_COLUMNS = ("run", "accuracy", "ε planned", "σ", "C", "batch", "epochs")
