"""Record golden values from the official code of DARTS, DrNAS (and its GDAS), DropNAS, PC-DARTS, beta-DARTS, SNAS,
DSNAS, ENAS, RSPS, SPOS, FairNAS and the 64 networks of "Deeper Insights".

    python tests/golden/record.py --darts PATH --drnas PATH --dropnas PATH --pc-darts PATH --beta-darts PATH --snas PATH
        --autodl PATH --spos PATH --fairnas PATH --insights64 PATH [--only CASE ...] [--out FOLDER]

The paths are checkouts of quark0/darts, xiangning-chen/DrNAS, wiljohnhong/DropNAS, yuhuixu1993/PC-DARTS,
Sunshine-Ye/Beta-DARTS, SNAS-Series/SNAS-Series, D-X-Y/AutoDL-Projects, megvii-model/SinglePathOneShot,
xiaomi-automl/FairNAS and ultmaster/deeper-insights-weight-sharing; they are only read and run, on the CPU and in
float64. Those of cases that are not asked for may be left out.  The JSON files this writes are facts about that code:
the numbers it computes from inputs that ``rule.py`` defines.  They hold none of its text.
"""

import argparse
from pathlib import Path

import record_beta_darts
import record_darts
import record_drnas
import record_dropnas
import record_dsnas
import record_enas
import record_fairnas
import record_gdas
import record_insights64
import record_pc_darts
import record_readout
import record_retrain
import record_rsps
import record_snas
import record_spos
import torch
from official import commit_of

COMMITS = {
    "darts": "f276dd346a09ae3160f8e3aca5c7b193fda1da37",
    "drnas": "f2caa4dbdd96c1be29b56cb7ed47a74a184e6ef0",
    "pc_darts": "b74702f86c70e330ce0db35762cfade9df026bb7",
    "dropnas": "90582eeead29ba70d6d8e6a33303835d211d0533",
    "beta_darts": "f3077048c8cf1fef977496f8e46869cb07e73e30",
    "autodl": "f46486e21b71ae6459a700be720d7648b5429569",
    "snas": "9a43adbdf90d4969b19e448c0d094091bc5efb4f",
    "spos": "36eed6cf083497ffa9cfe7b8da25bb0b6ba5a452",
    "fairnas": "fa0d393ee8e1dc7ff290119bbf8df1513eee9a2c",
    "insights64": "2a7f852cd22190b0ccd2bad3e7a1c208f01986b5",
}
RECORDERS = (
    ("darts", record_darts),
    ("drnas", record_drnas),
    ("dropnas", record_dropnas),
    ("pc_darts", record_pc_darts),
    ("drnas", record_gdas),
    ("beta_darts", record_beta_darts),
    ("snas", record_snas),
    ("snas", record_dsnas),
    ("autodl", record_enas),
    ("autodl", record_rsps),
    ("spos", record_spos),
    ("fairnas", record_fairnas),
    ("insights64", record_insights64),
    ("darts", record_retrain),
)


def main():
    """Record the cases that were asked for."""
    cases = [case for _, recorder in RECORDERS for case in recorder.CASES] + list(record_readout.CASES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in COMMITS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, type=Path, help=f"checkout at {COMMITS[name]}")
    parser.add_argument("--only", nargs="+", choices=cases, default=cases, metavar="CASE", help=", ".join(cases))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this)")
    args = parser.parse_args()
    checkouts = {name: path.resolve() for name in COMMITS if (path := getattr(args, name)) is not None}
    needed = {name for name, recorder in RECORDERS if set(recorder.CASES) & set(args.only)}
    needed |= {"darts", "drnas", "dropnas"} if "readout" in args.only else set()
    if not needed <= set(checkouts):
        parser.error(f"these cases need checkouts of {', '.join(sorted(needed - set(checkouts)))}")
    for name, checkout in checkouts.items():
        if commit_of(checkout) != COMMITS[name]:
            parser.error(f"{checkout} is not at {COMMITS[name]}")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for name, recorder in RECORDERS:
        for case in recorder.CASES:
            if case in args.only:
                report(recorder.record(case, checkouts[name], args.out))
    if "readout" in args.only:
        report(record_readout.record("readout", checkouts, args.out))


def report(files):
    """Name the files that were written."""
    for path in files:
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
