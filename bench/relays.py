"""What stands between clients and an engine, each as a process to be measured: our server, the bare pass-through, and peers from the registries.

Each is a context manager that takes the engine's port and gives its own port and process. Peers live in environments of their own under build/peers,
made at first use with `uv`; nothing of them is a dependency of ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from subprocess import Popen

from processes import HERE, free_port, gemma3n_serve, running

Relay = Callable[[int], AbstractContextManager[tuple[int, Popen[bytes]]]]

PEERS = HERE.parent / "build" / "peers"

LITELLM = """
model_list:
  - model_name: gemma-3n
    litellm_params: {{model: openai/paced, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
"""

HAYHOOKS = """
from hayhooks import BasePipelineWrapper, async_streaming_generator
from haystack import Pipeline
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

class PipelineWrapper(BasePipelineWrapper):
    def setup(self):
        self.pipeline = Pipeline()
        llm = OpenAIChatGenerator(model="paced", api_base_url="http://127.0.0.1:{engine}/v1", api_key=Secret.from_token("none"))
        self.pipeline.add_component("llm", llm)

    async def run_chat_completion_async(self, model, messages, body):
        asked = [ChatMessage.from_user(messages[-1]["content"])]
        return async_streaming_generator(pipeline=self.pipeline, pipeline_run_args={{"llm": {{"messages": asked}}}})
"""


def environment(name: str, *packages: str) -> Path:
    """The folder of commands of an environment with these packages, made if need be."""
    folder = PEERS / name
    whole = folder / ".whole"
    if not whole.exists() or whole.read_text() != " ".join(packages):
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", "--python", "3.11", str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *packages], check=True)
        whole.write_text(" ".join(packages))
    return folder / "bin"


@contextmanager
def script(name: str, engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    """A relay of this folder, in our own environment."""
    port = free_port()
    with running([sys.executable, str(HERE / name), str(port), str(engine)], f"http://127.0.0.1:{port}/health") as process:
        yield port, process


def pass_through(engine: int) -> AbstractContextManager[tuple[int, Popen[bytes]]]:
    return script("pass_through.py", engine)


def stock(engine: int) -> AbstractContextManager[tuple[int, Popen[bytes]]]:
    return script("stock_frontend.py", engine)


@contextmanager
def router(engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    """sglang-router, a pass-through in Rust."""
    python, port = environment("sglang-router", "sglang-router==0.3.2") / "python", free_port()
    flags = {
        "host": "127.0.0.1",
        "port": port,
        "worker-urls": f"http://127.0.0.1:{engine}",
        "prometheus-port": free_port(),
        "log-level": "error",
        "max-concurrent-requests": 4096,
    }
    command = [str(python), "-m", "sglang_router.launch_router", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
    with running(command, f"http://127.0.0.1:{port}/readiness", quiet=True) as process:
        yield port, process


@contextmanager
def litellm(engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    """LiteLLM's proxy, one worker, without a database or a key."""
    command, port = environment("litellm", "litellm[proxy]==1.106.2") / "litellm", free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(LITELLM.format(engine=engine))
        flags = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        environ = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
        with running([str(command), *flags], f"http://127.0.0.1:{port}/health/liveliness", environ, quiet=True) as process:
            yield port, process


@contextmanager
def hayhooks(engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    """Haystack's server with a pipeline of one generator, streamed asynchronously."""
    command, port = environment("hayhooks", "hayhooks==2.1.0", "haystack-ai==3.4.0") / "hayhooks", free_port()
    with tempfile.TemporaryDirectory() as folder:
        wrapper = Path(folder, "gemma-3n", "pipeline_wrapper.py")
        wrapper.parent.mkdir()
        wrapper.write_text(HAYHOOKS.format(engine=engine))
        flags = ["run", "--host", "127.0.0.1", "--port", str(port), "--pipelines-dir", folder]
        with running([str(command), *flags], f"http://127.0.0.1:{port}/status", {"HAYSTACK_TELEMETRY_ENABLED": "False"}, quiet=True) as process:
            yield port, process


RELAYS: dict[str, tuple[Relay, bool]] = {
    "gemma3n, cumulative": (gemma3n_serve, False),
    "gemma3n, incremental": (gemma3n_serve, True),
    "bare pass-through": (pass_through, True),
    "sglang-router": (router, True),
    "stock frontend": (stock, False),
    "Hayhooks": (hayhooks, True),
    "LiteLLM": (litellm, True),
}
"""Every relay by name, and whether the engine before which it is measured sends only what is new."""
