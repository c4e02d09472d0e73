"""Who may ask a role what: whoever has the token for it; where none is set, this machine."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cube_core.errors import AccessError, ConfError, RoleError
from cube_core.redaction import hide

READ_TOKEN_VARIABLE = "CUBE_READ_TOKEN"  # noqa: S105  the name of a variable, not a token
OPERATE_TOKEN_VARIABLE = "CUBE_OPERATE_TOKEN"  # noqa: S105
TOKEN_BYTES_MIN = 8
_SCHEME = "Bearer "
_PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip"})

log = logging.getLogger(__name__)
audit_log = logging.getLogger("cube.audit")


class Right(IntEnum):
    """What a caller may do; the higher includes the lower."""

    NOTHING = 0
    READ = 1
    OPERATE = 2


@dataclass(frozen=True)
class Asker:
    """Who asks.

    Attributes:
        peer: address, "host:port"; words before it say that it is not who really asks, such as a
            proxy or a browser with a page of another site, and so it is not local.
        token: what came with the request; "" for none.
    """

    peer: str
    token: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the request came from this machine."""
        try:
            return ipaddress.ip_address(self.peer.rpartition(":")[0].strip("[]")).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Access:
    """The tokens of one role; "" where none is set."""

    read_token: str = ""
    operate_token: str = ""

    def __post_init__(self) -> None:
        hide(self.read_token)
        hide(self.operate_token)

    @classmethod
    def read(cls, read_token_file: str = "", operate_token_file: str = "") -> Access:
        """The tokens of files, else of the environment.

        Raises:
            ConfError: a file cannot be read, or a token is too short or cannot be sent.
        """
        return cls(
            _token("--read_token_file", read_token_file, READ_TOKEN_VARIABLE),
            _token("--operate_token_file", operate_token_file, OPERATE_TOKEN_VARIABLE),
        )

    @property
    def shown(self) -> str:
        """The token to show to others."""
        return self.operate_token or self.read_token

    def right_of(self, asker: Asker) -> Right:
        """What the asker may do."""
        offered = asker.token.encode()
        # Both are compared whatever comes of the first, so that time tells nothing.
        operates = _is_same(offered, self.operate_token)
        reads = _is_same(offered, self.read_token)
        if operates or (not self.operate_token and asker.is_local):
            return Right.OPERATE
        if reads or (not self.read_token and asker.is_local):
            return Right.READ
        return Right.NOTHING

    def require(self, asker: Asker, right: Right, what: str) -> None:
        """Lets the asker do `what`, or not.

        Raises:
            AccessError: no token, or a wrong one; RoleError: one for less than this.
        """
        if self.right_of(asker) >= right:
            return
        audit(asker, what, "refused")
        token = self.operate_token if right is Right.OPERATE else self.read_token
        variable = OPERATE_TOKEN_VARIABLE if right is Right.OPERATE else READ_TOKEN_VARIABLE
        if not token:
            raise AccessError(
                f"{what}: is taken from this machine only, not from {asker.peer}: no token for it "
                "is set "
                f"(--{right.name.lower()}_token_file, or {variable})"
            )
        if _is_same(asker.token.encode(), self.read_token):
            raise RoleError(f"{what}: needs the {right.name.lower()} token")
        raise AccessError(
            f"{what}: wrong or missing token: send it as '{_SCHEME}<token>' in Authorization"
        )

    def tell_who_commands(self, host: str) -> None:
        """Tells in the log, where no operate token is set, that only this machine commands: as a
        warning where `host` is listened on for others too."""
        if self.operate_token:
            return
        is_private = host == "localhost" or Asker(f"{host}:0").is_local
        log.log(
            logging.INFO if is_private else logging.WARNING,
            "no operate token is set (--operate_token_file, %s): control commands are taken "
            "from this machine only, and not from a proxy on it",
            OPERATE_TOKEN_VARIABLE,
        )


def audit(asker: Asker, what: str, result: str) -> None:
    """One line of who did what; never a token, and never a line that the asker made up."""
    shown = {"who": asker.peer, "what": what, "result": result}
    fields = {"token": bool(asker.token), **{name: _one_line(shown[name]) for name in shown}}
    audit_log.info(
        "who=%(who)s token=%(token)s what=%(what)s result=%(result)s",
        fields,
        extra={"fields": fields},
    )


def token_of(authorization: str) -> str:
    """The token of an `Authorization` header; "" when it is of another scheme."""
    return authorization.removeprefix(_SCHEME).strip() if authorization.startswith(_SCHEME) else ""


def is_forwarded(names: Iterable[str]) -> bool:
    """Whether a request with headers, or metadata, of these names (lower case) came by a proxy,
    whose address says nothing about who asks."""
    return any(each in _PROXY_HEADERS or each.startswith("x-forwarded-") for each in names)


def authorization(token: str) -> dict[str, str]:
    """The header that carries a token; none for ""."""
    return {"authorization": f"{_SCHEME}{token}"} if token else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_same(offered: bytes, token: str) -> bool:
    return hmac.compare_digest(offered, token.encode()) and bool(token)


def _token(flag: str, path: str, variable: str) -> str:
    if path:
        origin, field = "command line", flag
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfError(origin, field, f"{path} cannot be read: {error}") from error
        if not token:
            raise ConfError(origin, field, f"{path} is empty")
    else:
        origin, field = "environment", variable
        token = os.environ.get(variable, "").strip()
    if token and len(token.encode()) < TOKEN_BYTES_MIN:
        problem = f"the token is shorter than TOKEN_BYTES_MIN = {TOKEN_BYTES_MIN} bytes"
        raise ConfError(origin, field, problem)
    if not (token.isascii() and token.isprintable()):
        # Clients could not send it, and some would show it in the error that says so.
        problem = "the token is not one line of printable ASCII, which a header can carry"
        raise ConfError(origin, field, problem)
    return token
