"""Mends of SGLang 0.5.23 and its companions for the CPU, applied when the module each is for gets imported.

Python runs this file at the start of every process that has its folder on PYTHONPATH, the engine's children among them; so nothing heavy
is imported here. A mend changes nothing where upstream already does what it is for.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

Mend = Callable[[Any], None]

MENDS: dict[str, Mend] = {}
"""Module name → what to do with that module once its own code has run."""


def mend(name: str) -> Callable[[Mend], Mend]:
    """Have the function called with module `name` after its import."""

    def register(function: Mend) -> Mend:
        MENDS[name] = function
        return function

    return register


@mend("sglang.srt.configs.update_config")
def list_of_intermediate_sizes(module: Any) -> None:
    """sglang/srt/configs/update_config.py:188 takes `intermediate_size` modulo a padding; Gemma 3n's is a list, a size per layer."""
    original = module.update_intermediate_size

    def update_intermediate_size(model_config: Any, attr_name: str, padding: int) -> Any:
        config = getattr(model_config, "hf_config", model_config)
        config = getattr(config, "text_config", config)
        if isinstance(getattr(config, attr_name, None), list | tuple):
            return model_config
        return original(model_config, attr_name, padding)

    module.update_intermediate_size = update_intermediate_size


@mend("sglang.srt.layers.attention.torch_native_backend")
def flat_queries(module: Any) -> None:
    """sglang/srt/layers/attention/torch_native_backend.py:291 shapes its output like the query.

    Gemma 3n's query is [tokens, heads, head_dim] (sglang/srt/models/gemma3n_causal.py:487), and o_proj can't take three dimensions;
    `forward_decode` flattens the query (line 349), `forward_extend` does not.
    """
    backend = module.TorchNativeAttnBackend
    original = backend.forward_extend

    def forward_extend(self: Any, q: Any, k: Any, v: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, q.reshape(-1, layer.tp_q_head_num * layer.qk_head_dim), k, v, layer, *args, **kwargs)

    backend.forward_extend = forward_extend


@mend("torch.distributed.rendezvous")
def store_on_loopback(module: Any) -> None:
    """torch/distributed/rendezvous.py:199 (2.13.0) makes a store that listens on every interface, whatever host it is told.

    Whoever reaches it can write into it; on 127.0.0.1 that is this machine alone.
    """
    original = module.TCPStore

    def tcp_store(*, host_name: str, port: int, is_master: bool | None = None, **options: Any) -> Any:
        if is_master and host_name == "127.0.0.1":
            options["master_listen_fd"] = socket.create_server((host_name, port)).detach()
        return original(host_name=host_name, port=port, is_master=is_master, **options)

    module.TCPStore = tcp_store


@mend("torchvision.extension")
def operators_of_torchvision(module: Any) -> None:
    """torchvision/_meta_registrations.py:163 and :177 (0.28.0) want the operators nms and qnms registered.

    They are in torchvision's C extension, which PyPI has linked against CUDA: beside a CPU torch it can't be loaded. Declaring the two is
    enough; what the engine uses of torchvision is plain torch.
    """
    if module._has_ops():
        return
    module.gemma3n_library = module.torch.library.Library("torchvision", "FRAGMENT")  # the declarations live as long as this object
    for name in ("nms", "qnms"):
        module.gemma3n_library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@mend("torchaudio._extension.utils")
def extension_of_torchaudio(module: Any) -> None:
    """torchaudio/_extension/utils.py:56 (2.11.0) loads an extension that PyPI has linked against CUDA, and an OSError ends the import.

    Without it torchaudio's functional part, which is plain torch, still works: "not there" is an answer upstream understands.
    """
    original = module._load_lib

    def load_lib(lib: str) -> bool:
        try:
            return bool(original(lib))
        except OSError:
            return False

    module._load_lib = load_lib


class MendingLoader(SourceFileLoader):
    """Runs a module's own code, then its mend."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        MENDS[module.__name__](module)


class MendingFinder(MetaPathFinder):
    """Finds the modules that have a mend, where Python's own finder finds them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MENDS or (spec := PathFinder.find_spec(name, path, target)) is None or spec.origin is None:
            return None
        spec.loader = MendingLoader(name, spec.origin)
        return spec


sys.meta_path.insert(0, MendingFinder())
