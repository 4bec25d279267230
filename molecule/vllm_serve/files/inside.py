"""Prints what the server's own process has, from inside its container. Arguments: a device, then files and directories."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path


def refused(device: str) -> str:
    """Why it cannot be opened. Without a driver, one that may be used is ENXIO, and one that may not is EPERM."""
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


device, *paths = sys.argv[1:]
number = Path(device).stat().st_rdev
limits = re.findall(r"^(Max .+?) {2,}(\S+) +(\S+)", Path("/proc/1/limits").read_text(), re.MULTILINE)
environment = Path("/proc/1/environ").read_text().split("\0")
print(
    json.dumps(
        {
            "environment": dict(entry.split("=", 1) for entry in environment if entry),
            "limits": {name: [soft, hard] for name, soft, hard in limits},
            "device": [os.major(number), os.minor(number), refused(device)],
            "texts": {path: Path(path).read_text() for path in paths if Path(path).is_file()},
            "writable": {path: os.access(path, os.W_OK) for path in paths},
        }
    )
)
