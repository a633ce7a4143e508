#!/usr/bin/env python3
"""stream.py ADDRESS: keeps one TCP connection to the echo service of a guest busy and sends it a datagram every 10 ms,
until its input ends; then one line of JSON: whether the connection held, the longest time without an answer, and how
many datagrams in a row were lost at most. Runs in the lab's network:
holdfast lab exec net -- tests/e2e/stream.py ..."""
import json
import socket
import struct
import sys
import threading
import time

PERIOD = 0.01
PORT = 7
PATIENCE = 60  # seconds: TCP itself gives up later

address = sys.argv[1]
done = threading.Event()
result = {"tcp": "held", "answers": 0, "longest_ms": 0, "sent": 0, "lost": 0, "lost_in_a_row": 0}


def stream():
    connection = socket.create_connection((address, PORT), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = 0
    while not done.is_set():
        number += 1
        begin = time.monotonic()
        connection.sendall(struct.pack("!Q", number))
        got = b""
        while len(got) < 8:
            part = connection.recv(8 - len(got))
            if not part:
                raise OSError("the guest closed it")
            got += part
        if struct.unpack("!Q", got)[0] != number:
            raise OSError("the guest sent something else back")
        took = time.monotonic() - begin
        result["answers"] = number
        result["longest_ms"] = max(result["longest_ms"], round(took * 1000, 1))
        time.sleep(max(0.0, PERIOD - took))


def keep_stream():
    try:
        stream()
    except OSError as error:
        result["tcp"] = f"broken: {error}"


def datagrams():
    """Counts as `ping -i 0.01` does: an answer that comes late is an answer."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.connect((address, PORT))
    here.settimeout(1)
    seen = set()

    def listen():
        while not done.is_set():
            try:
                seen.add(struct.unpack("!Q", here.recv(8))[0])
            except OSError:
                pass

    listener = threading.Thread(target=listen)
    listener.start()
    number = 0
    while not done.is_set():
        try:
            here.send(struct.pack("!Q", number))
        except OSError:
            pass
        number += 1
        time.sleep(PERIOD)
    listener.join()
    row = 0
    for each in range(number - 5):  # the last ones may still be on their way
        row = 0 if each in seen else row + 1
        result["lost_in_a_row"] = max(result["lost_in_a_row"], row)
        result["lost"] += each not in seen
    result["sent"] = number


threads = [threading.Thread(target=keep_stream), threading.Thread(target=datagrams)]
for one in threads:
    one.start()
print("begun", flush=True)
sys.stdin.read()
done.set()
for one in threads:
    one.join()
print(json.dumps(result), flush=True)
