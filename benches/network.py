#!/usr/bin/env python3
"""Connects network namespaces h1, h2, … by a switch with a delay, loss and a rate (Linux, root).

usage: network.py COUNT DELAY_MS LOSS_PERCENT RATE_GBIT

The hosts have the addresses 10.9.0.1, 10.9.0.2, … `ip netns exec h1 COMMAND` runs on one.
benches/results/2026-11-30-ranks.md has the commands that train on them.
"""
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

MTU = 9000
SET_INTERFACE, TUN, NO_HEADER = 0x400454CA, 0x0001, 0x1000


def run(line):
    subprocess.run(line.split(), check=True)


def host(number):
    """Makes a namespace. Returns the file with the packets that it sends."""
    subprocess.run(["ip", "netns", "del", f"h{number}"], stderr=subprocess.DEVNULL)
    run(f"ip netns add h{number}")
    cable = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"cable{number}"
    fcntl.ioctl(cable, SET_INTERFACE, struct.pack("16sH", name.encode(), TUN | NO_HEADER))
    run(f"ip link set {name} netns h{number}")
    run(f"ip -n h{number} link set lo up")
    run(f"ip -n h{number} addr add 10.9.0.{number}/24 dev {name}")
    run(f"ip -n h{number} link set {name} mtu {MTU} up")
    return cable


def main():
    count = int(sys.argv[1])
    delay, loss, rate = (float(word) for word in sys.argv[2:5])
    cables = [host(number + 1) for number in range(count)]
    print("ready", flush=True)
    # Packets on their way: time of arrival, a number, the host, and the bytes.
    queue, number, free = [], 0, [0.0] * count
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, to, packet = heapq.heappop(queue)
            try:
                os.write(cables[to], packet)
            except BlockingIOError:
                pass
        wait = max(0.0, queue[0][0] - now) if queue else 1.0
        for cable in select.select(cables, [], [], wait)[0]:
            source = cables.index(cable)
            for _ in range(64):
                try:
                    packet = os.read(cable, 65536)
                except BlockingIOError:
                    break
                to = packet[19] - 1
                known = packet[0] >> 4 == 4 and packet[16:19] == b"\x0a\x09\x00" and to < count
                if not known or random.random() < loss / 100:
                    continue
                # Packets of a host wait for its cable.
                begin = max(free[source], time.monotonic())
                free[source] = begin + len(packet) * 8 / (rate * 1e9)
                number += 1
                heapq.heappush(queue, (free[source] + delay / 1e3, number, to, packet))


main()
