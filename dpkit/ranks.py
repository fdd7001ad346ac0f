"""Several processes that train one model together: who holds which records, and who adds noise.

Start them with `torchrun` and call `torch.distributed.init_process_group` first; `train` does the
rest. Every rank draws the whole batch from one shared secret stream and keeps its own slice. Rank
0 alone adds the noise, to its own partial sum, before any sum is shared, and writes the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a torch.distributed group; alone if there is no group."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The default group as it stands now."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which draws the noise and writes what is written."""
        return self.rank == 0

    def own(self, batch: Any) -> Any:
        """This rank's slice of a batch: every record is in exactly one."""
        return batch if self.size == 1 else batch[self.rank :: self.size]

    def sum_(self, partial: Any) -> Any:
        """The sum over all ranks of a tensor, in its place; the same bits on every rank."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(partial)
        return partial

    def alike(self, tensors: Iterable[Any]) -> None:
        """Overwrite tensors by rank 0's."""
        if self.size > 1:
            from torch import distributed

            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def told(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        from torch import distributed

        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks in order, on every rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        held: list[Any] = [None] * self.size
        distributed.all_gather_object(held, value)
        return held

    def together(self, do: Callable[[], T]) -> T:
        """What `do` makes on every rank; if it fails on one, every rank raises.

        A rank that raises alone leaves the others waiting for it at the next exchange.
        """
        if self.size == 1:
            return do()
        made: list[T] = []
        failure: Exception | None = None
        try:
            made.append(do())
        except Exception as error:
            failure = error
        told = self.gathered("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        failed = [f"rank {rank} ({text.rstrip('.')})" for rank, text in enumerate(told) if text]
        if failed:
            raise RuntimeError(
                f"The run cannot begin on {', '.join(failed)}, so it begins nowhere: mend that and "
                "start all ranks again."
            )
        return made[0]

    def agree(self, what: str, value: Any) -> None:
        """Raise one sentence, on every rank, unless all ranks have the same value."""
        values = self.gathered(value)
        if any(other != values[0] for other in values):
            raise ValueError(
                f"All ranks must train with the same {what}, but they differ: give every process "
                "the same arguments."
            )
