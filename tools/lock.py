"""Write requirements.lock: one set of pins for every supported Python and system, from settings.ini's ranges.

python tools/lock.py
"""

from environment import ROOT, call, find_uv
from lessons import settings

if __name__ == "__main__":
    low = settings()["min_python"]
    options = ["--universal", "--python-version", low, "--all-extras", "--no-emit-index-url"]
    note = ["--quiet", "--upgrade", "--custom-compile-command", "make lock"]
    call(
        find_uv(),
        "pip",
        "compile",
        *options,
        *note,
        "pyproject.toml",
        "-o",
        ROOT / "requirements.lock",
    )
