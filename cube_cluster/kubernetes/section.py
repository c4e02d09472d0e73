"""The section `kubernetes` of `cluster.yml`: what only a deployment on Kubernetes has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _as_text(value: object) -> object:
    """A quantity may be written as a number, as Kubernetes takes it too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _is_absolute(path: str) -> str:
    if not path.startswith("/") or "//" in path or path == "/":
        raise ValueError("must be an absolute path")
    return path.rstrip("/")


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(pattern=r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"),
]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9\-]{0,61}[a-z0-9])?$")]
DnsName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9\-.]{0,251}[a-z0-9])?$")  # of Secrets, classes, claims
]
LabelKey = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([a-z0-9\-.]*[a-z0-9])?/)?[A-Za-z0-9]([\w.\-]{0,61}[A-Za-z0-9])?$"),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([\w.\-]{0,61}[A-Za-z0-9])?)?$")]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-/:@]{0,510}$")]
MountPath = Annotated[str, Field(pattern=r"^[\w./\-]+$"), AfterValidator(_is_absolute)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Amounts(_Part):
    """Of processors and memory."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class Resources(_Part):
    """What a pod asks for, and what it may take at most."""

    requests: Amounts = Amounts()
    limits: Amounts = Amounts()


class Storage(_Part):
    """A volume; `storage_class` None: that of the cluster."""

    storage: Quantity = "20Gi"
    storage_class: DnsName | None = None


class ServerPods(Storage):
    """The pods of shard servers. Of a dict, what is not given is that of all dicts."""

    resources: Resources = Resources(
        requests=Amounts(cpu="1", memory="4Gi"), limits=Amounts(memory="4Gi")
    )
    anti_affinity: Literal["required", "preferred"] = "required"


class TransferPods(Storage):
    """The pod of a transfer daemon, with its state, tables and passes under way."""

    storage: Quantity = "50Gi"
    resources: Resources = Resources(
        requests=Amounts(cpu="1", memory="2Gi"), limits=Amounts(memory="4Gi")
    )


class CtrPods(_Part):
    """The pods of CTR servers, and the bounds of their autoscaler."""

    resources: Resources = Resources(
        requests=Amounts(cpu="1", memory="2Gi"), limits=Amounts(memory="2Gi")
    )
    replicas_min: int = Field(default=2, ge=1)
    replicas_max: int = Field(default=10, ge=1)
    cpu_percent: int = Field(default=70, ge=1, le=100)


class Models(Storage):
    """The volume that a dict's daemon publishes dense models to, and as much on the node of each
    CTR server, which fetches them from the daemon."""

    storage: Quantity = "10Gi"


class Passes(_Part):
    """The claim of a volume that the training job writes passes to, where `donefile_address` is a
    path."""

    claim: DnsName
    mount_path: MountPath = "/passes"


class SecretNames(_Part):
    """Secrets that must be there; nothing writes them.

    Attributes:
        tokens: with the keys `operate` and `read`.
        tls: of type kubernetes.io/tls with a `ca.crt`; None: plain text.
        sources: environment variables for the transfer daemon, such as AWS_ACCESS_KEY_ID.
    """

    tokens: DnsName = "cube-tokens"
    tls: DnsName | None = None
    sources: DnsName | None = None


class Peer(_Part):
    """Pods that may connect: those with the labels, in the namespace; None: in this one."""

    namespace: DnsLabel | None = None
    labels: dict[LabelKey, LabelValue] = {}


class Network(_Part):
    """Who may connect besides the roles themselves, and pods of this namespace with the label
    `cube-client`: `embeddings`, `predictions` or `operator`."""

    embedding_clients: list[Peer] = []
    prediction_clients: list[Peer] = []
    operators: list[Peer] = []
    prometheus: list[Peer] = []
    source_cidr: Annotated[str, Field(pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")] = "0.0.0.0/0"


class Kubernetes(_Part):
    """How the roles run on Kubernetes."""

    image: Image
    namespace: DnsLabel = "cube"
    cluster_domain: DnsName = "cluster.local"
    image_pull_secrets: list[DnsName] = []
    cube_server: ServerPods = ServerPods()
    cube_transfer: TransferPods = TransferPods()
    ctr_serving: CtrPods = CtrPods()
    models: Models = Models()
    passes: Passes | None = None
    secrets: SecretNames = SecretNames()
    network: Network = Network()
