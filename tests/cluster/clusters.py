"""Clusters drawn by hypothesis, as the text of a cluster.yml."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=12)
HOSTS = st.sampled_from(["127.0.0.1", "10.0.0.1", "cube-1.example", "h2"])
PATHS = st.text("abc/._-% é:#&'\"", min_size=1, max_size=20).map(lambda text: "/x" + text.strip())
TEXT_PATHS = PATHS.filter(lambda text: " #" not in text and " //" not in text)


@st.composite
def cluster_texts(draw: st.DrawFn) -> str:
    """Text of a cluster that can be read: ports are counted up and never taken twice."""
    ports = iter(range(1000, 60000))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    dicts = [_dict(draw, name, ports) for name in names]
    cluster: dict[str, Any] = {"dicts": dicts, **_some(draw, host=HOSTS, data_dir=TEXT_PATHS)}
    if draw(st.booleans()):
        cluster["ctr"] = _ctr(draw, names, ports)
    cluster["flags"] = {
        "cube_server": _some(draw, in_mem=st.booleans(), workers=st.integers(1, 9)),
        "ctr_serving": _some(draw, reload_interval_ms=st.integers(10, 999)),
    }
    cluster["limits"] = {
        "cube_server": _some(draw, keys_per_request_max=st.integers(1, 10**6)),
        "ctr_serving": _some(draw, rows_per_request_max=st.integers(1, 10**6)),
    }
    return str(yaml.safe_dump(cluster, allow_unicode=True))


def _some(draw: st.DrawFn, **strategies: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Some of the fields, each drawn."""
    return {name: draw(each) for name, each in strategies.items() if draw(st.booleans())}


def _dict(draw: st.DrawFn, name: str, ports: Any) -> dict[str, Any]:
    shards, replicas = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    conf: dict[str, Any] = {
        "name": name,
        "donefile_address": draw(TEXT_PATHS),
        "shards": shards,
        "replicas": replicas,
        "transfer": {
            "port": next(ports),
            **_some(
                draw,
                host=HOSTS,
                keep_versions=st.integers(1, 9),
                download_bytes_max=st.integers(1, 1 << 50),
                pass_bytes_max=st.integers(1, 1 << 50),
                input_roots=st.just("/passes,s3://bucket/a"),
            ),
        },
        **_some(
            draw,
            mode=st.sampled_from(["base_only", "base_delta"]),
            model_path=TEXT_PATHS,
            timeout_ms=st.integers(1, 10**6),
            retry=st.integers(0, 9),
            backup_request_ms=st.integers(-1, 999),
            backup_request_share_max=st.floats(0, 1),
            load_balancer=st.sampled_from(["rr", "random", "wr", "la", "c_murmurhash"]),
        ),
        "build": _some(
            draw, quant=st.sampled_from(["none", "fp16", "int8"]), memory_mb=st.integers(1, 9999)
        ),
    }
    if draw(st.booleans()):
        conf["servers"] = [_server(draw, ports) for _ in range(shards * replicas)]
        return conf
    for field in ("port", "grpc_port"):
        conf[field], *_ = [next(ports) for _ in range(shards * replicas)]
    return {**conf, **_some(draw, hosts=st.lists(HOSTS, min_size=1, max_size=3, unique=True))}


def _server(draw: st.DrawFn, ports: Any) -> dict[str, Any]:
    place = {"port": next(ports), "grpc_port": next(ports), **_some(draw, host=HOSTS)}
    if draw(st.booleans()):
        # No two servers keep their versions in one directory.
        place["data_dir"] = f"{draw(TEXT_PATHS)}{place['port']}"
    return place


def _ctr(draw: st.DrawFn, dict_names: list[str], ports: Any) -> dict[str, Any]:
    engines = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    return {
        "servers": [
            {"port": next(ports), "grpc_port": next(ports), **_some(draw, host=HOSTS)}
            for _ in range(draw(st.integers(1, 3)))
        ],
        "engines": [
            {
                "name": name,
                "dict_name": draw(st.sampled_from(dict_names)),
                **_some(
                    draw,
                    batch_infer_size=st.integers(0, 999),
                    enable_batch_align=st.booleans(),
                    default_embedding_value=st.floats(-1, 1, width=32),
                    failed_shards=st.sampled_from(["ERROR", "DEGRADE"]),
                ),
            }
            for name in engines
        ],
    }
