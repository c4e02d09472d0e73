"""The parameters beside a program, looked over before Paddle reads them.

Paddle takes sizes out of a file that was cut off as they come: it may give memory by the terabyte
to a tensor that is not there, or serve what happened to be in it.
"""

from __future__ import annotations

import math
from pathlib import Path

from cube_core.errors import FormatError, ModelError
from cube_core.paddle_tensor import read_tensor_head
from cube_proto.paddle_tensor_pb2 import ProgramDesc, VarType

# Bytes of an element by the number of Paddle's data type.
_ELEMENT_BYTES = {
    0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16,
}  # fmt: skip


def check_weights(path: Path) -> int:
    """Checks that a file of parameters is whole tensors to its end.

    Returns:
        how many.

    Raises:
        ModelError: it is not, or cannot be read; names the file and the offset.
    """
    tensors = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while (offset := file.tell()) < size:
                head = read_tensor_head(file)
                element_bytes = _ELEMENT_BYTES.get(head.data_type)
                if element_bytes is None or any(length < 0 for length in head.shape):
                    raise FormatError(
                        f"the tensor at offset {offset} has data type {head.data_type} and shape"
                        f" {list(head.shape)}"
                    )
                elements_bytes = element_bytes * math.prod(head.shape)
                if elements_bytes > size - head.elements_at:
                    raise FormatError(
                        f"is cut off: the tensor at offset {offset} has {elements_bytes} bytes of"
                        f" elements, and {size - head.elements_at} are left"
                    )
                file.seek(elements_bytes, 1)
                tensors += 1
    except FileNotFoundError as error:
        raise ModelError(f"{path}: is missing") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise ModelError(f"{path}: {error}") from error
    return tensors


def check_parameter_files(directory: Path, program: ProgramDesc) -> None:
    """Checks the files of a program of the fluid age that has one for each parameter, named as
    this.

    Raises:
        ModelError: one is missing, or is not one whole tensor; names the file.
    """
    for variable in program.blocks[0].vars if program.blocks else ():
        if variable.persistable and variable.type.type == VarType.LOD_TENSOR:
            path = directory / variable.name
            if check_weights(path) != 1:
                raise ModelError(f"{path}: is not one tensor")
