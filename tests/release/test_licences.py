"""What licences are allowed, however a package states its own."""

from __future__ import annotations

from email.message import Message

import pytest

from release.licences import EXCEPTIONS, problem


def metadata(name: str, *fields: tuple[str, str]) -> Message:
    message = Message()
    for field, value in (("Name", name), *fields):
        message[field] = value
    return message


def licence(name: str) -> tuple[str, str]:
    return "Classifier", f"License :: OSI Approved :: {name}"


@pytest.mark.parametrize(
    "fields",
    [
        [("License-Expression", "MIT")],
        [("License-Expression", "GPL-3.0-only OR (MIT AND Zlib)")],
        [("License-Expression", "BSD-3-Clause"), ("License", "a licence of its own")],
        [licence("MIT License"), licence("Apache Software License")],
        [("Classifier", "License :: OSI Approved"), ("License", "MIT")],
        [("License", "Apache 2.0")],
    ],
)
def test_permissive_ones(fields: list[tuple[str, str]]) -> None:
    assert problem(metadata("some_package", *fields)) == ""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([], "licence ''"),
        ([("License-Expression", "GPL-3.0-only")], "licence 'GPL-3.0-only'"),
        ([("License-Expression", "MIT AND AGPL-3.0-only")], "AGPL-3.0-only"),
        ([licence("MIT License"), licence("GNU Affero General Public License v3")], "GNU Affero"),
        ([("License", "Commercial (ask us)")], "Commercial"),
        ([("License", "MPL-2.0")], "MPL-2.0"),
        ([("License-Expression", "MIT OR (")], "no licence expression"),
    ],
)
def test_others_are_named(fields: list[tuple[str, str]], named: str) -> None:
    found = problem(metadata("Some_Package", *fields))
    assert found.startswith("some-package: ")
    assert named in found


def test_an_exception_is_for_the_licence_that_it_names() -> None:
    assert EXCEPTIONS["certifi"][0] == "MPL-2.0"
    assert problem(metadata("Certifi", ("License", "MPL-2.0"))) == ""
    assert "GPL-3.0-only" in problem(metadata("certifi", ("License", "GPL-3.0-only")))
