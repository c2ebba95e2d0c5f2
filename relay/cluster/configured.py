"""A relay's part in a cluster as its configuration has it: its name there, its bus, how it shares."""

import socket

from relay.cluster.cluster import Cluster, ClusterPlan
from relay.cluster.nats_bus import NatsAccess, NatsBus
from relay.config.settings import Config
from relay.core.clock import Clock


def configured_cluster(config: Config, clock: Clock) -> Cluster:
    """Return this relay's part, not yet started. What it needs is there: see `check_cluster`."""
    node = config.cluster_node or f"{socket.gethostname()}:{config.port}"
    plan = ClusterPlan(node, config.cluster_namespace, config.cluster_shards)
    access = NatsAccess(config.cluster_nats, config.cluster_credentials, f"relay {node}")
    bus = NatsBus(access, f"relay_{config.cluster_namespace}_leases", ttl_s=plan.timing.ttl_s)
    return Cluster(plan, bus, clock)
