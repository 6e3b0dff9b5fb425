"""The far end of bench/terminals.py: as many terminals as wanted in one process, on bare sockets and epoll.

Reads orders from standard input and answers each with a line of JSON:
    login FIRST COUNT   connect that many at once, log in, wait for every confirmation
    beat SECONDS PERIOD heartbeats of all, evenly spread, so that each sends one in PERIOD seconds
    close               hang up all
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time

from fuhe.protocols.qgdw1376.frame import Address, Frame

REGION = "3301"
LIMIT_S = 60.0
PORTS = 4000  # connections of one source address: where ports run short, the kernel's search for one takes the time
IP_BIND_ADDRESS_NO_PORT = 24
CONFIRMED = bytes.fromhex("00000100")


def frame(a2: int, fn_bit: int, seq: int) -> bytes:
    """Login (bit 1) or heartbeat (bit 4) of terminal `a2`."""
    return Frame(0xC9, Address(REGION, a2), bytes((2, 0x70 | seq, 0, 0, fn_bit, 0))).encode()


class Fleet:
    """All connections by file descriptor."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.sockets: dict[int, tuple[socket.socket, int]] = {}
        self.poll = select.epoll()
        self.lost = 0

    def login(self, first: int, count: int) -> dict[str, float]:
        """Seconds from the first connect to the last confirmation; `half_s`: until half of them had theirs."""
        begin = time.perf_counter()
        waiting: set[int] = set()
        out: dict[int, bytes] = {}
        for a2 in range(first, first + count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.{1 + a2 // PORTS}.1", 0))
            done = sock.connect_ex(self.address)
            if done not in (0, errno.EINPROGRESS):
                self.lost += 1
                sock.close()
                continue
            fd = sock.fileno()
            self.sockets[fd] = (sock, a2)
            waiting.add(fd)
            out[fd] = frame(a2, 1, a2 % 16)
            self.poll.register(fd, select.EPOLLIN | select.EPOLLOUT)
        half_s = 0.0
        while waiting and time.perf_counter() - begin < LIMIT_S:
            for fd, event in self.poll.poll(0.5, 1024):
                if event & select.EPOLLOUT and fd in out:
                    self.sockets[fd][0].send(out.pop(fd))
                    self.poll.modify(fd, select.EPOLLIN)
                if event & select.EPOLLIN and self._confirmed(fd):
                    waiting.discard(fd)
                elif event & (select.EPOLLERR | select.EPOLLHUP):
                    self._drop(fd)
                    waiting.discard(fd)
            if not half_s and len(waiting) <= count // 2:
                half_s = time.perf_counter() - begin
        return {"s": time.perf_counter() - begin, "half_s": half_s, "answered": count - len(waiting) - self.lost}

    def beat(self, seconds: float, period_s: float) -> dict[str, float]:
        """Heartbeats; `worst_ms`: longest wait for a confirmation."""
        fds = list(self.sockets)
        sent: dict[int, float] = {}
        worst, answered, number, begin = 0.0, 0, 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds or (sent and elapsed < seconds + 5):
            due = int(min(elapsed, seconds) / period_s * len(fds))
            while number < due:
                fd = fds[number % len(fds)]
                if fd not in self.sockets:
                    raise AssertionError(f"connection {number} was dropped after {elapsed:.1f} s")
                sock, a2 = self.sockets[fd]
                sock.send(frame(a2, 4, number // len(fds) % 16))
                sent[fd] = time.perf_counter()
                number += 1
            for fd, _ in self.poll.poll(0.01, 1024):
                if self._confirmed(fd) and fd in sent:
                    worst = max(worst, time.perf_counter() - sent.pop(fd))
                    answered += 1
        return {"sent": number, "answered": answered, "worst_ms": worst * 1000}

    def close(self) -> dict[str, float]:
        """Hang up."""
        for sock, _ in self.sockets.values():
            sock.close()
        count, self.sockets = len(self.sockets), {}
        return {"closed": count}

    def _confirmed(self, fd: int) -> bool:
        try:
            data = self.sockets[fd][0].recv(4096)
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return False
        return CONFIRMED in data

    def _drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.sockets.pop(fd)[0].close()
        self.lost += 1


def main() -> None:
    fleet = Fleet((sys.argv[1], int(sys.argv[2])))
    for line in sys.stdin:
        order, *words = line.split()
        match order:
            case "login":
                answer = fleet.login(int(words[0]), int(words[1]))
            case "beat":
                answer = fleet.beat(float(words[0]), float(words[1]))
            case _:
                answer = fleet.close()
        print(json.dumps({**answer, "lost": fleet.lost, "open": len(fleet.sockets)}), flush=True)


if __name__ == "__main__":
    main()
