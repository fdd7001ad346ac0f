"""Every word that the playground shows, in one table; `say` it where it is shown."""

from __future__ import annotations

from dpkit.words import marked

LABELS = marked(
    {
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
)
ENDS = marked(
    {
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
)
ACTIONS = marked(
    {
        "train": "Train",
        "pause": "Pause",
        "stop": "Stop",
        "reset": "Reset",
    }
)
EXPORTS = marked(
    {
        "python": "Show Python",
        "html": "Save page (HTML)",
        "json": "Save run (JSON)",
        "weights": "Save weights",
    }
)
BATCHING = marked(
    {
        "Poisson": "Poisson",
        "Shuffle": "Shuffle",
        "BallsInBins": "Balls in bins",
        "FixedSize": "Fixed size",
    }
)
SENDS = marked({"numbers": "numbers, clipped", "signs": "signs, as votes"})
MODES = marked({"noise": "noise σ", "epsilon": "epsilon ε"})
PLOTS = marked(
    {
        "accuracy": "Test accuracy",
        "epsilon": "Privacy spent: ε",
        "picture": "Predictions",
        "loss": "Test loss",
        "norms": "Gradient norms (not private)",
    }
)
DATA = marked(
    {
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
)
SEED_HELP = marked("A number makes a repeatable teaching run; empty draws secret noise.")
LOADING = marked("Loading {name}…")
READY = marked("Ready: press Train.")
SCENES = {
    "good": (
        marked("A good trade-off"),
        "data=digits model=mlp noise=1.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        marked("Watch accuracy climb above 90% while ε stays in single figures."),
    ),
    "huge clip": (
        marked("A clip norm far too large"),
        "data=digits model=mlp noise=1.0 clip=50.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        marked(
            "The noise is σ times C: a clip norm that clips nothing drowns the gradients in "
            "noise, at the very same ε."
        ),
    ),
    "drowned": (
        marked("Noise that drowns the signal"),
        "data=digits model=mlp noise=15.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        marked(
            "ε is tiny and the model learns next to nothing: privacy is cheap if nothing is "
            "learned."
        ),
    ),
    "no noise": (
        marked("Clipping without noise"),
        "data=digits model=mlp noise=0.0 clip=1.0 rate=0.5 momentum=0.5 batch=128 epochs=20",
        marked("Clipping alone promises nothing: ε is infinite, however small C is."),
    ),
    "few records": (
        marked("Too few records"),
        "data=moons model=mlp noise=1.0 clip=1.0 rate=0.5 momentum=0.5 batch=20 epochs=20 "
        "examples=40",
        marked(
            "Among 40 records each one matters: the same noise costs a far larger ε. Raise N to "
            "2,000 and look again."
        ),
    ),
}
CHOOSE = marked("choose…")
RESUME = marked("Resume")
ACTIONS_LABEL = marked("Run")
EXPORTS_LABEL = marked("Take it with you")
PROGRESS = marked("Progress")
SAVED = marked("Saved as `{name}` beside the notebook.")
ESTIMATE = marked(" (an estimate, not a bound)")
PLANNED = marked(
    "**Planned ε = {epsilon}**{kind} at δ = {delta:g} · σ = {sigma:.4g} · "
    "q = {rate:.4g} · {steps:,} steps\n\nNeighbours **{relation}**; {sampler}.{band}{remainder}"
)
BAND = marked(" Its true ε is not known exactly: it lies between **{low}** and **{high}**.")
ACCURACY = marked(" · accuracy {accuracy:.1%}")
STEP = marked(
    "step {step:,} of {steps:,} · {left} left · {rate:,.0f} steps/s{accuracy} · ε spent {epsilon}"
)
ENDED = marked("{state}: {done:,} of {steps:,} steps in {seconds}{accuracy} · ε spent {epsilon}")
RECORDS = marked("Training records (not private)")
SETTINGS = marked("Settings: {text}")
RUNS = marked("Runs")
RUN_COLUMNS = marked(("run", "accuracy", "ε planned", "σ", "C", "batch", "epochs"))
STATES = marked(
    {
        "ready": "Ready",
        "running": "Running",
        "paused": "Paused",
        "stopped": "Stopped",
        "done": "Done",
        "failed": "Failed",
    }
)
RELATIONS = marked(
    (
        "add or remove one record",
        "replace one record by a null that contributes nothing",
        "replace one record by another",
    )
)
