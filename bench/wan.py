#!/usr/bin/env python3
"""wan.py LAB HOST NETWORK: makes the link of a host of a lab to one of its networks a long one: 50 ms there and back,
and 0.1 % of the frames are lost, each way. For kernels without netem. It takes the place of the host's cable: one TAP
in the host instead of its interface, one on the network's bridge, this program between them. Until it ends."""
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

ONE_WAY = 0.025
LOSS = 0.001
QUEUE_MAX = 2000  # frames under way each way: what a router would hold; more are lost
TUNSETIFF, IFF_TAP_NO_PI = 0x400454CA, 0x1002


def ip(space, *words):
    return subprocess.run(["ip", "-n", space, "-j", *words], check=True, capture_output=True, text=True).stdout


def tap(space, name):
    """A TAP of this process in a network namespace."""
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{space}") as other:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(other.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
        assert libc.setns(own.fileno(), 0) == 0
    return fd


def build(lab, host, network):
    inside, switch, name = f"hf-{lab}-{host}", f"hf-{lab}-net", f"{network}0"
    here = next(link for link in json.loads(ip(inside, "address", "show", name)))
    address = next(f"{a['local']}/{a['prefixlen']}" for a in here["addr_info"] if a["family"] == "inet")
    ip(inside, "link", "delete", name)
    ends = tap(inside, name), tap(switch, f"wan-{network}")
    ip(inside, "link", "set", name, "address", here["address"])
    ip(inside, "address", "add", address, "dev", name)
    ip(inside, "link", "set", name, "up")
    ip(switch, "link", "set", f"wan-{network}", "master", network)
    ip(switch, "link", "set", f"wan-{network}", "up")
    return ends


def relay(ends):
    """Frames wait in two heaps by the time when they are due; the counter keeps equals in order."""
    queues, count = {ends[0]: [], ends[1]: []}, 0
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while True:
        now = time.monotonic()
        due = [queue[0][0] for queue in queues.values() if queue]
        ready, _, _ = select.select(ends, [], [], max(0.0, min(due) - now) if due else None)
        now = time.monotonic()
        for end in ready:
            for _ in range(64):
                try:
                    frame = os.read(end, 65536)
                except BlockingIOError:
                    break
                if random.random() >= LOSS and len(queues[end]) < QUEUE_MAX:
                    count += 1
                    heapq.heappush(queues[end], (now + ONE_WAY, count, frame))
        for end, queue in queues.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(other[end], heapq.heappop(queue)[2])
                except OSError:
                    pass  # that side is down


if __name__ == "__main__":
    both = build(*sys.argv[1:4])
    print("begun", flush=True)
    relay(both)
