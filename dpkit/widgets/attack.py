"""Find the bug: choose a planted fault, press Audit, watch the proven epsilon pass the claim."""

from __future__ import annotations

import threading

from dpkit.auditing import FAULTS, Audit, Fault, auditing
from dpkit.figures import attacks
from dpkit.methods import DPSGD
from dpkit.plan import Plan, round_down, round_up
from dpkit.samplers import Poisson
from dpkit.widgets.controls import Buttons, Choice, Note, Progress
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.widgets.worker import Worker
from dpkit.words import marked, say

HONEST = marked("no fault at all")
PLAN = Plan(DPSGD(noise_multiplier=4.0, max_grad_norm=4.0), Poisson(1.0, 10), delta=1e-5)
"""The run under audit: full batches, so that each of its steps can be guessed by itself."""
SAMPLED = Plan(DPSGD(noise_multiplier=0.7, max_grad_norm=4.0), Poisson(0.1, 10), delta=0.01)
"""The run for faults of the batches, which full batches would hide; its transcript is guessed."""
LOOKS = 20


class FindTheBug(Lesson):
    """A menu of planted faults, a button that audits, and the bound as it climbs.

    *Guarantee*
    - every run is a real one, trained by `dp.train` for this audit;
    - the audit knows the claim and sees the weights, never the fault.
    """

    def __init__(self, plan: Plan = PLAN, *, observations: int = 60_000) -> None:
        """Make the panel; nothing runs until Audit is pressed."""
        self.full, self.observations = plan, observations
        self.found: list[Audit] = []
        names = [(say(n), n) for n in (HONEST, *(fault.name for fault in FAULTS))]
        self.fault = Choice(
            label=say("Planted fault"), options=names, help=say("What is wrong with the run")
        )
        self.buttons = Buttons(
            actions=[("audit", say("Audit"), "primary"), ("stop", say("Stop"), "")],
            disabled=["stop"],
        )
        self.progress = Progress(label=say("Progress"))
        self.verdict, self.story = Note(), Note(kind="info")
        self._auditor = Worker(self._audit, self.buttons, self.trouble)
        super().__init__(
            {"fault": self.fault, "buttons": self.buttons, "progress": self.progress},
            {"proven": LivePlot(height=320, title=say("What the audit has proven"))},
            self.verdict, self.story, wide=("proven",), worker=self._auditor,
        )  # fmt: skip

    @property
    def chosen(self) -> Fault | None:
        """The fault that is planted; None for an honest run."""
        return next((fault for fault in FAULTS if fault.name == self.fault.value), None)

    @property
    def plan(self) -> Plan:
        """What the run under audit claims to be."""
        fault = self.chosen
        return SAMPLED if fault is not None and fault.batches is not None else self.full

    def redraw(self) -> None:
        """Another fault: the old verdict no longer stands."""
        self._auditor.stop()
        self.found = []
        self._show()

    def _audit(self, stop: threading.Event) -> None:
        with self._drawing:
            if stop.is_set():
                return
            self.found, claimed, fault = [], self.plan, self.chosen
            self._show()
        canaries = 150 if claimed is self.full else 1500
        looks = auditing(
            claimed if fault is None else fault.planted(claimed), canaries=canaries,
            observations=self.observations, looks=LOOKS,
        )  # fmt: skip
        try:
            for found in looks:
                with self._drawing:
                    if stop.is_set():
                        return
                    self.found = [*self.found, found]
                    self._show()
            with self._drawing:
                if not stop.is_set():
                    self._explain(fault)
        finally:
            stop.set()  # no time is left
            with self._drawing:
                self._tell()

    def _tell(self) -> None:
        share = len(self.found) / LOOKS
        told = say("{done} of {looks} looks", done=len(self.found), looks=LOOKS)
        self.progress.show(share, told + self._auditor.left(share))

    def _show(self) -> None:
        lower = [found.lower for found in self.found]
        claimed = self.plan.epsilon()
        said = (
            say(
                "proven {proven}, claimed {claimed}",
                proven=round_down(lower[-1]),
                claimed=round_up(claimed),
            )
            if lower
            else say("nothing audited yet")
        )
        seen = [found.observations for found in self.found]
        self.plots["proven"].show(attacks.proven(seen, lower, claimed, self.observations), said)
        verdict, _, why = str(self.found[-1]).partition(": ") if self.found else ("", "", "")
        broken = bool(self.found) and self.found[-1].broken
        self.verdict.show(
            verdict and f"**{retold(verdict)}**: {retold(why)}", "warning" if broken else "plain"
        )
        self.story.show("")
        self._tell()

    def _explain(self, fault: Fault | None) -> None:
        """After the verdict: what was planted, where it happened, what else finds it."""
        if fault is None:
            text = say("This run is honest: the bound climbs toward the claim and stays below it.")
        else:
            other = (
                say("Found as well by")
                if fault.audited
                else say("This audit cannot see it. Found by")
            )
            text = say(
                "Planted: **{name}**. {story}\n\n{other}: {found_by}.",
                name=say(fault.name),
                story=say(fault.story),
                other=other,
                found_by=say(fault.found_by),
            )
            if fault.batches is not None:
                text += say(
                    " (Full batches would hide the fault, so this run draws a tenth at a time.)"
                )
        self.story.show(text, "info")
