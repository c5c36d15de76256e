"""Kernels that do not each import PyTorch: a process that has it forks them, on Linux.

A hundred notebooks spend minutes on the same imports. Names, folder and environment are those of a fresh
kernel; only that `import torch` takes no time, and that its modules are loaded before somebody asks for them.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from typing import Any

from jupyter_client.manager import AsyncKernelManager

PROGRAM = """
import json, os, signal, sys

os.environ["JPY_PARENT_PID"] = str(os.getpid())  # a kernel ends when this process is gone
import numpy, torch  # what nearly every notebook imports
import ipykernel.kernelapp, ipykernel.ipkernel, ipykernel.zmqshell

def ended(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass

signal.signal(signal.SIGCHLD, ended)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0: break
    print(child, flush=True)
else:
    raise SystemExit

signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.setsid()
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.environ.clear()
os.environ.update(order["env"] | {"JPY_PARENT_PID": str(os.getppid())})
os.chdir(order["cwd"])
sys.argv = order["argv"]
numpy.random.seed()
del child, line, order
ipykernel.kernelapp.launch_new_instance()
"""


@cache
def parent() -> subprocess.Popen:
    "The process that forks kernels, one for each process that asks."
    pipe = subprocess.PIPE
    found = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, text=True)
    atexit.register(found.stdin.close)  # then it ends
    return found


class Forked:
    "A kernel that was forked, with what a manager of kernels asks of a `Popen`."

    stdin = stdout = stderr = returncode = None

    def __init__(self, argv: list[str], env: dict[str, str], cwd: str):
        order = {"argv": argv, "env": env, "cwd": cwd}
        parent().stdin.write(json.dumps(order) + "\n")
        parent().stdin.flush()
        self.pid = int(parent().stdout.readline())

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                self.returncode = 0  # how it ended is not known here
        return self.returncode

    def wait(self, timeout: float = 60) -> int | None:
        stop = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < stop:
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkingManager(AsyncKernelManager):
    "Starts its kernel by a fork of `parent`."

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        argv = kernel_cmd[kernel_cmd.index("ipykernel_launcher") :]
        process = Forked(argv, dict(kw["env"]), str(kw["cwd"]))
        one = self.provisioner
        one.process, one.pid, one.pgid, one.cwd = process, process.pid, process.pid, kw["cwd"]
        self._reconcile_connection_info(one.connection_info)
