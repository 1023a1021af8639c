"""`station bench simplenet` on networks so small that only its form counts, as one JSON line.

A process of its own: pylon and OpenVINO loaded together end a process at the next signal. The
station never has both in one either.
"""

import json
import sys

from station import openvino_runtime
from station.bench.simplenet import Setting, bench_simplenet

SMALL = Setting("resnet18", 64, features=48, hidden=16, embedded="resnet18", embedded_side=64)

if __name__ == "__main__":
    if "--without-openvino" in sys.argv:
        openvino_runtime.installed = lambda: False
    sys.stdout.write(json.dumps(bench_simplenet(1, SMALL)) + "\n")
