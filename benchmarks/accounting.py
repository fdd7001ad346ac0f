"""dpkit's accountants beside the field's: time and value of one epsilon, interleaved in one run.

    python benchmarks/accounting.py [--rounds 5] [--json accounting.json] [--rivals FOLDER]

Rivals are optional: dp-accounting, prv-accountant and opacus are measured where they import.
`--rivals` names the site-packages folder of another environment that holds them. On a busy
machine `--processor` counts the processor's time in place of the clock's.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import dpkit as dp  # noqa: E402
from dpkit.accountants import (  # noqa: E402
    PLD,
    RDP,
    closed,
    lines,
    noise_for_epsilon,
    rdp,
    sample_rate_for_epsilon,
    schedule,
    steps_for_epsilon,
)
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, PoissonSampling  # noqa: E402
from dpkit.schedules import Tabulated  # noqa: E402

DELTA = 1e-5
_SHORT = 50.0  # ms
CASES = {
    "A": (256 / 60_000, 1.1, 14_040, 2.379554518826),
    "B": (0.01, 4.0, 10_000, 0.946866800764),
    "C": (0.01, 0.8, 100, 1.510837530100),
    "D": (1.0, 20.0, 100, 1.993091404415),
    "E": (4096 / 50_000, 3.0, 875, 3.601609710711),
    "F": (1e-4, 0.6, 1_000_000, 1.610847998209),
}


def forget():
    """Empty dpkit's caches, so that a measurement is cold."""
    for cached in (
        lines.on_axis,
        lines.on_line,
        rdp.log_moments,
        closed._at_zero,
        schedule._moments,
    ):
        cached.cache_clear()


def pair(q, sigma):
    return Gaussian(sigma).pair(Neighbours.ADD_REMOVE, PoissonSampling(q))


def ours():
    pld, moments = PLD(), RDP()

    def cold(accountant):
        def run(q, sigma, steps):
            forget()
            return accountant.epsilon(Ledger(((pair(q, sigma), steps),)), DELTA)

        return run

    def warm(q, sigma, steps):
        return pld.epsilon(Ledger(((pair(q, sigma), steps + 1),)), DELTA)

    def other(q, sigma, steps):
        return pld.epsilon(Ledger(((pair(q, sigma), steps),)), DELTA * 1.01)

    return {
        "dpkit PLD, cold": cold(pld),
        "dpkit PLD, steps moved": warm,
        "dpkit PLD, delta moved": other,
        "dpkit RDP": cold(moments),
    }


def google():
    import dp_accounting
    from dp_accounting import pld, rdp

    def event(q, sigma, steps):
        inner = dp_accounting.GaussianDpEvent(sigma)
        sampled = dp_accounting.PoissonSampledDpEvent(q, inner) if q < 1 else inner
        return dp_accounting.SelfComposedDpEvent(sampled, steps)

    def run(make):
        return lambda q, sigma, steps: make().compose(event(q, sigma, steps)).get_epsilon(DELTA)

    return {
        "dp_accounting PLD": run(pld.PLDAccountant),
        "dp_accounting RDP": run(rdp.RdpAccountant),
    }


def microsoft():
    from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

    def run(q, sigma, steps):
        mechanism = PoissonSubsampledGaussianMechanism(
            noise_multiplier=sigma, sampling_probability=q
        )
        accountant = PRVAccountant(
            prvs=[mechanism], max_self_compositions=[steps], eps_error=0.1, delta_error=DELTA / 1000
        )
        return accountant.compute_epsilon(delta=DELTA, num_self_compositions=[steps])[1]

    return {"prv-accountant, error .1": run}


def opacus():
    from opacus.accountants import RDPAccountant
    from opacus.accountants.prv import PRVAccountant

    def run(kind, **options):
        def epsilon(q, sigma, steps):
            accountant = kind()
            accountant.history = [(sigma, q, steps)]
            return accountant.get_epsilon(DELTA, **options)

        return epsilon

    return {"Opacus RDP": run(RDPAccountant), "Opacus PRV": run(PRVAccountant)}


def contestants():
    found = ours()
    for rivals in (google, microsoft, opacus):
        try:
            found.update(rivals())
        except ImportError as error:
            print(f"left out {rivals.__name__}: {error}")
    return found


def measure(rounds, limit, clock):
    """Medians in ms and values; a contestant that takes longer than `limit` runs a case once.

    One that is done in a moment runs five times in each round: one moment says little.
    """
    found = contestants()
    times = {(name, case): [] for name in found for case in CASES}
    values = {}
    for _ in range(rounds):
        for case, (q, sigma, steps, _exact) in CASES.items():
            for name, run in found.items():
                taken = times[name, case]
                if taken and (math.isnan(taken[0]) or taken[0] > limit):
                    continue
                for _ in range(5 if taken and taken[-1] < _SHORT else 1):
                    start = clock()
                    try:
                        values[name, case] = float(run(q, sigma, steps))
                        taken.append(1e3 * (clock() - start))
                    except Exception as error:  # a rival's failure is a result too
                        print(f"{name} failed on {case}: {error!r:.80}")
                        taken.append(math.nan)
    return {key: statistics.median(taken) for key, taken in times.items()}, values


def curves(rounds, clock):
    """Medians in ms of a 200-point curve and of calibrations, cold."""
    q, sigma, steps, _ = CASES["A"]
    mechanisms, counts = (pair(q, sigma),), np.linspace(70, steps, 200).astype(int)[:, None]
    long = tuple(pair(0.01, float(noise)) for noise in np.geomspace(0.8, 2.0, 10_000))
    ends = np.linspace(49, len(long) - 1, 200).astype(int)
    reached = (np.arange(len(long))[None, :] <= ends[:, None]).astype(np.int64)
    whole = Ledger(tuple((mechanism, 1) for mechanism in long))
    noise = Tabulated(tuple(np.geomspace(0.8, 2.0, 10_000).tolist()))

    def plan(budget=None):
        return dp.Plan(dp.DPSGD(noise), dp.Poisson(0.01, 10_000), DELTA, budget=budget)

    runs = {
        "10,000 noises": lambda: PLD().epsilon(whole, DELTA),
        "10,000 noises, bounds": lambda: PLD().bounds(whole, DELTA),
        "10,000 noises, 200 points": lambda: PLD().curve(long, reached, DELTA),
        "plan of 10,000 noises": lambda: plan().epsilon(),
        "the same, 200 points": lambda: plan().curve(200),
        "the same in an RDPBudget": lambda: plan(dp.RDPBudget(100.0, 8.0)).steps,
        "PLD curve, 200 points": lambda: PLD().curve(mechanisms, counts, DELTA),
        "RDP curve, 200 points": lambda: RDP().curve(mechanisms, counts, DELTA),
        "noise for epsilon 3": lambda: noise_for_epsilon(
            3.0, delta=DELTA, sample_rate=q, steps=steps
        ),
        "steps for epsilon 3": lambda: steps_for_epsilon(
            3.0, delta=DELTA, sample_rate=q, noise_multiplier=sigma
        ),
        "rate for epsilon 3": lambda: sample_rate_for_epsilon(
            3.0, delta=DELTA, noise_multiplier=sigma, steps=steps
        ),
    }
    out = {}
    for name, run in runs.items():
        taken = []
        for _ in range(rounds):
            forget()
            start = clock()
            run()
            taken.append(1e3 * (clock() - start))
        out[name] = statistics.median(taken)
    return out


def report(medians, values, extra):
    names = list(dict.fromkeys(name for name, _ in medians))
    print(f"\n{'median ms':28s}" + "".join(f"{case:>11s}" for case in CASES))
    for name in names:
        print(f"{name:28s}" + "".join(f"{medians[name, case]:11.2f}" for case in CASES))
    print(f"\n{'epsilon - exact':28s}")
    for name in names:
        errors = (values.get((name, case), math.nan) - CASES[case][3] for case in CASES)
        print(f"{name:28s}" + "".join(f"{error:11.1e}" for error in errors))
    ratios = {}
    if "dp_accounting PLD" in names:
        ratios = {
            case: medians["dp_accounting PLD", case] / medians["dpkit PLD, cold", case]
            for case in CASES
        }
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios.values()))
        print("\ntimes faster than dp_accounting PLD: " + ", ".join(
            f"{case} {ratio:.0f}" for case, ratio in ratios.items()
        ) + f"; geometric mean {mean:.0f}")  # fmt: skip
    print()
    for name, taken in extra.items():
        print(f"{name:28s}{taken:11.2f} ms")
    return {
        "median_ms": {name: {c: medians[name, c] for c in CASES} for name in names},
        "epsilon": {name: {c: values.get((name, c)) for c in CASES} for name in names},
        "exact": {case: settings[3] for case, settings in CASES.items()},
        "ratio_to_dp_accounting_pld": ratios,
        "other_ms": extra,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=5_000.0, help="ms; slower runs once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rivals", type=Path)
    parser.add_argument("--processor", action="store_true", help="processor time, all threads")
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    before = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    if options.rivals:
        sys.path.append(str(options.rivals))
    medians, values = measure(options.rounds, options.limit, clock)
    result = report(medians, values, curves(max(options.rounds, 9), clock))
    result["clock"] = "processor" if options.processor else "wall"
    result["load"] = [before, os.getloadavg()[0]] if hasattr(os, "getloadavg") else None
    print(f"{result['clock']} time; load {result['load']}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
