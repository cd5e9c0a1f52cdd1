"""This room knows how to speak HTTP outwards: pooled connections in, four calls on a sink out.

Read `pool.py` first: it is the order of events. `connection.py` owns one socket, `reader.py` turns
its bytes into calls on a sink, `dialing.py` opens it, straight or through a proxy.
"""

from droveway.transport.connection import Call
from droveway.transport.message import Request, ResponseHead, Sink
from droveway.transport.origin import Origin, parse_url
from droveway.transport.pool import Pool
from droveway.transport.proxies import Proxy, ProxyRules

__all__ = [
    "Call",
    "Origin",
    "Pool",
    "Proxy",
    "ProxyRules",
    "Request",
    "ResponseHead",
    "Sink",
    "parse_url",
]
