"""Starting a command under the guard, which leaves nothing of it behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GUARD = Path(__file__).parent / "guard.py"


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], log: IO[bytes], attended: bool = True, keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, its output in `log`; the process returned is its guard, whose pid SIGTERM ends both.

    `attended`: the command ends with this process. `keep`: file descriptors that stay open as long as the guard lives.
    """
    guarded = [sys.executable, "-I", str(_GUARD), str(os.getpid() if attended else 0), *command]
    return subprocess.Popen(guarded, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=keep)
