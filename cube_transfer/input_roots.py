"""Where passes may lie, whatever a donefile says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from cube_core.errors import DeployError
from cube_transfer.remote import is_local, local_path, shown

_PORTS = {"http": 80, "https": 443, "ftp": 21}


class InputRoots:
    """The field `input_roots` of transfer.conf; without one, passes may lie everywhere.

    Args:
        roots: paths, and addresses of other machines; each is a directory.
    """

    def __init__(self, roots: Sequence[str] = ()) -> None:
        self._is_open = not roots
        self._paths = [local_path(root) for root in roots if is_local(root)]
        self._places = [_place(root) for root in roots if not is_local(root)]

    def require_path(self, path: Path) -> None:
        """Raises DeployError unless a path is below a root, links and `..` followed."""
        found = path.resolve()
        if self._is_open or any(found.is_relative_to(root.resolve()) for root in self._paths):
            return
        raise _outside(str(path) if found == path else f"{path}, which is {found},")

    def require_url(self, url: str) -> None:
        """Raises DeployError unless an address is below a root, at the same server."""
        if self._is_open:
            return
        *place, path = _place(url)
        for *root_place, root in self._places:
            if place == root_place and not _leads_up(path) and path.is_relative_to(root):
                return
        raise _outside(shown(url))


def _outside(where: str) -> DeployError:
    return DeployError(f"{where}: is outside the input_roots of transfer.conf")


def _leads_up(path: PurePosixPath) -> bool:
    """Some servers take what follows a semicolon for no part of a name."""
    return any(part.partition(";")[0] == ".." for part in path.parts)


def _place(url: str) -> tuple[str, str, str, PurePosixPath]:
    """Scheme, server, what else tells the server, and path, decoded as the server would."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    server = parts.netloc.rpartition("@")[2].lower()
    if scheme in _PORTS:
        server = server.removesuffix(f":{_PORTS[scheme]}")
    # The query of s3:// names the endpoint, that of http:// does not lead to another path.
    query = "" if scheme in _PORTS else parts.query
    path = unquote(parts.path).replace("\\", "/")
    return scheme, server, query, PurePosixPath("/", path.lstrip("/"))
