"""A requirement that was changed and not locked is noticed."""

from __future__ import annotations

import re

import pytest

from release.locks import BUILD_FILE, LOCKS, ROOT, locked, problems

PYPROJECT = (ROOT / "pyproject.toml").read_text()
BUILD = (ROOT / BUILD_FILE).read_text()
TEXTS = {path: (ROOT / path).read_text() for path in LOCKS}


def test_the_locks_agree_with_pyproject() -> None:
    assert problems(PYPROJECT, BUILD, TEXTS) == []


def test_every_locked_package_has_one_version_and_hashes() -> None:
    counts = {path: len(list(locked(text))) for path, text in TEXTS.items()}
    assert counts["requirements/build.txt"] >= 6
    assert counts["requirements/serve.txt"] >= 50
    assert counts["requirements/dev.txt"] >= 100
    for text in TEXTS.values():
        pins = list(locked(text))
        assert text.count("==") >= len(pins)
        for pin, hash_count in pins:
            assert [each.operator for each in pin.specifier] == ["=="], pin
            assert hash_count > 0, pin


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"lmdb>=1.6"', '"lmdb>=99"', "lmdb is .*, pyproject.toml asks for >=99"),
        ('"lmdb>=1.6"', '"lmdb>=1.6", "left-pad"', "lacks left-pad, for Python 3.10 on x86_64"),
        ('"lmdb>=1.6"', "\"tomlkit; python_version < '3.11'\"", "lacks tomlkit, for Python 3.10"),
        ('<3.14"', '<3.15"', "lacks numpy, for Python 3.14"),
        ('"nanobind>=2.7"', '"nanobind>=2.8"', "build.in: lacks 'nanobind>=2.8'"),
    ],
)
def test_a_change_that_was_not_locked_is_named(before: str, after: str, problem: str) -> None:
    assert before in PYPROJECT
    changed = problems(PYPROJECT.replace(before, after, 1), BUILD, TEXTS)
    assert re.search(problem, "\n".join(changed))


def test_a_pin_without_a_hash_is_named() -> None:
    path = "requirements/serve.txt"
    texts = {**TEXTS, path: TEXTS[path] + "extra==1.0\n"}
    assert problems(PYPROJECT, BUILD, texts) == [f"{path}: extra==1.0 has no hash"]
