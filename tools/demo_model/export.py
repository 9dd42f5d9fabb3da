"""Write a trained model as the engine takes it; or back, as what a training goes on from.

python -m demo_model.export RUNS FOLDER [--back]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from demo_model import checkpoint, mind
from demo_model.speaking import loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--back", action="store_true")
    wanted = parser.parse_args()
    if wanted.back:
        back(wanted.folder, wanted.runs)
        return
    model = checkpoint.built(0)
    loaded(model, wanted.runs, "talk")
    checkpoint.write(model.eval(), mind.vocabulary(wanted.runs).made, wanted.folder)
    print(sum(weight.numel() for weight in model.parameters()), "parameters,", (wanted.folder / "model.safetensors").stat().st_size, "bytes")


def back(folder: Path, runs: Path) -> None:
    """The results of all stages, as they would lie in `runs`, from a model in `folder`."""
    weights = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    for stage in ("see", "hear", "talk"):
        torch.save({"model": weights}, runs / f"{stage}.pt")
    shutil.copy(folder / "tokenizer.json", runs / "tokenizer.json")


if __name__ == "__main__":
    main()
