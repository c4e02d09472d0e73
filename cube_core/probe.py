"""Asks a role on this machine over TLS how it is: `python -m cube_core.probe <url> [--cert --key]`.

For supervisors that cannot show a certificate themselves. Exit code 0 when the answer is 200; else
1, with the answer on stdout. Which certificate the role has is not looked at: who asks runs beside.
"""

from __future__ import annotations

# Only what starts fast: this is run every few seconds.
import argparse
import http.client
import ssl
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def ask(url: str, cert_file: str, key_file: str) -> tuple[int, str]:
    """Status and body of the answer.

    Raises:
        OSError: there is none in time, or a file cannot be read.
        ValueError: the URL is none.
        http.client.HTTPException: it is malformed.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is no http:// or https:// address")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode(errors="replace")
    finally:
        connection.close()


def main() -> None:
    """Exits with 0 or 1."""
    parser = argparse.ArgumentParser(
        prog="python -m cube_core.probe",
        description="Asks a role how it is.",
        epilog="Example: python -m cube_core.probe https://127.0.0.1:8001/ready --cert=c --key=k",
    )
    parser.add_argument("url")
    parser.add_argument("--cert", default="", help="certificate to show, PEM")
    parser.add_argument("--key", default="", help="its private key, PEM")
    given = parser.parse_args()
    try:
        status, text = ask(given.url, given.cert, given.key)
    except (OSError, ValueError, http.client.HTTPException) as error:
        status, text = 0, str(error)
    print(text)
    sys.exit(status != http.client.OK)


if __name__ == "__main__":
    main()
