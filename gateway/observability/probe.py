"""`python -m gateway.observability.probe URL`: exit 0 when the service answers 200.

For container health checks. It asks the service on this machine about itself, so the
certificate's name is not checked; nothing secret is sent.
"""

from __future__ import annotations

import sys

import httpx


def main() -> int:
    """Ask once; 0 when the answer is 200."""
    try:
        answer = httpx.get(sys.argv[1], timeout=4.0, verify=False)  # noqa: S501 - see above
    except httpx.HTTPError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if answer.status_code == httpx.codes.OK else 1


if __name__ == "__main__":
    sys.exit(main())
