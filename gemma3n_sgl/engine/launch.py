"""How an engine is started: its command line and its environment, as data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from gemma3n_sgl.engine.choice import Choice

HOST = "127.0.0.1"
"""An engine trusts whoever reaches it: so that is this machine alone."""

CPU_MENDS = Path(__file__).parent / "cpu"

_CPU_FLAGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--mm-attention-backend", "sdpa", "--sampling-backend", "pytorch"),
    *("--disable-cuda-graph", "--disable-overlap-schedule"),
    "--sleep-on-idle",  # without it an idle scheduler burns a core
    *("--max-total-tokens", "16384", "--max-running-requests", "8", "--chunked-prefill-size", "4096", "--mem-fraction-static", "0.5"),
)
_SECRET = re.compile(r"(^|_)(KEYS?|TOKENS?|SECRETS?|PASS|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
_HUB_LOGIN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def command(choice: Choice, port: int, venv: Path) -> list[str]:
    """The command line of an engine on 127.0.0.1:`port`."""
    flags = ["--model-path", choice.model, "--served-model-name", choice.name, "--host", HOST, "--port", str(port)]
    flags.append("--incremental-streaming-output")  # else every event repeats the whole text so far
    if choice.sampling:
        flags += ["--preferred-sampling-params", json.dumps(choice.sampling)]
    if choice.device == "cpu":
        flags += _CPU_FLAGS
    if choice.is_demo:
        flags += ["--dtype", "float32"]  # a CPU is slow in the checkpoint's bfloat16
    return [str(python(venv)), "-m", "sglang.launch_server", *flags]


def environment(choice: Choice, environ: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: the caller's, without its secrets (the hub's login stays where a model may have to be fetched)."""
    env = plain(environ) | {"GLOO_SOCKET_IFNAME": "lo"}  # else it listens where this machine's name leads to
    if not Path(choice.model).is_dir():
        env |= {name: environ[name] for name in _HUB_LOGIN if name in environ}
    if choice.is_demo:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if choice.device == "cpu":
        env |= {
            "PYTHONPATH": str(CPU_MENDS),
            "SGLANG_USE_CPU_ENGINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "false",
            "TORCHDYNAMO_DISABLE": "1",  # penalties are compiled otherwise: 4-15 s at their first use
            "OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", "1"),  # two threads on two cores fight the HTTP process: nine times slower
        }
    return env


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for a Python of its own, without secrets; loopback is never asked of a proxy."""
    env = {
        name: value
        for name, value in environ.items()
        if not name.startswith("GEMMA3N_") and name not in _OF_THIS_PYTHON and not _SECRET.search(name)
    }
    env["NO_PROXY"] = env["no_proxy"] = ",".join(filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), HOST, "localhost")))
    return env


def python(venv: Path) -> Path:
    return venv.absolute() / "bin" / "python"
