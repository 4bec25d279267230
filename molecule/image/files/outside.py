"""What a registry was asked for, by its access log: outside.py LOG REPOSITORY OFFSET CLIENT…

Prints JSON: `size`, of the log now; and since OFFSET `blobs` and `manifests` [[client, digest, bytes], …] that were sent
to these clients, of one repository, and `bytes` of them all. Requests without a body (HEAD, /v2/) cost nothing and are left out.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

LINE = re.compile(r'^(\S+) \S+ \S+ \[[^]]+\] "GET (\S+) [^"]*" (\d+) (\d+) ')


def main() -> None:
    log, repository, offset, clients = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
    content = log.read_bytes()
    sent: dict[str, list[list[str | int]]] = {"blobs": [], "manifests": []}
    for line in content[offset:].decode(errors="replace").splitlines():
        found = LINE.match(line)
        if not found or found[1] not in clients or not found[3].startswith("2"):
            continue
        prefix, _slash, digest = found[2].rpartition("/")
        for kind in sent:
            if prefix == f"/v2/{repository}/{kind}":
                sent[kind].append([found[1], digest, int(found[4])])
    every = [*sent["blobs"], *sent["manifests"]]
    print(json.dumps({"size": len(content), **sent, "bytes": sum(int(entry[2]) for entry in every)}))


if __name__ == "__main__":
    main()
