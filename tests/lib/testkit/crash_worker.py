"""A process that issues certificates through the library while others do the same; ``python -m testkit.crash_worker``.

Reads one JSON object and then an empty line from standard input, and writes one JSON array: for each request its id,
and the certificate (hex) or the error that answered it.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.signer import SoftwareKeyStore
from testkit.authorities import ACTOR, PUBLIC_URL
from testkit.crash import PASSPHRASE


def main() -> None:
    """Issue what was asked for, from several threads."""
    task = json.loads(sys.stdin.readline())
    home = Path(task["home"])
    with Inventory.open(task["url"], log_key=AuditKey.load(home / "audit.key")) as inventory:
        keystore = SoftwareKeyStore(home / "keys", lambda: PASSPHRASE)
        authority = Authority(inventory, keystore, actor=ACTOR, public_url=PUBLIC_URL)

        def one(request: tuple[str, str]) -> tuple[str, str]:
            name, csr = request
            order = IssueOrder(ca="s", profile="ocpp/charging-station", csr=csr.encode(), request_id=name)
            try:
                return name, authority.issue(order).certificate_der.hex()
            except ChargePkiError as error:
                return name, f"{type(error).__name__}: {error}"

        # All start together: each says that it is ready and waits for the word.
        print("ready", flush=True)
        sys.stdin.readline()
        with ThreadPoolExecutor(task["threads"]) as pool:
            print(json.dumps(list(pool.map(one, task["requests"]))))


if __name__ == "__main__":
    main()
