"""`python -m release.licences`: every installed distribution has a licence that is allowed here.

Run it where the locked dependencies are installed. Licences are those that packages state of
themselves: as an SPDX expression, by classifiers, or in the older field `License`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from email.message import Message
from importlib.metadata import distributions
from typing import cast

from license_expression import Licensing
from packaging.utils import canonicalize_name

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "OLDAP-2.8",
        "PSF-2.0",
        "Zlib",
    }
)
SPELLINGS: Mapping[str, str] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What is written in place of an SPDX identifier."""
EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "certifi": ("MPL-2.0", "a list of certificates, used as it is"),
    "hdfs-native": ("", "states none in its metadata; its bill of materials says Apache-2.0"),
    "hypothesis": ("MPL-2.0", "for tests only"),
    "pathspec": ("MPL-2.0", "for the build and for checks only"),
    "pyftpdlib": ("", "states none; its file LICENSE is MIT; for tests only"),
}
"""Distributions that may state another licence, and why."""

_NO_LICENCES = ("OSI Approved", "DFSG approved")


def stated(metadata: Message) -> str:
    """The licence as an expression; "" when none is stated."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in metadata.get_all("Classifier") or ()
        if each.startswith("License ::")
    ]
    names = [each for each in classifiers if each not in _NO_LICENCES]
    names = names or [metadata.get("License") or ""]
    return " AND ".join(SPELLINGS.get(name, name) for name in names)


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves an allowed way: one side of OR, all of AND."""
    return _is_allowed(Licensing().parse(expression)) if expression else False


def _is_allowed(parsed: object) -> bool:
    parts: Iterable[object] = getattr(parsed, "args", ())
    operator = getattr(parsed, "operator", "").strip()
    if operator == "OR":
        return any(map(_is_allowed, parts))
    if operator == "AND":
        return all(map(_is_allowed, parts))
    return str(parsed) in ALLOWED


def problem(metadata: Message) -> str:
    """Why a distribution may not be used; "" when it may."""
    name = canonicalize_name(str(metadata["Name"]))
    expression = stated(metadata)
    if name in EXCEPTIONS and expression == EXCEPTIONS[name][0]:
        return ""
    try:
        if is_allowed(expression):
            return ""
    except Exception as error:  # the parser's own errors have no class in common
        return f"{name}: {expression[:100]!r} is no licence expression: {error}"
    return f"{name}: licence {expression[:100]!r} is not allowed"


def main() -> int:
    """Prints what is not allowed; 1 when anything is not."""
    every = [cast(Message, each.metadata) for each in distributions()]
    found = sorted({line for metadata in every if (line := problem(metadata))})
    for line in found:
        print(f"licences: {line}")
    if not found:
        print(f"licences: {len(every)} distributions are permissive, or named exceptions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
