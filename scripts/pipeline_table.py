"""Prints the tables of pipelines that started from the same seeds, one after the other.

    python scripts/pipeline_table.py --name exp --refine irn psa
    python scripts/pipeline_table.py --name pipeline_demo --refine crf psa irn --gain 3
    python scripts/pipeline_table.py --name crt_demo --sample

With --gain, the exit code is 1 if the masks of any of them are not at least that much mIoU above the seeds at their
best threshold, or if its DeepLab is not above the seeds of the held-out images.
"""

from typing import Any

from common.pipeline.options import REFINEMENTS
from common.pipeline.stages import read_state
from common.pipeline.table import table
from common.run.command import number, script_parser
from common.run.config import between
from common.run.errors import UserError, run_script
from common.run.folder import RunFolder


def failures(rows: list[dict[str, Any]], title: str, wanted: dict[str, float]) -> list[str]:
    """The stages of a pipeline that are missing or gain too little, as lines of text.

    Args:
        wanted: least gain by stage; a gain must be above 0 in any case.
    """
    gains = {row["stage"]: row["gain"] for row in rows}
    found = []
    for stage, least in wanted.items():
        if stage not in gains:
            found.append(f"{title}: there is no score of {stage}")
        elif gains[stage] < least or gains[stage] <= 0:
            found.append(
                f"{title}: {stage} is {gains[stage]:+.2f} mIoU from the seeds; at least {least:+g} was asked for"
            )
    return found


def main() -> int:
    """Prints the tables; 1 if a stage gains too little."""
    parser = script_parser(__doc__)
    parser.add_argument("--name", required=True, help="the pipelines' common --name")
    parser.add_argument("--refine", nargs="+", choices=REFINEMENTS, default=["irn"], help="which (default: irn)")
    parser.add_argument("--sample", action="store_true", help="the table of methods/crt/run_sample.py instead")
    parser.add_argument(
        "--gain", type=number(float, between(-100, 100)), help="mIoU by which masks have to be above the seeds"
    )
    args = parser.parse_args()
    run, found = RunFolder(args.name).existing(), []
    files = {"sample": "run_sample.json"} if args.sample else {name: f"pipeline_{name}.json" for name in args.refine}
    for title, name in files.items():
        content = read_state(run.path / name)
        if "table" not in content:
            raise UserError(f"{run.path / name} has no table: the pipeline is not finished; its command goes on")
        seconds = sum(stage.get("seconds", 0.0) for stage in content["stages"].values())
        print(f"{title}: stages of {seconds:.0f} seconds\n{table(content['table'])}\n")
        wanted = {f"masks ({'irn' if args.sample else title})": args.gain}
        wanted |= {} if args.sample else {"DeepLab": 0.0}
        found += failures(content["table"], title, wanted) if args.gain is not None else []
    for line in found:
        print(f"FAILED: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    run_script(main)
