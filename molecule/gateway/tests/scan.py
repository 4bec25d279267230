"""Prints the open ports of an address up to a number, as this host finds them. It runs on a lab host, with the distribution's Python."""

import asyncio
import json
import sys

AT_ONCE, PATIENCE = 500, 10.0


async def is_open(address: str, port: int, turns: asyncio.Semaphore) -> bool:
    async with turns:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        return True


async def scan(address: str, last: int) -> list[int]:
    turns = asyncio.Semaphore(AT_ONCE)
    ports = range(1, last + 1)
    found = await asyncio.gather(*(is_open(address, port, turns) for port in ports))
    return [port for port, there in zip(ports, found, strict=True) if there]


print(json.dumps(asyncio.run(scan(sys.argv[1], int(sys.argv[2])))))
