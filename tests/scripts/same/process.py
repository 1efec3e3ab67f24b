"""What a script may ask of the process that it runs in, and what it may leave for its end."""

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import threading

import torch
from digest import show


class Point:
    def __init__(self, x):
        self.x = x


def double(point):
    return Point(2 * point.x), torch.initial_seed() >= 0, __name__


def handle(number, frame):
    print("signal", number, frame.f_code.co_name)


def main():
    print(__name__, sys.argv, os.path.basename(__file__), sys.modules["__main__"].__dict__ is globals(), __spec__)
    print(pickle.loads(pickle.dumps(Point(3))).x, Point.__module__, sys.path[0] == os.path.dirname(__file__))
    print(sorted(thread.name for thread in threading.enumerate()), threading.current_thread().name)
    print([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)])
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.excepthook is sys.__excepthook__)
    print(torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), sys.getrecursionlimit())
    atexit.register(print, "registered first, runs last", file=sys.stderr)
    atexit.register(print, "registered last, runs first", file=sys.stderr)
    signal.signal(signal.SIGUSR1, handle)
    os.kill(os.getpid(), signal.SIGUSR1)
    for start in ("fork", "spawn"):
        with multiprocessing.get_context(start).Pool(1) as pool:
            point, seeded, name = pool.apply(double, (Point(4),))
            print(start, point.x, seeded, name, isinstance(point, Point))
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.nn.Linear(2, 2)(torch.ones(1, 2)).shape), name="mine")
    thread.start()
    thread.join()
    print(found)
    show()


if __name__ == "__main__":
    main()
