#!/usr/bin/env python3
"""gaps.py ADDRESS: sends a guest's echo service a datagram every 2 ms until SIGTERM; then one line of JSON: how many
answers came; `gaps`: where none came for 4 ms or more, by the kernel's time stamps; `lost`: where datagrams in a row
were never answered, by the times when they were sent. Of each when it began (seconds since 1970) and how many ms it
lasted. In the lab's network: holdfast lab exec net -- tests/e2e/gaps.py ADDRESS"""
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

PERIOD = 0.002
LEAST = 0.004
PORT = 7
SO_TIMESTAMPNS = 35

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))  # it must not be the one that is late
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
here.settimeout(0.2)
here.connect((sys.argv[1], PORT))
done = threading.Event()
gaps, answers = [], 0
sent, answered = [], set()  # when each was sent; by number


def send():
    due = time.monotonic()
    while not done.is_set():
        try:
            here.send(struct.pack("!Q", len(sent)))
        except OSError:
            pass  # nobody answers at the moment
        sent.append(time.time())
        due = max(due + PERIOD, time.monotonic() - PERIOD)
        time.sleep(max(0.0, due - time.monotonic()))


def listen():
    global answers
    last = 0.0
    while not done.is_set():
        try:
            data, extra, _, _ = here.recvmsg(64, 64)
        except OSError:
            continue
        seconds, nanoseconds = struct.unpack("qq", extra[0][2])
        now = seconds + nanoseconds / 1e9
        if answers and now - last >= LEAST:
            gaps.append([round(last, 6), round((now - last) * 1000, 3)])
        last, answers = now, answers + 1
        answered.add(struct.unpack("!Q", data)[0])


def lost_runs():
    """The last ones may still be on their way."""
    runs, first = [], None
    for number in range(max(0, len(sent) - int(0.5 / PERIOD))):
        if number not in answered:
            first = number if first is None else first
        elif first is not None:
            runs.append([round(sent[first], 6), round((sent[number] - sent[first]) * 1000, 3)])
            first = None
    return runs


threads = [threading.Thread(target=send), threading.Thread(target=listen)]
for one in threads:
    one.start()
print("begun", flush=True)
signal.sigwait({signal.SIGTERM})
done.set()
for one in threads:
    one.join()
print(json.dumps({"answers": answers, "gaps": gaps, "lost": lost_runs()}), flush=True)
