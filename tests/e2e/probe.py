#!/usr/bin/env python3
"""probe.py ADDRESS...: asks each address for its web page every 200 ms and prints a line when one begins or ceases to
answer: `<unix time> <address> up|down`. Runs in the lab's network: holdfast lab exec net -- tests/e2e/probe.py ..."""
import socket
import sys
import threading
import time

PERIOD = 0.2
one_line = threading.Lock()


def answers(address):
    try:
        with socket.create_connection((address, 80), timeout=PERIOD) as connection:
            connection.settimeout(PERIOD * 2)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/1.")
    except OSError:
        return False


def watch(address):
    state = None
    while True:
        begin = time.time()
        now = answers(address)
        if now != state:
            with one_line:
                print(f"{time.time() if now else begin:.3f} {address} {'up' if now else 'down'}", flush=True)
        state = now
        time.sleep(max(0.0, begin + PERIOD - time.time()))


for one in sys.argv[1:]:
    threading.Thread(target=watch, args=(one,), daemon=True).start()
try:
    while True:
        time.sleep(3600)
except KeyboardInterrupt:
    pass
