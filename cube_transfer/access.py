"""Who may command the daemon: whoever has the token; without one, this machine."""

from __future__ import annotations

import hmac
import ipaddress
import os
from pathlib import Path

from cube_core.errors import ConfError

TOKEN_VARIABLE = "CUBE_TRANSFER_TOKEN"  # noqa: S105  the name of a variable, not a token
TOKEN_BYTES_MIN = 8
_SCHEME = "Bearer "


def read_token(token_file: str) -> str:
    """The token of a file, else of the environment; "" when there is none.

    Raises:
        ConfError: the file cannot be read, or the token is too short to be one.
    """
    if token_file:
        origin, field = "command line", "--token_file"
        try:
            token = Path(token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfError(origin, field, f"{token_file} cannot be read: {error}") from error
        if not token:
            raise ConfError(origin, field, f"{token_file} is empty")
    else:
        origin, field = "environment", TOKEN_VARIABLE
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token and len(token.encode()) < TOKEN_BYTES_MIN:
        problem = f"the token is shorter than TOKEN_BYTES_MIN = {TOKEN_BYTES_MIN} bytes"
        raise ConfError(origin, field, problem)
    return token


def refusal(token: str, authorization: str, client_host: str) -> str:
    """Why a command is refused; "" when it is accepted.

    Args:
        token: the daemon's; "" = none.
        authorization: the request's header of that name.
        client_host: where the request came from.
    """
    if token:
        offered = authorization.removeprefix(_SCHEME).strip().encode()
        if hmac.compare_digest(offered, token.encode()):
            return ""
        return f"wrong or missing token: send it as '{_SCHEME}<token>' in Authorization"
    if _is_loopback(client_host):
        return ""
    return (
        "commands from other machines need a token: start the daemon with --token_file or "
        f"{TOKEN_VARIABLE}"
    )


def authorization(token: str) -> dict[str, str]:
    """The header of a command."""
    return {"authorization": f"{_SCHEME}{token}"} if token else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
