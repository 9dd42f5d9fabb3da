"""Write a trained model as the engine takes it.

python -m demo_model.export RUNS FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo_model import checkpoint, mind
from demo_model.speaking import loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    wanted = parser.parse_args()
    model = checkpoint.built(0)
    loaded(model, wanted.runs, "talk")
    checkpoint.write(model.eval(), mind.vocabulary(wanted.runs).made, wanted.folder)
    print(sum(weight.numel() for weight in model.parameters()), "parameters,", (wanted.folder / "model.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
