"""Runs the pipeline, writes the contact sheet, prints what happened. Exit code 1 if a single tile was lost."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console

import shmq

from .photos import TileFile, input_files
from .pipeline import Outcome, Pipeline
from .report import LiveProgress, dead_letter_table, photo_table, stage_table
from .sheet import draw_sheet
from .topology import RESULTS, STAGES, declared
from .workers import Workers


def main() -> int:
    """Run once; 0 if every tile is a result or a dead letter."""
    options = parse(sys.argv[1:])
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as many workers as cores, so one thread each
    console = Console()
    files = input_files()
    broker = nullcontext(options.url) if options.url else shmq.local()
    with broker as url, shmq.connect(url) as conn, declared(conn):
        outcome = run(conn, url, files, console)
        totals = {stage: conn.queue_info(stage).totals for stage in (*STAGES, RESULTS)}
    console.print(stage_table(totals, outcome), photo_table(files, outcome), dead_letter_table(outcome))
    console.print(f"results that came twice, and were dropped: {outcome.duplicates}")
    console.print(f"contact sheet: {write_sheet(outcome, options.output)}", soft_wrap=True)
    print(summary(outcome, redelivered=sum(counts["requeued"] for counts in totals.values())))
    return 1 if outcome.lost else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser("vision_pipeline", description=__doc__)
    parser.add_argument("--url", help="a running broker, such as shmq:///run/shmq/shmq.sock; default: one of its own")
    parser.add_argument("--output", type=Path, default=Path("out"), metavar="DIR", help="for the sheet; default: out")
    return parser.parse_args(arguments)


def run(conn: shmq.Connection, url: str, files: Sequence[TileFile], console: Console) -> Outcome:
    """Send the files through workers, with progress on the console."""
    with LiveProgress(console, len(files)) as progress, Workers(url, progress.tell) as workers:
        return Pipeline(conn, workers, progress.tell, progress.show).run(files)


def write_sheet(outcome: Outcome, folder: Path) -> Path:
    """Draw the contact sheet of all results into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "contact_sheet.png"
    results = [outcome.results[tile_id] for tile_id in sorted(outcome.results)]
    values = np.stack([result.values for result in results])
    redelivered = [result.headers["redelivered"] for result in results]
    caption = f"{len(values)} tiles, neighbours alike in colour and texture.  Framed: redelivered after kill -9"
    draw_sheet(values["thumbnail"], values["features"], redelivered, caption, path)
    return path


def summary(outcome: Outcome, redelivered: int) -> str:
    """Return the line that says it all."""
    return (
        f"images {len(outcome.published_s)}, redelivered {redelivered}, "
        f"dead-lettered {len(outcome.dead_letters)}, lost {len(outcome.lost)}"
    )


if __name__ == "__main__":  # worker processes import this module too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports it
