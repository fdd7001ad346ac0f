"""The same runs priced by every library that is installed: one table, for docs/comparison.md.

    python benchmarks/libraries.py

Rivals are optional (`pip install "dpkit[benchmark]"`): one that does not import leaves a dash.
"""

import contextlib
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dpkit as dp  # noqa: E402

DELTA = 1e-5
RUNS = {
    "q = .01, sigma = 4, T = 10,000": (0.01, 4.0, 10_000),
    "q = 256/60,000, sigma = 1.1, T = 14,040": (256 / 60_000, 1.1, 14_040),
    "q = .01, sigma = .8, T = 100": (0.01, 0.8, 100),
    "q = 1, sigma = 20, T = 100": (1.0, 20.0, 100),
}


def ours(accountant):
    def price(q, sigma, steps):
        plan = dp.Plan(dp.DPSGD(sigma), dp.Poisson(q, steps), DELTA, accountant=accountant)
        bounds = plan.bounds()
        return bounds.lower, bounds.estimate, bounds.upper

    return price


def opacus(name):
    def price(q, sigma, steps):
        from opacus.accountants import create_accountant

        accountant = create_accountant(name)
        accountant.history = [(sigma, q, steps)]
        return (accountant.get_epsilon(DELTA),)

    return price


def google(kind):
    def price(q, sigma, steps):
        import dp_accounting
        from dp_accounting import pld, rdp

        one = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        made = {"pld": pld.PLDAccountant, "rdp": rdp.RdpAccountant}[kind]()
        made.compose(dp_accounting.SelfComposedDpEvent(one, steps))
        return (made.get_epsilon(DELTA),)

    return price


def microsoft(q, sigma, steps):
    from prv_accountant import PRVAccountant
    from prv_accountant.privacy_random_variables import PoissonSubsampledGaussianMechanism

    prv = PoissonSubsampledGaussianMechanism(noise_multiplier=sigma, sampling_probability=q)
    made = PRVAccountant(prvs=prv, max_self_compositions=steps, eps_error=0.01, delta_error=1e-8)
    return made.compute_epsilon(delta=DELTA, num_self_compositions=steps)


LIBRARIES = {
    "dpkit, PLD": ours(dp.PLD()),
    "dpkit, RDP": ours(dp.RDP()),
    "dp_accounting, PLD": google("pld"),
    "dp_accounting, RDP": google("rdp"),
    "prv_accountant": microsoft,
    "Opacus, PRV (its default)": opacus("prv"),
    "Opacus, RDP": opacus("rdp"),
    "Opacus, GDP (an estimate)": opacus("gdp"),
}


def cell(price, run):
    """One epsilon, or its two sides with the estimate between them; a dash for none."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            found = [float(x) for x in price(*run)]
    except ImportError:
        return "-"
    except Exception as error:  # a rival's own trouble is a result
        return f"{type(error).__name__}"
    if len(found) == 1:
        return f"{found[0]:.3f}"
    low, middle, high = found
    return f"{middle:.3f} ({low:.3f} to {high:.3f})" if low else f"{middle:.3f}"


def main():
    print("| epsilon at delta 1e-5 |", " | ".join(RUNS), "|")
    print("|---" * (len(RUNS) + 1) + "|")
    for name, price in LIBRARIES.items():
        print(f"| {name} |", " | ".join(cell(price, run) for run in RUNS.values()), "|", flush=True)


if __name__ == "__main__":
    main()
