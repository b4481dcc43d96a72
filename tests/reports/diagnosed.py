"""What a diagnosis could have measured: made-up numbers."""

OPTIONS = ["skip", "conv_3x3", "conv_5x5", "pool"]
GROUPS = {"skip": "free", "conv_3x3": "weights", "conv_5x5": "weights", "pool": "free"}


def place(name="network.cells.0", **changes):
    return {
        "place": name,
        "decision": "a:1<-0",
        "options": OPTIONS,
        "groups": GROUPS,
        "correlation": [[1, 0.1, -0.2, 0.7], [0.1, 1, 0.9, 0.3], [-0.2, 0.9, 1, 0.4], [0.7, 0.3, 0.4, 1]],
        "alike": {"weights": 0.9, "free": 0.7, "across": 0.25},
        "clusters": {"2": [0, 1, 1, 0], "3": [0, 1, 1, 2]},
        "plane": [[0.0, 1.0], [2.0, 2.0], [2.1, 2.0], [-4.0, -5.0]],
        **changes,
    }


def run(name="one", epochs=20, **course):
    return {
        "run": f"/runs/{name}",
        "method": "darts",
        "epochs": epochs,
        "part": epochs // 4,
        "starts": [],
        "watched": True,
        "groups": {"none": "free", **GROUPS},
        "places": [place(), place("network.cells.1", clusters={"2": [0, 0, 1, 0]})],
        "alike": {"a:1<-0": {"weights": 0.9, "free": 0.7, "across": 0.25}},
        "course": {
            "scores": {o: [0.2 + 0.01 * i * e for e in range(epochs)] for i, o in enumerate(["none", *OPTIONS])},
            "gradient_share": {"conv_3x3": [0.25] * epochs, "conv_5x5": [0.75] * epochs},
            "option_accuracy": {
                "skip": [30.0] * epochs,
                "conv_3x3": [10.0 + 3 * e for e in range(epochs)],
                "conv_5x5": [12.0 + 3 * e for e in range(epochs)],
                "pool": [28.0] * epochs,
            },
            "hessian": [0.2] * epochs,
            "sharp": None,
            "matthew": {"rho": 0.5, "chance": 0.1, "decisions": 28},
            **course,
        },
    }


def told(*runs):
    return {"images": 1000, "runs": list(runs) or [run()], "seconds": 1.0}
