"""The configuration files of a cluster, as text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from cube_cluster.cluster import Cluster, Ctr, Dict, FlagValue, Servers
from cube_cluster.flags import taken_flags
from cube_cluster.layout import (
    CtrServer,
    ShardServer,
    Transfer,
    all_shard_servers,
    ctr_servers,
    model_path,
    shard_servers,
    transfers,
)
from cube_core.endpoint import DnsName
from cube_proto.model_toolkit_pb2 import EngineDesc, ModelToolkitConf
from cube_proto.predictors_pb2 import SDKConf

MARK = "Written by `cube config`"
CUBE_CONF = "cube.conf"
_PREDICTOR_NAME = "ctr_prediction_service"
_SERVICE_NAME = "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService"


@dataclass(frozen=True)
class ConfFiles:
    """Makes the files of one cluster.

    Args:
        cluster: what they say.
        origin: path of its cluster.yml, which the files name.
        directory: where they are going to be, as roles that read several of them name it.
        keeps_cube_conf: whether the daemons write cube.conf when servers of another topology serve.
        ctr_address: where the daemons look at the CTR servers; None: at each by its own address.
    """

    cluster: Cluster
    origin: str
    directory: str
    keeps_cube_conf: bool = True
    ctr_address: DnsName | None = None

    def all(self) -> dict[str, str]:
        """Text of every file by its name. The same cluster gives the same bytes."""
        cluster = self.cluster
        servers = shard_servers(cluster)
        files = {CUBE_CONF: self._cube_conf(), "gflags.conf": self._common_flags()}
        for server in all_shard_servers(cluster):
            files[f"{server.name}.flags"] = self._flags(self._server_flags(server))
        for transfer in transfers(cluster):
            files[transfer.conf_name] = self._transfer_conf(transfer, servers)
            files[f"{transfer.name}.flags"] = self._flags(self._transfer_flags(transfer))
        if cluster.ctr:
            places = ctr_servers(cluster)
            files["model_toolkit.prototxt"] = self._model_toolkit(cluster.ctr)
            files["predictors.prototxt"] = self._predictors(cluster.ctr, places)
            for ctr in places:
                files[f"{ctr.name}.flags"] = self._flags(self._ctr_flags(ctr))
        return files

    @property
    def _mark(self) -> str:
        return f"{MARK} from {self.origin}: change that file, not this one."

    def _commented(self, lines: Iterable[str]) -> str:
        return "\n".join((f"# {self._mark}", *lines)) + "\n"

    def _flags(self, flags: Mapping[str, FlagValue]) -> str:
        return self._commented(f"--{name}={_flag_text(value)}" for name, value in flags.items())

    def _common_flags(self) -> str:
        """gflags.conf: what all shard servers have in common."""
        flags = {**self.cluster.flags.cube_server, **self.cluster.limits.cube_server}
        return self._flags({**self._security("cube_server"), **flags})

    def _server_flags(self, server: ShardServer) -> dict[str, FlagValue]:
        return {
            "host": self.cluster.listen_host or server.host,
            "port": server.port,
            "grpc_port": server.grpc_port,
            "dict_name": server.dict_name,
            "shard": server.shard,
            "data_dir": server.data_dir,
        }

    def _transfer_flags(self, transfer: Transfer) -> dict[str, FlagValue]:
        return {
            "host": self.cluster.listen_host or transfer.host,
            "config": f"{self.directory}/{transfer.conf_name}",
            **self._security("cube_transfer"),
            **self.cluster.flags.cube_transfer,
        }

    def _ctr_flags(self, ctr: CtrServer) -> dict[str, FlagValue]:
        return {
            "host": self.cluster.listen_host or ctr.host,
            "port": ctr.port,
            "grpc_port": ctr.grpc_port,
            "conf": f"{self.directory}/model_toolkit.prototxt",
            "cube_conf": f"{self.directory}/{CUBE_CONF}",
            **self._security("ctr_serving"),
            **self.cluster.flags.ctr_serving,
            **self.cluster.limits.ctr_serving,
        }

    def _security(self, role: str) -> dict[str, FlagValue]:
        return taken_flags(role, _given(**self.cluster.security.model_dump()))

    def _tls(self) -> dict[str, str]:
        """The block of cube.conf and predictors.prototxt, whose paths are seen from their
        directory; empty without TLS."""
        security = self.cluster.security
        if security.tls_cert_file is None:
            return {}
        paths = _given(
            ca_file=security.tls_ca_file,
            cert_file=security.tls_cert_file,
            key_file=security.tls_key_file,
        )
        seen = {name: self._from_directory(path) for name, path in paths.items()}
        return {**seen, **_given(server_name=security.tls_server_name)}

    def _from_directory(self, path: str) -> str:
        return path if Path(path).is_absolute() else os.path.relpath(path, self.directory)

    def cube_conf_entries(self) -> list[dict[str, Any]]:
        """Those of cube.conf, and then one for each dict with servers that are retiring, which the
        file does not name."""
        servers = all_shard_servers(self.cluster)
        topologies: list[tuple[Dict, Servers]] = [(conf, conf) for conf in self.cluster.dicts]
        topologies += [(conf, conf.retiring) for conf in self.cluster.dicts if conf.retiring]
        tls = self._tls()
        return [
            {
                "written_by": self._mark,
                **_cube_conf_entry(conf, topology, servers),
                **({"tls": tls} if tls else {}),
            }
            for conf, topology in topologies
        ]

    def _cube_conf(self) -> str:
        entries = self.cube_conf_entries()[: len(self.cluster.dicts)]
        return json.dumps(entries, indent=4) + "\n"

    def _transfer_conf(self, transfer: Transfer, servers: list[ShardServer]) -> str:
        fields = _transfer_fields(self.cluster, transfer)
        if self.ctr_address is not None and "ctr_servers" in fields:
            fields["ctr_servers"] = str(self.ctr_address)
        if self.keeps_cube_conf:
            fields["cube_conf"] = f"{self.directory}/{CUBE_CONF}"
        lines = ["[default]", *(f"{name}: {value}" for name, value in fields.items())]
        lines += ["", "[cube_agent]"]
        lines += [
            f"cube{each.shard}_{each.copy}: {each.host}:{each.port}:{each.data_dir}"
            for each in servers
            if each.dict_name == transfer.dict.name
        ]
        return self._commented(lines)

    def _model_toolkit(self, ctr: Ctr) -> str:
        paths = {each.name: model_path(self.cluster, each) for each in self.cluster.dicts}
        message = ModelToolkitConf()
        for engine in ctr.engines:
            path = paths[engine.dict_name]
            optional = _given(
                model_url=engine.model_url,
                runtime_thread_num=engine.runtime_thread_num,
                batch_infer_size=engine.batch_infer_size,
                enable_batch_align=_as_int(engine.enable_batch_align),
                batch_wait_us=engine.batch_wait_us,
                default_embedding_value=engine.default_embedding_value,
                failed_shards=engine.failed_shards,
            )
            message.engines.add(
                name=engine.name,
                type="PADDLE_INFER",
                reloadable_meta=f"{path}/fluid_time_file",
                reloadable_type=engine.reloadable_type,
                model_data_path=f"{path}/current",
                sparse_param_service_type=EngineDesc.REMOTE,
                sparse_param_service_table_name=engine.dict_name,
                **optional,
            )
        return self._prototxt(message)

    def _predictors(self, ctr: Ctr, places: list[CtrServer]) -> str:
        message = SDKConf()
        default = message.default_variant_conf
        default.tag = "default"
        for name, value in ctr.clients.model_dump().items():
            setattr(default.connection_conf, name, value)
        for name, path in self._tls().items():
            setattr(default.connection_conf.tls, name, path)
        default.naming_conf.load_balance_strategy = "la"
        default.rpc_parameter.protocol = "baidu_std"
        predictor = message.predictors.add(
            name=_PREDICTOR_NAME,
            service_name=_SERVICE_NAME,
            endpoint_router="WeightedRandomRender",
        )
        predictor.weighted_random_render_conf.variant_weight_list = "100"
        variant = predictor.variants.add(tag="var1")
        variant.naming_conf.cluster = _list_address(places)
        return self._prototxt(message)

    def _prototxt(self, message: Message) -> str:
        return self._commented([text_format.MessageToString(message, as_utf8=True).rstrip("\n")])


def _cube_conf_entry(
    conf: Dict, topology: Servers, servers: Iterable[ShardServer]
) -> dict[str, Any]:
    is_retiring = topology is not conf
    own = [s for s in servers if (s.dict_name, s.is_retiring) == (conf.name, is_retiring)]
    shards = [[each for each in own if each.shard == shard] for shard in range(topology.shards)]
    return {
        "dict_name": conf.name,
        "shard": topology.shards,
        "dup": topology.replicas,
        **_given(
            timeout=conf.timeout_ms,
            retry=conf.retry,
            backup_request=conf.backup_request_ms,
            backup_request_share_max=conf.backup_request_share_max,
        ),
        "type": "ipport_list",
        **_given(load_balancer=conf.load_balancer),
        "nodes": [{"ipport_list": _list_address(replicas)} for replicas in shards],
    }


def _transfer_fields(cluster: Cluster, transfer: Transfer) -> dict[str, Any]:
    conf = transfer.dict
    return {
        "dict_name": conf.name,
        "mode": conf.mode,
        "download_mode": "http",
        "wget_port": transfer.port,
        "donefile_address": conf.donefile_address,
        "output_address": transfer.output_address,
        "tmp_address": transfer.tmp_address,
        "shard_num": conf.shards,
        "copy_num": conf.replicas,
        "transfer_address": transfer.host,
        **({"model_deploy_path": model_path(cluster, conf)} if has_models(cluster, conf) else {}),
        **_ctr_servers_field(cluster, conf),
        **_given(
            keep_versions=conf.transfer.keep_versions,
            poll_interval_ms=conf.transfer.poll_interval_ms,
            download_bytes_max=conf.transfer.download_bytes_max,
            pass_bytes_max=conf.transfer.pass_bytes_max,
            input_roots=conf.transfer.input_roots,
        ),
        **conf.build.model_dump(exclude_unset=True),
    }


def _ctr_servers_field(cluster: Cluster, conf: Dict) -> dict[str, str]:
    """Those that serve models of the dict: the daemon's page shows them."""
    if cluster.ctr is None or all(each.dict_name != conf.name for each in cluster.ctr.engines):
        return {}
    return {"ctr_servers": ",".join(f"{each.host}:{each.port}" for each in ctr_servers(cluster))}


def has_models(cluster: Cluster, conf: Dict) -> bool:
    """Whether dense models of a dict's passes are published."""
    engines = cluster.ctr.engines if cluster.ctr else []
    return bool(conf.model_path) or any(engine.dict_name == conf.name for engine in engines)


def _list_address(places: Iterable[ShardServer | CtrServer]) -> str:
    return "list://" + ",".join(f"{each.host}:{each.port}" for each in places)


def _given(**values: Any) -> dict[str, Any]:
    """Those that are set; the reader's defaults stand for the others."""
    return {name: value for name, value in values.items() if value is not None}


def _as_int(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _flag_text(value: FlagValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
