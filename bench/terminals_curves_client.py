"""The far end of bench/terminals_curves.py: concentrators with many meters each, one process, bare sockets and epoll.

Each dials, logs in and answers requests of AFN 0D for class-2 curves with stored bytes; anything else is denied. Says
`ready` when all have their login confirmed, then serves until its standard input is closed. Redials when hung up.

    python -m bench.terminals_curves_client PORT TERMINALS
"""

from __future__ import annotations

import select
import socket
import sys
import time

import numpy as np

from fuhe.protocols.qgdw1376.curve_formats import encode_values
from fuhe.protocols.qgdw1376.curves import curve_classes
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer

REGION = "3301"
FNS = (81, 85, 89, 90, 91, 92, 93, 94)
"""P, Q, three voltages, three currents."""
SLOTS = 96
VARIANTS = 16
UNIT = 11  # DA DT and Td_c of a request
TYPICAL = {
    81: (0.5, 0.2),
    85: (0.1, 0.05),
    89: (220, 3),
    90: (220, 3),
    91: (220, 3),
    92: (2, 1),
    93: (2, 1),
    94: (2, 1),
}
LOGIN = b"\x02\x70\x00\x00\x01\x00"
DENIED = b"\x00\x00\x02\x00"
REDIAL_S = 0.5


def stored() -> dict[int, list[bytes]]:
    """By Fn: a day of curve bytes in several variants."""
    random = np.random.default_rng(7)
    found = {}
    for fn in FNS:
        middle, spread = TYPICAL[fn]
        kind = curve_classes()[fn].format
        found[fn] = [encode_values(kind, random.normal(middle, spread, SLOTS).clip(0)) for _ in range(VARIANTS)]
    return found


class Concentrators:
    """All terminals of the process by file descriptor."""

    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.curves, self.width = stored(), {fn: curve_classes()[fn].width for fn in FNS}
        self.poll = select.epoll()
        self.open: dict[int, tuple[socket.socket, Address, Framer]] = {}
        self.waiting = dict.fromkeys(range(1, count + 1), 0.0)
        self.confirmed: set[int] = set()
        self.answered = 0

    def serve(self) -> None:
        """Until standard input is closed."""
        self.poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        told = False
        while True:
            now = time.monotonic()
            for number in [n for n, at in self.waiting.items() if at <= now]:
                self._dial(number)
            for fd, event in self.poll.poll(0.2, 1024):
                if fd == sys.stdin.fileno():
                    return
                if event & select.EPOLLIN:
                    self._read(fd)
                elif event & (select.EPOLLERR | select.EPOLLHUP):
                    self._drop(fd)
            if not told and len(self.confirmed) == self.count:
                told = True
                print("ready", flush=True)

    def _dial(self, number: int) -> None:
        sock = socket.socket()
        try:
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            self.waiting[number] = time.monotonic() + REDIAL_S
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        del self.waiting[number]
        address = Address(REGION, number)
        self.open[sock.fileno()] = sock, address, Framer()
        self.poll.register(sock.fileno(), select.EPOLLIN)
        sock.send(Frame(0xC9, address, LOGIN).encode())

    def _drop(self, fd: int) -> None:
        sock, address, _ = self.open.pop(fd)
        self.poll.unregister(fd)
        sock.close()
        self.waiting[address.a2] = time.monotonic() + REDIAL_S

    def _read(self, fd: int) -> None:
        sock, address, framer = self.open[fd]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        framer.feed(data)
        while isinstance(frame := framer.next_event(), Frame):
            if not frame.prm:
                self.confirmed.add(address.a2)
                continue
            sock.setblocking(True)
            sock.sendall(self._answer(frame, address.a2).encode())

    def _answer(self, frame: Frame, a2: int) -> Frame:
        user = frame.user
        seq = 0x60 | user[1] & 0x0F
        if user[0] != 0x0D:
            return Frame(0x89, frame.address, bytes((0, seq)) + DENIED)
        parts = [bytes((0x0D, seq))]
        for at in range(2, len(user) - UNIT + 1, UNIT):
            unit = user[at : at + UNIT]
            fn = unit[3] * 8 + unit[2].bit_length()
            if fn not in self.width:
                return Frame(0x89, frame.address, bytes((0, seq)) + DENIED)
            variant = self.curves[fn][(a2 + 5 * unit[0] + unit[1]) % VARIANTS]
            parts += (unit, variant[: unit[10] * self.width[fn]])
        self.answered += 1
        return Frame(0x88, frame.address, b"".join(parts))


if __name__ == "__main__":
    Concentrators(int(sys.argv[1]), int(sys.argv[2])).serve()
