"""Read what W&B has written offline: records of protobuf in the log format of LevelDB, in blocks of
32 KiB, after a header of seven bytes."""

import json
import struct
import time
from pathlib import Path
from typing import Any

BLOCK, HEADER = 2**15, 7
FULL, LAST = 1, 4
PATIENCE = 10  # seconds


def records(path: Path) -> list[Any]:
    """The records of a file run-ID.wandb; a record that a kill cut short ends them."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, found, parts = path.read_bytes(), HEADER, [], b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # no room for a header: the rest of the block is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        piece = content[at + HEADER : at + HEADER + length]
        if not kind or len(piece) < length:
            break
        parts, at = parts + piece, at + HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            found, parts = [*found, record], b""
    return found


def offline_runs(folder: Path) -> list[dict[str, Any]]:
    """What each offline run in a folder holds, oldest first: id, name, group, project, config,
    history (a dictionary a step), summary and exit code (None for a run that was killed)."""
    return [_written(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def _written(path: Path) -> dict[str, Any]:
    """What a file holds once W&B's process has closed it, or after a while, if it was killed."""
    deadline = time.monotonic() + PATIENCE
    while (found := _run(path))["exit"] is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _run(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "exit": None}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            about |= {"id": run.run_id, "name": run.display_name, "group": run.run_group}
            about |= {"project": run.project, "entity": run.entity}
            about["config"] |= _values(run.config.update)
        elif kind == "history":
            about["history"].append(_values(record.history.item))
        elif kind == "summary":
            about["summary"] |= _values(record.summary.update)
        elif kind == "exit":
            about["exit"] = record.exit.exit_code
    return about


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
