"""What to run: the device, the model, and the name it is served under."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gemma3n_sgl.errors import SettingsError

Device = Literal["cpu", "gpu"]

SGLANG_VERSION = "0.5.23"
DEMO = Path(__file__).parent / "demo"
"""A small checkpoint of Gemma 3n's own architecture, which runs on a CPU; its README says what it knows."""
DEMO_NAME = "gemma-3n-demo"
GPU_MODEL = "google/gemma-3n-E4B-it"

_NVIDIA = ("/dev/nvidiactl", "/dev/dxg")
"""What the driver shows: on Linux, and under Windows' subsystem for Linux."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What generation_config.json and SGLang both know, by the same name; in the file, 0 turns one off."""


@dataclass(frozen=True)
class Choice:
    """A model on a device. `model` is a folder or a name on the Hugging Face hub; `name` is what clients call it, never a path."""

    device: Device
    model: str
    name: str

    @property
    def is_demo(self) -> bool:
        return self.model == str(DEMO)

    @property
    def sampling(self) -> Mapping[str, float]:
        """What the checkpoint's generation_config.json says of sampling, in SGLang's words; {} where it is silent, or not at hand."""
        try:
            config = json.loads((Path(self.model) / "generation_config.json").read_text())
        except FileNotFoundError:
            return {}
        if config.get("do_sample") is False:
            return {"temperature": 0}
        return {key: config[key] for key in _SAMPLING if config.get(key)}


def choose(device: Device | None = None, model: str | None = None, name: str | None = None) -> Choice:
    """The device that is there, the model that fits it, the last part of the model's name; each unless told otherwise.

    SettingsError for a folder that holds no model, and for a name that is a path.
    """
    device = device or detect()
    if model is None:
        model = GPU_MODEL if device == "gpu" else str(DEMO)
    elif model.startswith(("/", ".", "~")) or Path(model).is_dir():
        folder = Path(model).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise SettingsError(f"{model} holds no model (no config.json). Give a checkpoint's folder, or a name such as {GPU_MODEL}.")
        model = str(folder)
    name = name or (DEMO_NAME if model == str(DEMO) else model.rstrip("/").rpartition("/")[2])
    if name.startswith(("/", ".", "~")):
        raise SettingsError(f"{name!r} looks like a path, and clients would see it. Serve the model under a name such as {DEMO_NAME}.")
    return Choice(device, model, name)


def detect(nvidia: tuple[str, ...] = _NVIDIA) -> Device:
    """The GPU, where an nvidia device is present."""
    return "gpu" if any(Path(path).exists() for path in nvidia) else "cpu"
