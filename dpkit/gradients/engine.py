"""The engine: sums of clipped per-example gradients, at about the price of plain training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpkit.gradients import sizes
from dpkit.gradients.augmentation import Views, means
from dpkit.gradients.checks import (
    buffers_kept,
    check_modules,
    check_nothing_remembered,
    check_records_apart,
    in_evaluation,
    same_random_numbers,
)
from dpkit.gradients.clipping import Clipping, Flat
from dpkit.gradients.dense import Dense
from dpkit.gradients.fallback import Vmapped, frames_inside, split_rows
from dpkit.gradients.fitting import check_fits, check_no_autocast, check_tokens
from dpkit.gradients.kernel import Work, stacked_squares
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.probe import FEW, likes_channels_last, made_up, objection, of_two_classes
from dpkit.gradients.support import Support, as_support
from dpkit.gradients.tape import Taped, find_units

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Clipped:
    """A sum of clipped gradients, and what it was made of (which is not private).

    *Shapes*: total (D,), or (k,) on a `Support` of k coordinates; norms (B,) before clipping,
    losses (B,). `skipped` counts the records whose loss or gradient was not finite, which
    contribute nothing.
    """

    total: Tensor
    norms: Tensor
    losses: Tensor
    skipped: int


@dataclass(frozen=True)
class _Part:
    """What one microbatch yields beside its share of the total."""

    norms: Tensor
    losses: Tensor
    skipped: int


class Engine:
    """Clipped sums of per-example gradients of a model whose parameters become one flat vector.

    *Guarantee*:
    - each record moves `clipped_sum(...).total` by at most `max_grad_norm`, whatever it holds;
    - the sum does not depend on the size of the microbatches, beyond rounding;
    - what cannot be clipped record by record is refused before any noise is drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        clipping: Clipping = Flat(),  # noqa: B008 - a frozen value
        microbatch: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        """Check the model, and make its trainable parameters views of one vector.

        `microbatch` records are worked on at a time; by default what suits the processor's cache
        and `memory_budget` (bytes; by default a quarter of what is free).
        """
        self.limit(microbatch, memory_budget)
        check_modules(model)
        self.model = model
        self.loss = PerExampleLoss(loss)
        self.clipping = clipping
        self._flat = FlatParameters(model)
        sizes.keep_freed_memory()
        self.parameters = self._flat.vector
        self.size = self.parameters.numel()
        self.names, self.slices = self._flat.names, self._flat.slices
        self.leaves = self._flat.leaves
        self._layout: torch.memory_format | None = None
        units, unknown = find_units(model, self._flat)
        kind = Dense if Dense.handles(model, units) else Taped
        self._source: Taped | Vmapped = kind(model, self.loss, units)
        if unknown:
            self._fall_back(f"no kernel knows {', '.join(unknown)}")
        clipping.check_blocks(self.blocks)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the layers, which per-layer clipping bounds one by one."""
        return tuple(self._source.blocks)

    def limit(self, microbatch: int | None = None, memory_budget: int | None = None) -> None:
        """Work on `microbatch` records at a time, within `memory_budget` bytes."""
        sizes.check_limits(microbatch, memory_budget)
        self.microbatch = None if microbatch is None else int(microbatch)
        self.memory_budget = memory_budget
        self._size = 0

    @torch.no_grad()
    def prepare(self, inputs: Tensor, targets: Tensor, classes: int | None = None) -> None:
        """Refuse, before any noise is drawn, what cannot be trained on such records.

        No record is looked at, but for tokens that the model has no row for: others of their shape
        are invented. `classes` is the public number of classes, where it is known.
        """
        check_no_autocast(inputs.device)
        if not self._size:
            invented = made_up(inputs, targets)
            with buffers_kept(self.model), same_random_numbers(invented[0]):
                self._probe(*invented, classes)
                if not inputs.is_floating_point() and inputs.numel():
                    check_tokens(self.model, inputs)

    @torch.no_grad()
    def clipped_sum(
        self,
        inputs: Tensor,
        targets: Tensor,
        max_grad_norm: float,
        mask: Tensor | Support | None = None,
    ) -> Clipped:
        """The sum over a batch of per-example gradients, each scaled to norm at most C.

        `mask` is the support, which acts before the clip: a flat vector (D,) of zeros and ones, or
        a `Support`, whose values alone are summed.

        *Shapes*: inputs (B, ...), targets (B, ...).
        """
        self._prepare(inputs, targets, max_grad_norm)
        support = as_support(mask, self.size)
        total = self.parameters.new_empty(self.size if support is None else len(support.index))
        parts: list[_Part] = []
        for x, y, count in self._chunks(inputs, targets):
            works, losses = self._source.works(x, y, support)
            parts.append(self._add(total, works, losses, max_grad_norm, not parts, count))
            del works  # before the next microbatch's are made beside them
        return self._gathered(total, parts, support if isinstance(mask, Tensor) else None)

    @torch.no_grad()
    def transformed_sum(
        self,
        inputs: Tensor,
        targets: Tensor,
        transform: Transform,
        max_grad_norm: float,
        views: Views | None = None,
        mask: Tensor | Support | None = None,
    ) -> Clipped:
        """The clipped sum of per-example gradients that a transform has changed first.

        `transform` maps (b, D) to (b, D), row by row; the norms are those of its results. Given
        `views`, a record's gradient is the mean over them: what is clipped is one record's. A
        `mask` is a support, as for `clipped_sum`, on which the results are clipped and summed.
        """
        self._prepare(inputs, targets, max_grad_norm)
        support = as_support(mask, self.size)
        total = self.parameters.new_empty(self.size if support is None else len(support.index))
        parts: list[_Part] = []
        most = max(1, self._rows_at_once() // (views.count if views else 1))
        for x, y, count in self._chunks(inputs, targets, most):
            rows, losses = self._examples(x, y, views)
            good = torch.isfinite(losses) & torch.isfinite(rows).all(1)
            clean = torch.where(good[:, None], rows, 0.0)
            rows = transform(clean)
            if rows.shape != clean.shape:
                raise ValueError(
                    "transform must keep the shape of the per-example gradients, "
                    f"{tuple(clean.shape)}, got {tuple(rows.shape)}."
                )
            works = split_rows(rows, self._source.blocks, support)
            losses = torch.where(good, losses, math.nan)
            parts.append(self._add(total, works, losses, max_grad_norm, not parts, count))
        return self._gathered(total, parts, support if isinstance(mask, Tensor) else None)

    @torch.no_grad()
    def evaluate(
        self, inputs: Tensor, targets: Tensor, batch: int | None = None
    ) -> tuple[float, float | None]:
        """Mean loss, and accuracy where the targets are class indices, in evaluation mode."""
        if len(inputs) == 0:
            raise ValueError("evaluate needs at least one record, got none.")
        loss, hits = inputs.new_zeros(2, dtype=torch.float64)  # no wait for a GPU in the loop
        classes = not targets.is_floating_point() and targets.ndim == 1
        size = batch or self._size or 256
        with in_evaluation(self.model):
            for x, y, count in self._chunks(inputs, targets, size):
                outputs, y = self.model(x)[:count], y[:count]
                loss += self.loss(outputs, y).double().sum()
                hits += (outputs.argmax(1) == y).sum() if classes else 0
        return float(loss) / len(inputs), float(hits) / len(inputs) if classes else None

    def _add(
        self,
        total: Tensor,
        works: Sequence[Work | None],
        losses: Tensor,
        max_grad_norm: float,
        fresh: bool,
        count: int,
    ) -> _Part:
        """Clip one microbatch's gradients and add the first `count` to the total, or make it."""
        if fresh and sum(work.size for work in works if work is not None) < len(total):
            total.zero_()  # the loss does not reach every parameter
            fresh = False
        squares = stacked_squares(works, losses)
        norms = squares.sum(0).sqrt_()
        factors = self.clipping.factors(squares, max_grad_norm)
        skipped, good = 0, None
        if not math.isfinite((norms + losses).sum().item()):
            good = torch.isfinite(norms) & torch.isfinite(losses)
            skipped = count - int(good[:count].sum())
            factors = torch.where(good, factors, 0.0)
        if count < len(losses):
            factors[..., count:] = 0.0  # the copies that keep the others company
        for number, work in enumerate(works):
            if work is not None:
                if good is not None:
                    work.silence(good)
                work.add(total, factors[number] if factors.ndim == 2 else factors, fresh)
        return _Part(norms[:count], losses[:count], skipped)

    def _examples(self, x: Tensor, y: Tensor, views: Views | None) -> tuple[Tensor, Tensor]:
        """Gradients (b, D) and losses (b,) of records, or the means over each record's views."""
        if views is None:
            return self._source.examples(x, y)
        seen, labels = self._laid_out(views.of(x)), y.repeat_interleave(views.count, 0)
        return means(self._source.examples, seen, labels, views.count, self._rows_at_once())

    def _gathered(self, total: Tensor, parts: list[_Part], spread: Support | None) -> Clipped:
        if not parts:
            nothing = total.new_zeros(0)
            parts = [_Part(nothing, nothing, 0)]
            total.zero_()
        if spread is not None:
            total = spread.spread(total)
        if len(parts) == 1:
            return Clipped(total, parts[0].norms, parts[0].losses, parts[0].skipped)
        return Clipped(
            total,
            torch.cat([part.norms for part in parts]),
            torch.cat([part.losses for part in parts]),
            sum(part.skipped for part in parts),
        )

    def _rows_at_once(self) -> int:
        """Records whose whole gradients may be held, also where clipping never forms them."""
        row = self.size * self.parameters.element_size()
        return min(self._size, sizes.rows_at_once(row, self.memory_budget, self.parameters.device))

    def _chunks(
        self, inputs: Tensor, targets: Tensor, most: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Microbatches of nearly equal size, each with the number of its records.

        A small one is filled up with copies of its records: a product of few rows is summed in
        another order, and where a gradient hangs on rounding (a normalised constant image), one
        record would move the gradients of the others in its batch.
        """
        records, most = inputs.shape[0], most or self._size
        size = math.ceil(records / math.ceil(records / most)) if records else 1
        fill = min(sizes.COMPANY, most)
        for start in range(0, records, size):
            x, y = inputs[start : start + size], targets[start : start + size]
            count = x.shape[0]
            if count < fill:
                again = torch.arange(fill, device=x.device) % count
                x, y = x[again], y[again]
            yield self._laid_out(x), y, count

    def _prepare(self, inputs: Tensor, targets: Tensor, max_grad_norm: float) -> None:
        if not max_grad_norm > 0:
            raise ValueError(
                "max_grad_norm (C, bound on the norm of one record's gradient) must lie in "
                f"(0, infinity], got {max_grad_norm}."
            )
        if inputs.shape[:1] != targets.shape[:1]:
            raise ValueError(
                f"inputs and targets must have one row for each record, got {len(inputs)} and "
                f"{len(targets)}."
            )
        self._flat.check()
        self.prepare(inputs, targets)

    def _probe(self, inputs: Tensor, targets: Tensor, classes: int | None) -> None:
        """A look at invented records: refuse the model, or settle how it is run."""
        check_fits(self.model, self.loss, inputs, targets, self.parameters, classes)
        targets = of_two_classes(self.model, inputs, targets)
        check_nothing_remembered(self.model, inputs)
        check_records_apart(self.model, self.loss, inputs, targets)
        arguments = (self.model, self.loss, self._flat)
        if isinstance(self._source, Taped):
            why = objection(self._source, *arguments, inputs, targets)
            if why:
                self._fall_back(why)
                self.clipping.check_blocks(self.blocks)
        if isinstance(self._source, Vmapped):
            self._source.check(inputs[:FEW], targets[:FEW])
        if likes_channels_last(self.model, inputs):
            images = inputs[:FEW].to(memory_format=torch.channels_last)
            with suppress(RuntimeError):  # a view in the model that wants the usual layout
                if not objection(self._source, *arguments, images, targets):
                    self._layout = torch.channels_last
        need = self._source.footprint(inputs[:FEW], targets[:FEW])
        self._size = sizes.microbatch_size(need, self.memory_budget, inputs.device, self.microbatch)

    def _laid_out(self, inputs: Tensor) -> Tensor:
        return inputs if self._layout is None else inputs.to(memory_format=self._layout)

    def _fall_back(self, why: str) -> None:
        warnings.warn(
            f"Per-example gradients by torch.func.vmap, which is slower, because {why}.",
            stacklevel=frames_inside(),
        )
        self._source = Vmapped(self.model, self.loss, self._flat)
