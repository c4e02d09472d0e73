"""The vectors that stand for missing keys, slot by slot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

Place = tuple[int | None, str]
"""Slot, None for every one, and dict, "" for every one."""

_ZEROS: Default = (0.0,)


@dataclass(frozen=True)
class Defaults:
    """What the configuration says: a default for every slot of every dict, and others for some.

    Attributes:
        by_place: by slot, None for all, and dict, "" for all.
    """

    everywhere: Default = _ZEROS
    by_place: Mapping[Place, Default] = field(default_factory=dict)

    def rows(
        self, slots: int, dict_name: str, dim: int, mean_row: Sequence[float], where: str
    ) -> NDArray[np.float32] | None:
        """float32[slots, dim] for a model of one dict; None when all of it is zeros.

        Args:
            where: names the model in errors.

        Raises:
            ModelError: a slot or dict that the model has not, values of another width, or no mean
                row.
        """
        self.check_places(slots, [dict_name], where)
        rows = np.empty((slots, dim), np.float32)
        for slot in range(slots):
            rows[slot] = self.row(slot, dict_name, dim, mean_row, where)
        return rows if rows.any() else None

    def row(
        self, slot: int, dict_name: str, dim: int, mean_row: Sequence[float], where: str
    ) -> NDArray[np.float32]:
        """float32[dim] for one slot of one dict.

        Raises:
            ModelError: values of another width, or no mean row.
        """
        places: list[Place] = [(slot, dict_name), (slot, ""), (None, dict_name)]
        said = (self.by_place[place] for place in places if place in self.by_place)
        default = next(said, self.everywhere)
        values = tuple(mean_row) if isinstance(default, Mean) else default
        if not values:
            raise ModelError(
                f"{where}: mean_row: is missing, and default_embeddings asks for the mean row"
            )
        if len(values) not in (1, dim):
            raise ModelError(
                f"{where}: default_embeddings gives {len(values)} values for slot {slot},"
                f" its vectors of dict {dict_name!r} have {dim}; dict_name says which dict is meant"
            )
        row = np.empty(dim, np.float32)
        row[:] = values
        return row

    def check_places(self, slots: int, dict_names: Collection[str], where: str) -> None:
        """Raises ModelError for a default of a slot or dict that the model has not."""
        for slot, dict_name in self.by_place:
            if slot is not None and slot >= slots:
                raise ModelError(
                    f"{where}: default_embeddings names slot {slot}, the model has {slots} slots"
                )
            if dict_name and dict_name not in dict_names:
                raise ModelError(
                    f"{where}: default_embeddings names dict {dict_name!r}, the model has"
                    f" {', '.join(dict_names)}"
                )


def read_defaults(file: str, field_name: str, engine: EngineDesc) -> Defaults:
    """The defaults of one engine of model_toolkit.prototxt.

    Raises:
        ConfError: names the file and the field.
    """
    everywhere: Default = (engine.default_embedding_value,)
    by_place: dict[Place, Default] = {}
    for index, each in enumerate(engine.default_embeddings):
        place = f"{field_name}.default_embeddings[{index}]"
        if each.kind == each.VALUES and not each.values:
            raise ConfError(file, f"{place}.values", "is missing; or write kind: ZEROS or MEAN")
        if each.kind != each.VALUES and each.values:
            raise ConfError(file, f"{place}.values", "stands beside a kind that needs none")
        default = {each.VALUES: tuple(each.values), each.ZEROS: _ZEROS}.get(each.kind, Mean.ROW)
        slot = each.slot if each.HasField("slot") else None
        if slot is not None and slot < 0:
            raise ConfError(file, f"{place}.slot", f"{slot} is negative")
        if slot is None and not each.dict_name:
            everywhere = default
        elif (slot, each.dict_name) in by_place:
            raise ConfError(file, place, "its slot and dict_name stand twice")
        else:
            by_place[slot, each.dict_name] = default
    return Defaults(everywhere, by_place)
