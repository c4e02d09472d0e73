"""Where the daemon keeps what, from transfer.conf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cube_core.conf.transfer_conf import TransferConf
from cube_transfer.input_roots import InputRoots
from cube_transfer.limits import REPLICA_DEADLINE_S, SAMPLE_INTERVAL_S
from cube_transfer.pass_bytes import ByteLimits
from cube_transfer.source import PulledPass
from cube_transfer.table_links import TableLinks

POLLS_PER_RECONCILE = 3


@dataclass(frozen=True)
class Settings:
    """The configuration and what follows from it.

    `links` are the addresses at which the shard servers fetch tables. A replica that fails for
    `replica_deadline_s` holds up no deployment any more. The page looks at every server each
    `sample_interval_s`.
    """

    conf: TransferConf
    links: TableLinks
    replica_deadline_s: float = REPLICA_DEADLINE_S
    sample_interval_s: float = SAMPLE_INTERVAL_S

    @property
    def reconcile_interval_s(self) -> float:
        """How often idle servers are asked what they serve."""
        return self.conf.poll_interval_ms / 1000 * POLLS_PER_RECONCILE

    @property
    def output_address(self) -> Path:
        return Path(self.conf.output_address)

    @property
    def pulls(self) -> Path:
        """Directory of pulled passes, this daemon's alone."""
        return Path(self.conf.tmp_address) / "pulls"

    @property
    def model_deploy_path(self) -> Path | None:
        """None when dense models are left where they are."""
        return Path(self.conf.model_deploy_path) if self.conf.model_deploy_path else None

    @property
    def cube_conf(self) -> Path | None:
        """None when the clients' file is kept by hand."""
        return Path(self.conf.cube_conf) if self.conf.cube_conf else None

    def pulled(self, version: str) -> PulledPass:
        limits = ByteLimits(self.conf.download_bytes_max, self.conf.pass_bytes_max)
        return PulledPass(self.pulls / version, limits, InputRoots(self.conf.input_roots))
