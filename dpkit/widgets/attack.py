"""Find the bug: choose a planted fault, press Audit, watch the proven epsilon pass the claim."""

from __future__ import annotations

import threading
from typing import Any

from dpkit.auditing import FAULTS, Audit, Fault, auditing
from dpkit.figures import attacks
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.widgets.board import Board, Box
from dpkit.widgets.cells import replace_in_cell
from dpkit.widgets.controls import Buttons, Choice, Note, guarded
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.words import marked, say

HONEST = marked("no fault at all")
PLAN = Plan(DPSGD(noise_multiplier=4.0, max_grad_norm=4.0), Poisson(1.0, 10), delta=1e-5)
"""The run under audit: full batches, so that each of its steps can be guessed by itself."""
SAMPLED = Plan(DPSGD(noise_multiplier=0.7, max_grad_norm=4.0), Poisson(0.1, 10), delta=0.01)
"""The run for faults of the batches, which full batches would hide; its transcript is guessed."""
LOOKS = 20


class FindTheBug(Board):
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
        self.plot = LivePlot(height=320, title=say("What the audit has proven"))
        self.verdict, self.story, self.trouble = Note(), Note(kind="info"), Note(kind="error")
        self._stop = threading.Event()
        self._worker: threading.Thread | None = None
        super().__init__([
            Box([self.fault, self.buttons], "dpk-grid"), self.plot, self.verdict, self.story,
            self.trouble,
        ])  # fmt: skip
        self.buttons.on_click(guarded(self.trouble)(self._clicked))
        self.fault.observe(guarded(self.trouble)(self._chosen), "value")
        self._show()
        replace_in_cell(self)

    @property
    def chosen(self) -> Fault | None:
        """The fault that is planted; None for an honest run."""
        return next((fault for fault in FAULTS if fault.name == self.fault.value), None)

    @property
    def plan(self) -> Plan:
        """What the run under audit claims to be."""
        fault = self.chosen
        return SAMPLED if fault is not None and fault.batches is not None else self.full

    def join(self, timeout: float = 60.0) -> bool:
        """Wait for the audit; False if the time ran out."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout)
            return not worker.is_alive()
        return True

    def check(self) -> None:
        """Raise the latest error of the panel or of a page that drew it, if there was one."""
        self.trouble.check()
        self.plot.check()

    def close(self) -> None:
        """Stop the audit, remove the panel."""
        self._stop.set()
        self.join(5)
        super().close()

    def _clicked(self, name: str) -> None:
        if name == "stop":
            self._stop.set()
        elif self.join(0):
            self._stop.clear()
            self.buttons.disable("audit")
            self._worker = threading.Thread(target=guarded(self.trouble)(self._audit), daemon=True)
            self._worker.start()

    def _chosen(self, _: Any) -> None:
        """Another fault: the old verdict no longer stands."""
        self._stop.set()
        self.join(5)
        self.found = []
        self._show()

    def _audit(self) -> None:
        fault = self.chosen
        plan = self.plan if fault is None else fault.planted(self.plan)
        self.found = []
        try:
            canaries = 150 if self.plan is self.full else 1500
            for found in auditing(
                plan, canaries=canaries, observations=self.observations, looks=LOOKS
            ):
                self.found.append(found)
                self._show()
                if self._stop.is_set():
                    return
            self._explain(fault)
        finally:
            self.buttons.disable("stop")

    def _show(self) -> None:
        lower = [found.lower for found in self.found]
        claimed = self.plan.epsilon()
        said = (
            say("proven {proven:.3g}, claimed {claimed:.3g}", proven=lower[-1], claimed=claimed)
            if lower
            else say("nothing audited yet")
        )
        seen = [found.observations for found in self.found]
        self.plot.show(attacks.proven(seen, lower, claimed, self.observations), said)
        verdict, _, why = str(self.found[-1]).partition(": ") if self.found else ("", "", "")
        broken = bool(self.found) and self.found[-1].broken
        self.verdict.show(
            verdict and f"**{retold(verdict)}**: {retold(why)}", "warning" if broken else "plain"
        )
        self.story.show("")

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
