"""What is missing from a distribution, or does not belong there, is named."""

from __future__ import annotations

import pytest

from release.packages import (
    FILES,
    SOURCES,
    PackageError,
    check_sdist,
    check_wheel,
    package_names,
    tracked,
)

SDIST = sorted({*FILES, *tracked([*package_names(), *SOURCES]), "PKG-INFO"})
PROTOS = [path[6:-6] for path in tracked(["proto"])]
WHEEL = [
    *tracked(package_names()),
    "cube_core/_native.cpython-311-x86_64-linux-gnu.so",
    "cube_proto/__init__.py",
    "cube_proto/py.typed",
    *(f"cube_proto/{name}_pb2.py{end}" for name in PROTOS for end in ("", "i")),
    "cube_serving-0.1.0.dist-info/METADATA",
    "cube_serving-0.1.0.dist-info/licenses/LICENSE",
]


def test_whole_ones_are_taken() -> None:
    check_sdist(SDIST)
    check_wheel(WHEEL)


@pytest.mark.parametrize("lacking", ["LICENSE", "proto/dict.proto", "native/kernels/table.hpp"])
def test_a_source_distribution_that_lacks_something(lacking: str) -> None:
    with pytest.raises(PackageError, match=f"lacks {lacking}"):
        check_sdist([name for name in SDIST if name != lacking])


@pytest.mark.parametrize(
    "junk", ["build/x", "a/__pycache__/b", "cube_core/_native.so", ".git/HEAD"]
)
def test_a_source_distribution_with_junk(junk: str) -> None:
    with pytest.raises(PackageError, match=f"holds {junk}, which is none of it"):
        check_sdist([*SDIST, junk])


@pytest.mark.parametrize(
    "lacking", ["cube_core/py.typed", "cube_core/_native.pyi", "cube_proto/dict_pb2.pyi"]
)
def test_a_wheel_that_lacks_something(lacking: str) -> None:
    with pytest.raises(PackageError, match=f"lacks {lacking}"):
        check_wheel([name for name in WHEEL if name != lacking])


def test_a_wheel_without_kernels_or_licence() -> None:
    with pytest.raises(PackageError, match=r"one cube_core/_native….so is needed"):
        check_wheel([name for name in WHEEL if not name.endswith(".so")])
    with pytest.raises(PackageError, match="lacks LICENSE"):
        check_wheel(WHEEL[:-1])


@pytest.mark.parametrize("other", ["tests/__init__.py", "native/x.hpp", "cube_core/left.orig"])
def test_a_wheel_with_something_else(other: str) -> None:
    with pytest.raises(PackageError, match=f"holds {other}"):
        check_wheel([*WHEEL, other])
