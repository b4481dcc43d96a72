"""Test what ``gapless export --format py,onnx,torch`` wrote, in Pythons that cannot import Gapless.

    python results/run_exported.py --data CIFAR10_FOLDER --size 16 EXPORTED_FOLDER ...

Prints for each folder the accuracy on all test images of model.py, model.onnx and model.pt2, and that of its training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from gapless.data import load

ALONE = """
import sys
sys.modules["gapless"] = None
folder, images = sys.argv[1:]
sys.path.insert(0, folder)
import model, numpy as np, onnxruntime, torch
stored = np.load(images)
labels = torch.from_numpy(stored["labels"])
mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (model.MEAN, model.STD))
batches = [(x.float() / 255 - mean) / std for x in torch.from_numpy(stored["pixels"]).split(500)]
onnx = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
networks = {
    "py": model.load(),
    "onnx": lambda x: torch.from_numpy(onnx.run(None, {"images": x.numpy()})[0]),
    "torch": torch.export.load(folder + "/model.pt2").module(),
}
with torch.inference_mode():
    for name, network in networks.items():
        right = torch.cat([network(x).argmax(1) for x in batches]) == labels
        print(name, f"{100 * right.double().mean():.2f} %", end="  ")
"""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, required=True)
    given = parser.parse_args()
    test = load(given.data, size=given.size).test
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images.npz"
        np.savez(images, pixels=test.pixels.numpy(), labels=test.labels.numpy())
        for folder in given.folders:
            command = [sys.executable, "-I", "-c", ALONE, str(folder.resolve()), str(images)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            training = json.loads((folder / "model.json").read_text(encoding="utf-8"))["accuracy"]
            print(f"{folder}: {told}training {training:.2f} %")


if __name__ == "__main__":
    main()
