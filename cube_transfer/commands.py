"""The commands of `cube-transfer` that talk to a running daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from cube_core.access import (
    OPERATE_TOKEN_VARIABLE,
    READ_TOKEN_VARIABLE,
    Access,
    authorization,
)
from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.errors import ConfError, DeployError
from cube_core.tls import ClientTls, TlsFiles

CONFIG_DEFAULT = "conf/transfer.conf"
_TIMEOUT_S = 30.0
_FINAL = ("done", "failed", "superseded")

_Url = Annotated[
    str,
    typer.Option("--url", help="The daemon; http://<transfer_address>:<wget_port> if not given."),
]
_TokenFile = Annotated[
    str,
    typer.Option(
        "--token_file",
        help=f"File of the token; {OPERATE_TOKEN_VARIABLE} or {READ_TOKEN_VARIABLE} if not given.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="The daemon's answer as it is.")]
_WaitS = Annotated[
    float, typer.Option("--wait_s", min=0, help="Wait so long for the end of it; 0 = do not wait.")
]


@dataclass(frozen=True)
class Root:
    """What stands before the command: `cube-transfer --config=… --tls_ca_file=… status`."""

    config: str = CONFIG_DEFAULT
    tls: TlsFiles = field(default_factory=TlsFiles)


class DaemonClient:
    """Asks one daemon.

    Args:
        context: of the command, with the `Root`.
        url: "" takes the address of that file.
    """

    def __init__(self, context: typer.Context, url: str, token_file: str = "") -> None:
        root = context.obj or Root()
        self._tls = ClientTls(root.tls) if root.tls != TlsFiles() else None
        if not url:
            conf = read_transfer_conf(root.config)
            scheme = "http" if self._tls is None else "https"
            url = f"{scheme}://{conf.transfer_address}:{conf.wget_port}"
        self._url = url.rstrip("/")
        self._headers = authorization(Access.read("", token_file).shown)

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, **fields: str) -> Any:
        return self._ask("POST", path, fields)

    def _ask(self, method: str, path: str, fields: dict[str, str] | None) -> Any:
        """Raises DeployError: no answer, or the daemon's reason not to do it."""
        url = self._url + path
        try:
            context = self._tls.context() if self._tls else True
            with httpx.Client(trust_env=False, timeout=_TIMEOUT_S, verify=context) as http:
                response = http.request(method, url, json=fields, headers=self._headers)
                answer = response.json()
        except httpx.InvalidURL as error:
            raise ConfError("command line", "--url", f"{self._url}: {error}") from error
        except httpx.HTTPError as error:
            raise DeployError(f"{url}: {error or type(error).__name__}; does it run?") from error
        except ValueError as error:
            raise DeployError(f"{url}: the answer is no JSON; is it a cube-transfer?") from error
        if response.status_code != httpx.codes.OK:
            raise DeployError(f"{url}: {answer.get('detail', answer)}")
        return answer


def status(
    context: typer.Context, url: _Url = "", token_file: _TokenFile = "", as_json: _Json = False
) -> None:
    """What is served, what is under way, and every server with its version and error.

    Example: cube-transfer --config=conf/transfer.conf status
    """
    answer = DaemonClient(context, url, token_file).get("/status")
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    serving = answer["serving"] or "nothing"
    paused = " (paused)" if answer["paused"] else ""
    print(f"{answer['dict_name']}: serves {serving}{paused}")
    deploying = answer["deploying"]
    if deploying is not None:
        print(f"deploying {deploying['id']} ({deploying['version']}): {deploying['step']}")
    for problem in filter(None, _problems(answer)):
        print(f"  {problem}")
    table = Table("server", "address", "serves", "background", "ready", "error")
    for name, replica in answer["replicas"].items():
        versions = (replica["cur_version"] or "-", replica["bg_version"] or "-")
        ready = "yes" if replica["ready"] else "no"
        table.add_row(name, replica["endpoint"], *versions, ready, escape(replica["error"]))
    Console().print(table)


def _problems(answer: Any) -> Iterator[str]:
    """What keeps passes from being served, in words."""
    if answer["deploying"]:
        yield answer["deploying"]["error"]
    elif answer["passes"] and answer["passes"][0]["stage"] == "failed":
        newest = answer["passes"][0]
        yield f"{newest['id']} ({newest['version']}) failed: {newest['error']}"
    yield answer["error"]
    for file in filter(None, (answer["donefile"], answer["patch_file"])):
        yield file["error"]
        yield from file["bad_lines"]
        if file["incomplete_line"]:
            yield f"{file['incomplete_line']}: has no newline yet, and is not looked at before"
    for each in (answer["patch_file"] or {}).get("waiting", ()):
        yield f"{each['version']} waits for {each['for']}"


def history(
    context: typer.Context, url: _Url = "", token_file: _TokenFile = "", as_json: _Json = False
) -> None:
    """Every pass and rollback that is remembered, newest first.

    Example: cube-transfer history --url=http://127.0.0.1:8098
    """
    records = DaemonClient(context, url, token_file).get("/history")
    if as_json:
        print(json.dumps(records, indent=2))
        return
    table = Table("pass", "version", "stage", "since", "remarks")
    for record in records:
        times = record["reached_at_s"].values()
        since = datetime.fromtimestamp(max(times)).isoformat(" ", "seconds") if times else ""
        known = (record["id"], record["version"], record["stage"])
        table.add_row(*known, since, escape(_remarks(record)))
    Console().print(table)


def rollback(
    context: typer.Context,
    version: Annotated[
        str, typer.Argument(help="To go back to; the one that was served before if not given.")
    ] = "",
    url: _Url = "",
    token_file: _TokenFile = "",
    wait_s: _WaitS = 60.0,
) -> None:
    """Has all servers serve an earlier version, and publishes its dense model.

    Example: cube-transfer rollback 10_10
    """
    client = DaemonClient(context, url, token_file)
    _await_end(client, client.post("/control/rollback", version=version), wait_s)


def retry_pass(
    context: typer.Context,
    pass_id: Annotated[
        str,
        typer.Argument(
            help="The pass; if not given the one under way, else the newest that failed, else the "
            "one that is served and not by all servers."
        ),
    ] = "",
    url: _Url = "",
    token_file: _TokenFile = "",
    wait_s: _WaitS = 0.0,
) -> None:
    """Has a failed pass deployed anew; one that waits, and servers that are behind, tried at once.

    Example: cube-transfer retry 11
    """
    client = DaemonClient(context, url, token_file)
    _await_end(client, client.post("/control/retry", id=pass_id), wait_s)


def pause(context: typer.Context, url: _Url = "", token_file: _TokenFile = "") -> None:
    """Leaves new passes of the donefile alone; what is under way goes on.

    Example: cube-transfer pause
    """
    DaemonClient(context, url, token_file).post("/control/pause")
    print("paused")


def resume(context: typer.Context, url: _Url = "", token_file: _TokenFile = "") -> None:
    """Ends a pause.

    Example: cube-transfer resume
    """
    DaemonClient(context, url, token_file).post("/control/resume")
    print("resumed")


def add_commands(app: typer.Typer) -> None:
    """Adds the commands to the daemon's command line."""
    for name, command in (
        ("status", status),
        ("history", history),
        ("rollback", rollback),
        ("pause", pause),
        ("resume", resume),
        ("retry", retry_pass),
    ):
        app.command(name)(command)


def _await_end(client: DaemonClient, ordered: dict[str, str], wait_s: float) -> None:
    started = time.monotonic()
    print(f"{ordered['id']}: {ordered['version']} {ordered.get('did', 'is ordered')}")
    if not wait_s:
        return
    record = _final_record(client, ordered["id"], wait_s)
    if record is None:
        raise DeployError(f"{ordered['id']}: not over after {wait_s:g} s; see cube-transfer status")
    if record["stage"] != "done":
        raise DeployError(f"{ordered['id']}: {record['stage']}: {record['error']}")
    print(f"{record['version']} is served after {time.monotonic() - started:.1f} s")


def _final_record(client: DaemonClient, pass_id: str, wait_s: float) -> dict[str, Any] | None:
    @retry(
        retry=retry_if_result(lambda record: record is None),
        stop=stop_after_delay(wait_s),
        wait=wait_fixed(0.1),
        retry_error_callback=lambda _: None,
    )
    def look() -> dict[str, Any] | None:
        records: list[dict[str, Any]] = client.get("/history")
        ended = (each for each in records if each["id"] == pass_id and each["stage"] in _FINAL)
        return next(ended, None)

    record: dict[str, Any] | None = look()
    return record


def _remarks(record: dict[str, Any]) -> str:
    late = ", ".join(record["late_replicas"])
    remarks = (
        "rolled back" if record["rolled_back"] else "",
        f"without {late}" if late else "",
        record["error"],
    )
    return "; ".join(filter(None, remarks))
