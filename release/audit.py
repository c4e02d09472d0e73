"""`python -m release.audit`: looks the locked dependencies up in a database of known weaknesses.

It passes without an answer in one case only, that no database can be reached, and then says that
nothing was audited; with --require that is a failure as well. A database that answers decides; what
it does not know of is a failure too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from packaging.utils import canonicalize_name

from release.locks import LOCKS, ROOT, locked

OSV_URL = "https://api.osv.dev/v1/query"
PYPI_URL = "https://pypi.org/pypi/pip/23.0/json"
ACCEPTED: Mapping[str, str] = {}
"""Identifiers of weaknesses that do not concern this project, and why."""

_TIMEOUT_S = 10.0


class AuditError(Exception):
    """The audit did not come to its end."""


def osv_problem(url: str) -> str:
    """Why the database does not answer; "" when it does."""
    query = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "9.0.0"}
    try:
        response = httpx.post(url, json=query, timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        return f"{url}: {error}"
    return "" if response.is_success else f"{url}: HTTP {response.status_code}"


def pypi_problem(url: str) -> str:
    """As `osv_problem`, of the page of one version. Mirrors often have none, and pip-audit would
    skip every package and find nothing."""
    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
        known = response.is_success and "vulnerabilities" in response.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{url}: {error}"
    return "" if known else f"{url}: HTTP {response.status_code}"


def pinned(texts: Sequence[str]) -> list[list[str]]:
    """What the locks name, for whatever Python, as lists with one version of a package each."""
    versions: dict[str, set[str]] = {}
    for text in texts:
        for pin, _ in locked(text):
            versions.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier))
    depth = max(map(len, versions.values()))
    rows = [(name, sorted(found)) for name, found in sorted(versions.items())]
    return [[name + found[i] for name, found in rows if i < len(found)] for i in range(depth)]


def findings(report: Mapping[str, Any]) -> list[str]:
    """What pip-audit's JSON says, a line each; what it could not look up is a finding."""
    found = []
    for each in report["dependencies"]:
        if "skip_reason" in each:
            found.append(f"{each['name']}: was not audited: {each['skip_reason']}")
        for weakness in each.get("vulns", ()):
            if weakness["id"] not in ACCEPTED:
                fixed = ", ".join(weakness["fix_versions"]) or "no version"
                found.append(
                    f"{each['name']} {each['version']}: {weakness['id']}, fixed in {fixed}"
                )
    return found


def audit(pins: Sequence[str], service: Sequence[str]) -> list[str]:
    """Runs pip-audit with what chooses its service.

    Raises:
        AuditError: it gave no report.
    """
    with tempfile.TemporaryDirectory(prefix="cube-audit-") as scratch:
        path = Path(scratch) / "requirements.txt"
        path.write_text("\n".join(pins))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip"),
                *("--progress-spinner=off", "--format=json", f"--requirement={path}"),
                *service,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        report = json.loads(done.stdout)
    except ValueError as error:
        raise AuditError(
            f"pip-audit: exit code {done.returncode}: {done.stderr[-2000:]}"
        ) from error
    return findings(report)


def run(texts: Sequence[str], osv_url: str, pypi_url: str, *, require: bool = False) -> int:
    """Prints what was found; 1 when there is anything, or with `require` nothing was audited."""
    if not (osv := osv_problem(osv_url)):
        service = ["--vulnerability-service=osv", f"--osv-url={osv_url}"]
    elif not (pypi := pypi_problem(pypi_url)):
        service = ["--vulnerability-service=pypi"]
    else:
        print(f"audit: NOTHING WAS AUDITED, no database can be reached ({osv}; {pypi})")
        return int(require)
    rows = pinned(texts)
    try:
        found = [line for pins in rows for line in audit(pins, service)]
    except AuditError as error:
        found = [str(error)]
    for line in found:
        print(f"audit: {line}")
    if not found:
        print(f"audit: no known weakness in {sum(map(len, rows))} locked packages ({service[0]})")
    return 1 if found else 0


def main() -> int:
    """See `run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv_url", default=OSV_URL, help="OSV's, or a mirror of it")
    parser.add_argument(
        "--require", action="store_true", help="fail, too, when no database can be reached"
    )
    arguments = parser.parse_args()
    texts = [(ROOT / path).read_text() for path in LOCKS]
    return run(texts, arguments.osv_url, PYPI_URL, require=arguments.require)


if __name__ == "__main__":
    sys.exit(main())
