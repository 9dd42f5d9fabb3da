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

_WORD = 0xFFFFFFFF

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


@mend("sglang.srt.sampling.sampling_batch_info")
def seeds_of_requests(module: Any) -> None:
    """sglang/srt/sampling/sampling_batch_info.py:157 heeds `sampling_seed` only with --enable-deterministic-inference.

    That flag refuses the one attention backend a CPU has, and gives all requests without a seed the same one. The sampler itself keeps a
    seed wherever there is one; so each request gets its own, drawn anew where it names none.
    """
    info, torch = module.SamplingBatchInfo, module.torch
    original = info.from_schedule_batch.__func__

    def from_schedule_batch(cls: Any, batch: Any, vocab_size: int) -> Any:
        made = original(cls, batch, vocab_size)
        if made.sampling_seed is None:
            drawn = torch.randint(2**62, (len(batch.reqs),), dtype=torch.int64).tolist()
            asked = [request.sampling_params.sampling_seed for request in batch.reqs]
            seeds = [random if seed is None else seed for seed, random in zip(asked, drawn, strict=True)]
            made.sampling_seed = torch.tensor(seeds, dtype=torch.int64, device=batch.device)
        return made

    info.from_schedule_batch = classmethod(from_schedule_batch)


@mend("sglang.srt.layers.sampler")
def sampling_with_seeds(module: Any) -> None:
    """sglang/srt/layers/sampler.py:958 hashes seeds in a kernel of `sgl_kernel`, and :826 asserts that no request has a seed where one has
    `min_p`; the scheduler dies of either.

    The same hash (MurmurHash3 of seed, position and column; sglang/kernels/ops/sampling/murmur_hash.py:70) is plain torch here. The assertion
    doubts sampling from weights that do not sum to 1; but Gumbel's maximum does not depend on their sum: what `min_p` leaves out is left
    out before.
    """

    def rotated(x: Any, bits: int) -> Any:
        return ((x << bits) | (x >> (32 - bits))) & _WORD

    def hash32(seed: Any, positions: Any, columns: Any) -> Any:
        seed, hashed = seed.view(module.torch.int64), 0
        for block in (seed[:, None] & _WORD, seed[:, None] >> 32 & _WORD, positions[:, None].long(), columns[None, :].long()):
            hashed = hashed ^ (rotated(block * 0xCC9E2D51 & _WORD, 15) * 0x1B873593 & _WORD)
            hashed = (rotated(hashed, 13) * 5 + 0xE6546B64) & _WORD
        hashed = hashed ^ 16
        hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & _WORD
        hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & _WORD
        return hashed ^ hashed >> 16

    module.murmur_hash32 = hash32
    original = module.top_k_top_p_min_p_sampling_from_probs_torch

    def sample(probs: Any, top_ks: Any, top_ps: Any, min_ps: Any, need_min_p: bool, seed: Any, *args: Any, **kwargs: Any) -> Any:
        if need_min_p and seed is not None:
            likeliest = probs.max(dim=-1, keepdim=True).values
            probs, need_min_p = probs.masked_fill(probs < likeliest * min_ps.view(-1, 1), 0.0), False
        return original(probs, top_ks, top_ps, min_ps, need_min_p, seed, *args, **kwargs)

    module.top_k_top_p_min_p_sampling_from_probs_torch = sample


@mend("sglang.srt.constrained.xgrammar_backend")
def masks_of_one_grammar_alone(module: Any) -> None:
    """sglang/srt/constrained/xgrammar_backend.py:246 has xgrammar 0.2.7 keep the token masks of rules for other grammars, with which it takes
    rules for the same that are not: after some hundred schemas, a call's arguments could end within a string. SGLang itself keeps whole grammars."""
    original = module.GrammarCompiler

    def compiler(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs | {"cache_enabled": False})

    module.GrammarCompiler = compiler


@mend("sglang.srt.models.gemma3n_mm")
def clips_of_any_lengths(module: Any) -> None:
    """sglang/srt/models/gemma3n_mm.py:353 puts all clips that are prefilled together, whoever sent them, into one tensor.

    The scheduler dies where they differ in length. Each item's are filled up to the same count of soft tokens before they are joined here.
    """
    model = module.Gemma3nForConditionalGeneration
    original = model.get_audio_feature

    def get_audio_feature(self: Any, items: Sequence[Any]) -> Any:
        return module.torch.cat([original(self, [item]) for item in items]) if items else original(self, items)

    model.get_audio_feature = get_audio_feature


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
