"""The command line: what it prints, writes and refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dpkit as dp
from dpkit.cli import main
from dpkit.runs import Run


def said(capsys, *words):
    code = main(list(words))
    out = capsys.readouterr()
    return code, out.out, out.err


EPSILON = ("epsilon", "--sample-rate", ".01", "--noise-multiplier", "4", "--steps", "10000")


@pytest.mark.parametrize("accountant", ["PLD", "RDP", "Moments", "GDP"])
def test_epsilon_prints_bounds_relation_and_method(capsys, accountant):
    code, out, _ = said(capsys, *EPSILON, "--accountant", accountant)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert float(lines["lower"]) <= float(lines["estimate"]) <= float(lines["upper"])
    assert "ADD_REMOVE" in lines["relation"] and "Poisson" in lines["sampling"]
    assert ("note" in lines) == (accountant == "GDP")


OF = {
    "shuffle": ("--batches-per-epoch", "100", "--epochs", "10"),
    "balls-in-bins": ("--batches-per-epoch", "100", "--epochs", "10"),
    "partition": ("--shards", "100", "--epochs", "10"),
    "fixed-size": ("--batch-size", "600", "--num-examples", "60000", "--steps", "1000"),
    "truncated-poisson": ("--sample-rate", ".01", "--steps", "1000", "--max-batch", "800",
                          "--num-examples", "60000"),
    "poisson": ("--sample-rate", ".01", "--steps", "1000"),
}  # fmt: skip


@pytest.mark.parametrize("sampler", OF)
def test_epsilon_prices_every_sampler_as_itself(capsys, sampler):
    words = ("epsilon", "--noise-multiplier", "4", "--sampler", sampler, *OF[sampler])
    code, out, _ = said(capsys, *words)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    kind = "".join(part.title() for part in sampler.split("-"))
    values = [float(x) for x in OF[sampler][1::2]]
    made = getattr(dp, kind)(*(int(x) if x == int(x) else x for x in values))
    assert code == 0
    plan = dp.Plan(dp.DPSGD(4.0), made, 1e-5)
    assert float(lines["upper"]) == pytest.approx(plan.bounds().upper, abs=2e-6)


def test_epsilon_wants_all_numbers_of_a_sampler_and_no_others(capsys):
    code, _, err = said(capsys, *EPSILON, "--sampler", "shuffle")
    assert code == 2 and "takes --batches-per-epoch --epochs, got --sample-rate --steps" in err
    code, _, err = said(capsys, "epsilon", "--noise-multiplier", "4")
    assert code == 2 and "takes --sample-rate --steps, got none of them" in err


def test_epsilon_of_abadi_is_the_known_one(capsys):
    _, out, _ = said(capsys, *EPSILON)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert float(lines["estimate"]) == pytest.approx(0.95, abs=0.01)
    _, out, _ = said(capsys, *EPSILON, "--accountant", "Moments")
    assert float(dict(x.split(maxsplit=1) for x in out.splitlines())["estimate"]) == pytest.approx(
        1.2586, abs=0.001
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("epsilon", "--sample-rate", "1.5", "--noise-multiplier", "1", "--steps", "1"),
            "sample_rate",
        ),
        (
            ("epsilon", "--sample-rate", "nan", "--noise-multiplier", "1", "--steps", "1"),
            "sample_rate",
        ),
        ((*EPSILON, "--delta", "0"), "delta"),
        (("train", "--data", "digist", "--quiet"), "digits"),
        (("train", "--model", "cnm", "--quiet"), "cnn"),
        (("train", "--noise-multiplier", "-3", "--quiet"), "noise_multiplier"),
        (("train", "--settings", "nois=3", "--quiet"), "is no setting"),
        (("train", "--output", "/no/such/folder/run.json", "--quiet"), "cannot be written"),
        (("lab", "no_such_notebook"), "00_playground"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, words, message):
    code, _, err = said(capsys, *words)
    assert code == 2
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


def test_unknown_options_exit_with_2_and_help_with_0(capsys):
    for words, code in [(["epsilon"], 2), (["nonsense"], 2), (["train", "--help"], 0)]:
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == code
    assert "--noise-multiplier" in capsys.readouterr().out


def test_train_writes_a_run_that_loads_again(capsys, tmp_path):
    target, weights = tmp_path / "run.json", tmp_path / "weights.pt"
    code, out, _ = said(
        capsys, "train", "--data", "blobs", "--num-examples", "300", "--model", "logistic",
        "--epsilon", "5", "--batch-size", "30", "--epochs", "3", "--quiet",
        "--output", str(target), "--weights", str(weights),
    )  # fmt: skip
    assert code == 0 and "Teaching run" in out
    run = Run.from_json(target.read_text())
    assert run.status == "done" and run.done == run.plan.steps == 30
    assert run.spent[-1] == run.plan.epsilon() <= 5
    again = Run.from_json(run.to_json())
    assert again.to_json() == run.to_json()
    # Nothing that looks at training records is stored: neither their loss nor their norms.
    assert {"norms", "loss", "peek"}.isdisjoint(json.loads(target.read_text()))
    import torch

    state = torch.load(weights, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: len(t) // 2], "must be JSON"),
        (lambda t: "[]", "not a stored run"),
        (lambda t: t.replace('"version": 1', '"version": 7', 1), "version 7"),
        (lambda t: t.replace('"accuracy"', '"akuracy"'), "must have accuracy"),
    ],
)
def test_a_damaged_run_is_refused(capsys, tmp_path, change, message):
    target = tmp_path / "run.json"
    said(capsys, "train", "--data", "blobs", "--epochs", "1", "--quiet", "--output", str(target))
    with pytest.raises(ValueError, match=message):
        Run.from_json(change(target.read_text()))


def test_secret_noise_is_not_a_teaching_run(capsys):
    code, out, _ = said(
        capsys, "train", "--data", "blobs", "--model", "logistic", "--epochs", "1", "--secret",
        "--quiet",
    )  # fmt: skip
    assert code == 0 and "Teaching run" not in out and "differential privacy" in out


def test_lab_asks_nobody_about_news(monkeypatch):
    told = {}

    def serve(command, env):
        for folder in env["JUPYTER_CONFIG_PATH"].split(os.pathsep):
            file = Path(folder, "labconfig", "default_setting_overrides.json")
            told.update(json.loads(file.read_text()) if file.exists() else {})
        told["paths"] = env["JUPYTER_CONFIG_PATH"].split(os.pathsep)
        return 7

    monkeypatch.setattr("dpkit.cli_lab._serve", serve)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "of-the-reader")
    assert main(["lab", "--no-browser"]) == 7
    asked = told["@jupyterlab/apputils-extension:notification"]
    assert asked == {"fetchNews": "false", "checkForUpdates": False}
    assert told["paths"][1:] == ["of-the-reader"] and not Path(told["paths"][0]).exists()


@pytest.mark.parametrize(("deaf", "end"), [(False, -15), (True, -9)])
def test_who_ends_the_command_ends_its_server(deaf, end):
    server = "import signal, time; "
    server += "signal.signal(signal.SIGTERM, signal.SIG_IGN); " * deaf
    server += "print(1, flush=True); time.sleep(60)"
    code = "import os, sys; from dpkit import cli_lab; cli_lab._GRACE = 0.5; "
    code += "print(os.getpid(), flush=True); "
    code += f"sys.exit(cli_lab._serve([sys.executable, '-c', {server!r}], os.environ) != {end})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout.readline() and lab.stdout.readline() == "1\n"
        lab.send_signal(signal.SIGTERM)
        # The pipe ends when the server has ended too: it holds the other end.
        assert lab.communicate(timeout=20)[0] == "" and lab.returncode == 0
