#!/usr/bin/env python3
"""timeline.py LAB HOST: cuts the power of a host and prints what happens, as it happens, with a summary. For ./demo."""
import os
import sys

import lab as e2e
from measure import Failure, address_of

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def painted(text):
    if not COLOUR:
        return text
    colour = 31 if "power" in text or "dead" in text or "not answer" in text else 32 if "answers" in text else 0
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def report(seconds, text):
    if text.startswith("power of"):
        text = f"the power of {text.split()[-1]} is cut"
    print(f"  T+{seconds:5.1f} s  {painted(text)}", flush=True)


def summary(failure):
    rows = [("VM", "now on", "restart issued", "QEMU runs", "answers again")]
    for name in sorted(failure.vms, key=failure.answers.get):
        times = (failure.issued.get(name), failure.runs.get(name), failure.answers[name])
        rows.append((name, failure.where.get(name, ""), *(f"{t:.1f} s" if t is not None else "-" for t in times)))
    print()
    for row in rows:
        print(f"  {row[0]:<8} {row[1]:<8}" + "".join(f"{cell:>16}" for cell in row[2:]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    the_lab = e2e.Lab(sys.argv[1])
    the_lab.wait_up(*(name for name, vm in the_lab.vms().items() if address_of(vm) and vm["desired"] == "running"))
    summary(Failure(the_lab, sys.argv[2], "power", report).measure())
