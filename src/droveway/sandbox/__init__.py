"""This room knows how to be a provider that is not there: scripted answers, real sockets, faults.

It shares no code with what it tests, and is public for users' own tests::

    async with Sandbox(profile=Profile(instant=True)) as box:
        agent = AsyncAgent(base_url=box.base_url, model="fault-429-seconds:1@2")
"""

from droveway.sandbox.faults import FAULTS
from droveway.sandbox.journal import Seen
from droveway.sandbox.limits import Limits
from droveway.sandbox.profile import Profile
from droveway.sandbox.script import Rule, Script, load_script
from droveway.sandbox.server import (
    Sandbox,
    refused_port,
    running_sandbox,
    serve,
    stream_bytes,
)

__all__ = [
    "FAULTS",
    "Limits",
    "Profile",
    "Rule",
    "Sandbox",
    "Script",
    "Seen",
    "load_script",
    "refused_port",
    "running_sandbox",
    "serve",
    "stream_bytes",
]
