"""What an audit of the books may find; `pycni.ipam.audit` does."""

from dataclasses import dataclass
from enum import Enum

from pycni.model.network import IPAddress, IPNetwork


class Kind(Enum):
    """What may be wrong, in the order in which it is told."""

    BLOCK_CORRUPT = "block-corrupt"
    BLOCKS_OVERLAP = "blocks-overlap"
    BLOCK_WITHOUT_POOL = "block-without-pool"
    BLOCK_WITHOUT_AFFINITY = "block-without-affinity"
    BLOCK_OF_GONE_NODE = "block-of-gone-node"
    AFFINITY_WITHOUT_BLOCK = "affinity-without-block"
    AFFINITY_FOR_OTHERS_BLOCK = "affinity-for-others-block"
    AFFINITY_OF_GONE_NODE = "affinity-of-gone-node"
    ADDRESS_OF_GONE_NODE = "address-of-gone-node"
    ADDRESS_WITHOUT_HANDLE = "address-without-handle"
    ADDRESS_NOT_COUNTED = "address-not-counted"
    HANDLE_MISCOUNTS = "handle-miscounts"
    ADDRESS_LEAKED = "address-leaked"
    RECORD_DAMAGED = "record-damaged"
    RECORD_WITHOUT_ADDRESS = "record-without-address"
    ENDPOINT_GONE = "endpoint-gone"
    CLAIM_UNFINISHED = "claim-unfinished"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `repair` is a command, "" where judgement or nothing is needed."""

    kind: Kind
    subject: str
    sentence: str
    address: IPAddress | None = None
    handle_id: str | None = None
    sequence_number: int | None = None
    block: IPNetwork | None = None
    node: str | None = None
    repair: str = ""

    @property
    def is_information(self) -> bool:
        """Tell whether it heals by itself, so that nobody has to do anything."""
        return self.kind in (Kind.ENDPOINT_GONE, Kind.CLAIM_UNFINISHED)
