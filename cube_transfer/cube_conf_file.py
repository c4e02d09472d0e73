"""Keeps the entry of the dict in the clients' `cube.conf` equal to the topology that serves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.transfer_conf import TransferConf
from cube_core.replace_file import replace_file

log = logging.getLogger(__name__)

_NEW_ENTRY = {"timeout": 200, "retry": 3, "backup_request": 100, "load_balancer": "rr"}


def update_cube_conf(path: Path, conf: TransferConf) -> bool:
    """Writes shards and nodes of `conf` into the dict's entry, whole and in one step; what else
    stands there, and other dicts, are kept. Returns whether there was anything to change.

    Raises:
        ConfError: the file is there and no cube.conf.
        OSError: it cannot be written.
    """
    entries: list[dict[str, Any]] = []
    if path.exists():
        read_cube_conf(path)
        entries = json.loads(path.read_text(encoding="utf-8"))
    wanted = _entry(conf)
    known = next((each for each in entries if each["dict_name"] == conf.dict_name), None)
    if known is not None and known.items() >= wanted.items():
        return False
    if known is None:
        entries.append({**_NEW_ENTRY, **wanted})
    else:
        known.update(wanted)
    replace_file(path, json.dumps(entries, indent=4) + "\n")
    log.info("%s: %s has %d shards now", path, conf.dict_name, conf.shard_num)
    return True


def _entry(conf: TransferConf) -> dict[str, Any]:
    shards: list[list[str]] = [[] for _ in range(conf.shard_num)]
    for replica in conf.replicas:
        shards[replica.shard].append(str(replica.endpoint))
    return {
        "dict_name": conf.dict_name,
        "shard": conf.shard_num,
        "dup": conf.copy_num,
        "type": "ipport_list",
        "nodes": [{"ipport_list": f"list://{','.join(endpoints)}"} for endpoints in shards],
    }
