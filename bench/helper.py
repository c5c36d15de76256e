"A process that waits for its turn, for benchmarks whose racers should not share one."

import json
import os
import subprocess
import tempfile
from pathlib import Path


class Helper:
    "A process that answers orders, one at a time, with a line of JSON each."

    def __init__(
        self, python: str, script: str, name: str, folder: Path, *more: str, **environment
    ):
        command = [python, "-W", "ignore", script, "--serve", name, "--folder", str(folder), *more]
        self.name, self.errors = name, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | environment,
        )

    def ask(self, **order) -> dict:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        self.errors.seek(0)
        said = self.errors.read()[-2000:]
        raise SystemExit(f"{self.name} stopped with status {self.process.wait()}\n{said}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
