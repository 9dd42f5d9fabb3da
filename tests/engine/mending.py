"""Run by the engine's own Python, with the stand-ins on its path: what each of them is for, tried `with` it or `without` it.

Prints one JSON object: for each stand-in what went wrong, "" where nothing did, and whether torch is the CUDA build.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import sitecustomize
import torch

KERNELS = "sgl_kernel"
SIZES = [256, 256]


def intermediate_sizes() -> str:
    module = importlib.import_module("sglang.srt.configs.update_config")
    config = SimpleNamespace(hf_config=SimpleNamespace(text_config=SimpleNamespace(intermediate_size=SIZES)))
    module.update_intermediate_size(config, "intermediate_size", 16)
    return "" if config.hf_config.text_config.intermediate_size == SIZES else "changed"


def queries() -> str:
    module = importlib.import_module("sglang.srt.layers.attention.torch_native_backend")

    class Backend(module.TorchNativeAttnBackend):
        token_to_kv_pool = SimpleNamespace(get_key_buffer=lambda _: None, get_value_buffer=lambda _: None)
        req_to_token_pool = SimpleNamespace(req_to_token=None)

        def __init__(self) -> None:
            """Without the pools that a whole engine would give it."""

        def _run_sdpa_forward_extend(self, q: torch.Tensor, o: torch.Tensor, *_: object, **__: object) -> None:
            o.copy_(q)

    heads, size = 4, 32
    layer = SimpleNamespace(
        qk_head_dim=size, v_head_dim=size, tp_q_head_num=heads, tp_k_head_num=heads, layer_id=0, scaling=1.0, is_cross_attention=False
    )
    layer.attn_type, layer.sliding_window_size = None, None
    batch = SimpleNamespace(
        out_cache_loc=None, req_pool_indices=None, seq_lens=None, extend_prefix_lens=None, extend_seq_lens=None, encoder_lens=None
    )
    q = torch.rand(3, heads, size)
    out = Backend().forward_extend(q, None, None, layer, batch, save_kv_cache=False)
    return "" if out.shape == (3, heads * size) else f"an output of {out.dim()} dimensions"


def store() -> str:
    module = importlib.import_module("torch.distributed.rendezvous")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept, *_ = next(module.rendezvous(f"tcp://127.0.0.1:{port}", rank=0, world_size=1))
    kept.set("key", "value")
    addresses = {connection.laddr.ip for connection in psutil.Process().net_connections("tcp") if connection.laddr.port == port}
    return "" if addresses == {"127.0.0.1"} else f"reachable at {sorted(addresses)}"


def imported(name: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(name)
        return ""

    return check


CASES = {
    "torch.distributed.rendezvous": store,
    "torchvision.extension": imported("torchvision"),
    "torchaudio._extension.utils": imported("torchaudio"),
    "sglang.srt.configs.update_config": intermediate_sizes,
    "sglang.srt.layers.attention.torch_native_backend": queries,
    KERNELS: imported("sglang.kernels.ops.kvcache.cache_move"),
}


def outcome(case: Callable[[], str]) -> str:
    try:
        return case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def without(name: str) -> str:
    """What becomes of a case without its stand-in, which is there again afterwards, for what the next case imports."""
    if name == KERNELS:
        sys.modules.pop("sglang.kernels.ops.kvcache.cache_move", None)
        sys.modules[KERNELS] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
        return outcome(CASES[name])
    mend = sitecustomize.MENDS[name]
    sitecustomize.MENDS[name] = lambda module: None
    for module in [module for module in sys.modules if module == name]:
        del sys.modules[module]
    found = outcome(CASES[name])
    sitecustomize.MENDS[name] = mend
    package = name.partition(".")[0]
    if package in ("torchvision", "torchaudio"):
        for module in [module for module in sys.modules if module.partition(".")[0] == package]:
            del sys.modules[module]  # half imported; others need it whole
    return found


if __name__ == "__main__":
    results = {name: outcome(case) if sys.argv[1] == "with" else without(name) for name, case in CASES.items()}
    print(json.dumps({"results": results, "mends": sorted(sitecustomize.MENDS), "cuda": torch.version.cuda is not None}))
