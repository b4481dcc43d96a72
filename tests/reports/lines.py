"""Lines of a trace and other contents of a run folder, whole, with what a test does not care for filled in."""

import json

ALONE = {"params": 77, "macs": 5, "start": "fresh"}
MACHINE = {
    "gapless": "0.1.0", "python": "3.11", "torch": "2.13.0", "system": "a system", "processor": "a processor",
    "instructions": "", "cores": 2, "threads": 1, "gpu": None,
}  # fmt: skip
RESULT = {
    "run": None, "arch": "a=b", "notation": "a=b", "params": 77, "macs": 5, "test_accuracy": 50.0, "test_images": 10,
    "interval_95": [40.0, 60.0], "test_loss": 1.0, "epochs": 1, "seconds": 1.0, "peak_memory_mb": 9.0,
}  # fmt: skip
SEARCH = {
    "epoch": 0, "stage": 0, "lr": 0.1, "train_loss": 2.0, "train_accuracy": 10.0, "arch_loss": None, "valid_loss": None,
    "valid_accuracy": None, "arch": "a=b", "scores": [], "cost": None, "draws": [], "images_per_second": 1.0,
    "seconds": 1.0, "peak_memory_mb": 9.0,
}  # fmt: skip


def search(**given):
    """A record of a search."""
    return {**SEARCH, **given}


def line(**given):
    """The line of a trace that it is."""
    return json.dumps(search(**given))
