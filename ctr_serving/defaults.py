"""The vectors that stand for missing keys, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import ConfError, ModelError

if TYPE_CHECKING:
    from cube_proto.model_toolkit_pb2 import EngineDesc


class Mean(Enum):
    """Stands for the mean row, which each model brings along."""

    ROW = "mean_row"


Default = tuple[float, ...] | Mean
"""Values of one vector, or one value for all its elements."""

_ZEROS: Default = (0.0,)


@dataclass(frozen=True)
class Defaults:
    """What the configuration says: a default for every slot, and others for some."""

    everywhere: Default = _ZEROS
    by_slot: Mapping[int, Default] = field(default_factory=dict)

    def rows(
        self, slots: int, dim: int, mean_row: Sequence[float], where: str
    ) -> NDArray[np.float32] | None:
        """float32[slots, dim] for a model; None when all of it is zeros.

        Args:
            where: names the model in errors.

        Raises:
            ModelError: a slot that the model has not, values of another width, or no mean row.
        """
        self.check_slots(slots, where)
        rows = np.empty((slots, dim), np.float32)
        for slot in range(slots):
            rows[slot] = self.row(slot, dim, mean_row, where)
        return rows if rows.any() else None

    def row(
        self, slot: int, dim: int, mean_row: Sequence[float], where: str
    ) -> NDArray[np.float32]:
        """float32[dim] for one slot.

        Raises:
            ModelError: values of another width, or no mean row.
        """
        default = self.by_slot.get(slot, self.everywhere)
        values = tuple(mean_row) if isinstance(default, Mean) else default
        if not values:
            raise ModelError(
                f"{where}: mean_row: is missing, and default_embeddings asks for the mean row"
            )
        if len(values) not in (1, dim):
            raise ModelError(
                f"{where}: default_embeddings gives {len(values)} values for slot {slot},"
                f" its vectors have {dim}"
            )
        row = np.empty(dim, np.float32)
        row[:] = values
        return row

    def check_slots(self, slots: int, where: str) -> None:
        """Raises ModelError for a default of a slot that the model has not."""
        beyond = [slot for slot in self.by_slot if slot >= slots]
        if beyond:
            raise ModelError(
                f"{where}: default_embeddings names slot {beyond[0]}, the model has {slots} slots"
            )


def read_defaults(file: str, field_name: str, engine: EngineDesc) -> Defaults:
    """The defaults of one engine of model_toolkit.prototxt.

    Raises:
        ConfError: names the file and the field.
    """
    everywhere: Default = (engine.default_embedding_value,)
    by_slot: dict[int, Default] = {}
    for index, each in enumerate(engine.default_embeddings):
        place = f"{field_name}.default_embeddings[{index}]"
        if each.kind == each.VALUES and not each.values:
            raise ConfError(file, f"{place}.values", "is missing; or write kind: ZEROS or MEAN")
        if each.kind != each.VALUES and each.values:
            raise ConfError(file, f"{place}.values", "stands beside a kind that needs none")
        default = {each.VALUES: tuple(each.values), each.ZEROS: _ZEROS}.get(each.kind, Mean.ROW)
        if not each.HasField("slot"):
            everywhere = default
        elif each.slot < 0 or each.slot in by_slot:
            raise ConfError(file, f"{place}.slot", f"{each.slot} is negative or stands twice")
        else:
            by_slot[each.slot] = default
    return Defaults(everywhere, by_slot)
