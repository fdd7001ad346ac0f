"""The panels of the first lesson: a survey, noise on a count, an attacker's test, composition."""

from __future__ import annotations

import math

import numpy as np

from dpkit.accountants import PLD
from dpkit.figures import basics, privacy
from dpkit.figures.basics import short, short_up
from dpkit.mechanisms import Ledger, Mechanism, Neighbours, RandomisedResponse
from dpkit.plan import round_up
from dpkit.widgets.controls import Buttons, Choice, Slider
from dpkit.widgets.examples import COUNT, GAMES, NOISES, Composed, Count, Survey
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

_SURVEYS = 1000
_KINDS = marked(("Laplace", "Gaussian", "Randomised response"))


def _up(epsilon: float) -> str:
    """To three digits, rounded up, but not for the last bits of 1 / 10 or 3 × 0.1."""
    return round_up(epsilon * (1 - 1e-12))


class RandomisedResponsePanel(Lesson):
    """A survey in which a coin lies for everyone: the crowd can be read, no single answer can.

    *Guarantee*: every answer is drawn with the chance that the mechanism is charged for.
    """

    def __init__(self, seed: int = 0) -> None:
        """Make the panel; `seed` tosses the coins."""
        self._seed = seed
        again = Buttons(actions=[("again", say("Ask everyone again"), "")], label=say("Survey"))
        again.on_click(self._again)
        super().__init__(
            {
                "keep": Slider(label=say("Chance of a true answer"), value=0.75, low=0.5, high=0.99,
                               step=0.01, ends=(say("pure coin"), say("nearly the truth"))),
                "people": Slider(label=say("People asked"), value=1000, low=50, high=50_000,
                                 log=True, integer=True, ends=(say("few"), say("many"))),
                "share": Slider(label=say("True share of yes"), value=30, low=0, high=100, step=1,
                                integer=True, unit="%"),
                "again": again,
            },
            {
                "crowd": LivePlot(height=190,
                                  title=say("100 answers (crossed: the coin turned them)")),
                "estimates": LivePlot(height=250, title=say("What the crowd tells")),
                "belief": LivePlot(height=250, title=say("What one answer tells")),
            },
            wide=("crowd",),
        )  # fmt: skip

    @property
    def survey(self) -> Survey:
        """The survey as the controls stand."""
        keep, people = float(self.value("keep")), int(self.value("people"))
        return Survey.ask(keep, people, self.value("share") / 100, self._seed)

    def redraw(self) -> None:
        """The crowd, its estimate, and what one answer tells."""
        survey = self.survey
        true, yes = float(survey.truth.mean()), float(survey.said.mean())
        found = float(survey.estimate(survey.said.sum()))
        known = None if math.isnan(found) else found
        lies = int((survey.truth != survey.said)[:100].sum())
        self.plots["crowd"].show(
            basics.crowd(survey.truth, survey.said),
            say("{lies} of 100 answers were turned by the coin", lies=lies),
        )
        many = survey.again(_SURVEYS, self._seed + 1)
        self.plots["estimates"].show(
            basics.estimates(many, true, known),
            say("true share {true:.1%}, estimated {found:.1%}", true=true, found=found),
        )
        epsilon = survey.mechanism.epsilon
        self.plots["belief"].show(
            basics.belief(epsilon),
            say("an answer moves the odds by at most {odds}", odds=_up(math.exp(epsilon))),
        )
        self.said.show(self._words(survey, yes, found))

    def _words(self, survey: Survey, yes: float, found: float) -> str:
        epsilon, keep = survey.mechanism.epsilon, survey.mechanism.keep
        said = say(
            "**ε = {epsilon}**: true with chance {keep:.0%}, so odds move by at most "
            "{odds} times. {yes:.1%} said yes; ",
            epsilon=_up(epsilon),
            keep=keep,
            odds=_up(math.exp(epsilon)),
            yes=yes,
        )
        if math.isnan(found):
            return said + say("every answer is a fair coin, so nothing can be learned.")
        width = 1.96 * math.sqrt(keep * (1 - keep) / len(survey.truth)) / (2 * keep - 1)
        return said + (
            say(
                "undoing the coin gives **{found:.1%}** ± {width:.1%} (the truth: {true:.1%}).",
                found=found,
                width=width,
                true=survey.truth.mean(),
            )
        )

    def _again(self, _: str) -> None:
        self._seed += 2
        self._turned(None)


def _noise_choice() -> Choice:
    return Choice(
        label=say("Noise"), options=[(say(name), name) for name in NOISES], value="Laplace"
    )


def _scale_slider() -> Slider:
    return Slider(
        label=say("Noise scale"), value=2.0, low=0.3, high=10.0, log=True,
        ends=(say("more accurate"), say("more private")),
        help=say("b for Laplace, σ for Gaussian noise, in records"),
    )  # fmt: skip


class NoisePanel(Lesson):
    """Laplace or Gaussian noise on a count: two worlds that look nearly alike."""

    def __init__(self) -> None:
        """Make the panel."""
        self._grid = np.linspace(COUNT - 11.5, COUNT + 12.5, 481)
        self._claims = np.linspace(0.0, 5.0, 251)
        super().__init__(
            {
                "noise": _noise_choice(),
                "scale": _scale_slider(),
                "epsilon": Slider(label=say("Claimed ε"), value=0.3, low=0.02, high=5.0, log=True,
                                  ends=(say("bold claim"), say("modest claim"))),
            },
            {
                "outputs": LivePlot(height=300, title=say("What is published, in two worlds")),
                "profile": LivePlot(height=300, title=say("The δ that each ε needs")),
            },
        )  # fmt: skip

    @property
    def count(self) -> Count:
        """The noisy count as the controls stand."""
        return Count(NOISES[self.value("noise")], float(self.value("scale")))

    def redraw(self) -> None:
        """Both densities, what e^epsilon leaves uncovered, and the whole profile."""
        count, epsilon = self.count, float(self.value("epsilon"))
        delta = float(count.mechanism.profile(epsilon))
        x = self._grid
        self.plots["outputs"].show(
            basics.outputs(
                x, count.density(x, False), count.density(x, True), math.exp(epsilon), delta
            ),
            say(
                "two bells one record apart; outside e^epsilon times lies {delta}",
                delta=short(delta),
            ),
        )
        # Laplace's delta falls to 0 within a hair: points that follow it down.
        claims = np.union1d(self._claims, (1 - np.geomspace(1e-9, 0.1, 17)) / count.scale)
        profiles = {
            name: noise.mechanism(count.scale).profile(claims) for name, noise in NOISES.items()
        }
        self.plots["profile"].show(
            basics.profiles(claims, profiles, self.value("noise"), (epsilon, delta)),
            say(
                "at epsilon {epsilon:.3g} delta is {delta}", epsilon=epsilon, delta=short_up(delta)
            ),
        )
        self.said.show(self._words(count, epsilon, delta))

    def _words(self, count: Count, epsilon: float, delta: float) -> str:
        name = self.value("noise")
        if delta <= 0:
            holds = say(
                "(ε, δ) = ({epsilon:.3g}, 0) holds: every output is covered", epsilon=epsilon
            )
        else:
            holds = say(
                "ε = {epsilon:.3g} holds with δ = **{delta}**, the shaded area",
                epsilon=epsilon,
                delta=short_up(delta),
            )
        pure = (
            say("pure ε = {epsilon}", epsilon=_up(1 / count.scale))
            if name == "Laplace"
            else say("no pure ε: δ is never 0")
        )
        return say(
            "**{name} noise** of scale {scale:g}: {holds}. It has {pure}.",
            name=say(name),
            scale=count.scale,
            holds=holds,
            pure=pure,
        )


class HypothesisPanel(Lesson):
    """The attacker's view: from one published count, tell whether you are in the data."""

    def __init__(self, seed: int = 1) -> None:
        """Make the panel; `seed` draws the games that are played."""
        self._seed = seed
        self._grid = np.linspace(COUNT - 11.5, COUNT + 12.5, 481)
        super().__init__(
            {
                "noise": _noise_choice(),
                "scale": _scale_slider(),
                "threshold": Slider(label=say("Say “in” above"), value=42.5, low=34.0, high=51.0,
                                    step=0.1, ends=(say("always “in”"), say("always “out”"))),
            },
            {
                "test": LivePlot(height=310, title=say("One test and its two errors")),
                "tradeoff": LivePlot(height=310,
                                     title=say("All tests at once: the trade-off curve")),
            },
        )  # fmt: skip

    @property
    def count(self) -> Count:
        """The noisy count as the controls stand."""
        return Count(NOISES[self.value("noise")], float(self.value("scale")))

    def redraw(self) -> None:
        """The test, its errors, and its place among all tests."""
        count, threshold = self.count, float(self.value("threshold"))
        x = np.union1d(self._grid, [threshold])
        alarm, miss = (float(v) for v in count.errors(threshold))
        words = say("{alarms:.1%} false alarms, {misses:.1%} misses", alarms=alarm, misses=miss)
        self.plots["test"].show(
            basics.test_of(x, count.density(x, False), count.density(x, True), threshold), words
        )
        reach = COUNT + 0.5 + count.scale * np.linspace(-8, 8, 161)
        fpr, fnr = count.errors(np.union1d(reach, [COUNT, COUNT + 1]))
        mechanism = count.mechanism
        epsilon = PLD().epsilon(Ledger(((mechanism, 1),)), 1e-5)
        self.plots["tradeoff"].show(
            privacy.tradeoff(fpr[::-1], fnr[::-1], epsilon, 1e-5, at=(alarm, miss)), words
        )
        played = count.games(threshold, self._seed)
        best = float(mechanism.profile(0.0))
        self.said.show(
            say(
                "**{alarms:.1%} false alarms, {misses:.1%} misses**; in {games:,} real games of "
                "each kind: {alarms_played:.1%} and {misses_played:.1%}. This test's advantage "
                "over guessing is **{advantage:.1%}**; no test's is larger than {best:.1%}.",
                alarms=alarm,
                misses=miss,
                games=GAMES,
                alarms_played=played[0],
                misses_played=played[1],
                advantage=1 - alarm - miss,
                best=best,
            )
        )


class CompositionPanel(Lesson):
    """Ask again and again: how epsilon grows, by three ways of adding up."""

    def __init__(self) -> None:
        """Make the panel."""
        super().__init__(
            {
                "noise": Choice(label=say("Each release"), value="Laplace",
                                options=[(say(kind), kind) for kind in _KINDS]),
                "scale": Slider(label=say("Noise scale"), value=10.0, low=1.0, high=50.0, log=True,
                                ends=(say("more accurate"), say("more private")),
                                help=say("b, σ, or 1/ε of a randomised answer")),
                "releases": Slider(label=say("Releases k"), value=100, low=1, high=1000, log=True,
                                   integer=True, ends=(say("one"), say("many"))),
                "delta": Slider(label="δ", value=1e-5, low=1e-9, high=1e-2, log=True,
                                ends=(say("stricter"), say("looser"))),
            },
            {"epsilon": LivePlot(height=330, title=say("What k releases cost together"))},
            wide=("epsilon",),
        )  # fmt: skip

    @property
    def composed(self) -> Composed:
        """The releases as the controls stand."""
        scale, name = float(self.value("scale")), self.value("noise")
        if name == "Randomised response":
            single: Mechanism = RandomisedResponse(1 / scale).pair(Neighbours.REPLACE_ONE)
        else:
            single = NOISES[name].mechanism(scale)
        return Composed(single, int(self.value("releases")), float(self.value("delta")))

    def redraw(self) -> None:
        """Three lines and their ends."""
        composed = self.composed
        lines = composed.lines()
        ends = {line.name: float(np.asarray(line.epsilon)[-1]) for line in lines}
        top = privacy.nice(1.02 * max(ends["basic"], ends["advanced"]))
        figure = privacy.accountants(
            lines, x_range=(0, 1.03 * composed.releases), y_range=(0, top), log=False,
            x_title=marked("releases"),
        )  # fmt: skip
        words = ", ".join(f"{say(name)} {_up(end)}" for name, end in ends.items())
        self.plots["epsilon"].show(
            figure,
            say(
                "epsilon after {releases} releases: {told}", releases=composed.releases, told=words
            ),
        )
        saved = ends["basic"] / ends["exact"] if ends["exact"] > 0 else math.inf
        self.said.show(
            say(
                "After {releases:,} releases at δ = {delta}: adding up gives ε = {basic}, "
                "advanced composition {advanced}, and the truth is **ε = {exact}** "
                "({saved:.1f} times less than adding up).",
                releases=composed.releases,
                delta=short(composed.delta),
                basic=_up(ends["basic"]),
                advanced=_up(ends["advanced"]),
                exact=_up(ends["exact"]),
                saved=saved,
            )
        )
