"""What the suites of real clients share: a running gateway, and the two ways to the sandbox."""

from collections.abc import Iterator
from typing import Any

import pytest

from door import VENDOR_KEY, Door, SteadyClock, Way, running_gateway


@pytest.fixture(scope="module")
def running() -> Iterator[Door]:
    with running_gateway(clock=SteadyClock(), api_keys={VENDOR_KEY}) as it:
        yield it


@pytest.fixture(scope="module", params=["direct", "gateway"])
def module_way(request: pytest.FixtureRequest, running: Door) -> Way:
    return Way(running, through=request.param == "gateway")


@pytest.fixture(scope="module")
def client(module_way: Way) -> Iterator[Any]:
    """The SDK's client; one for all tests of a module, for it is slow to make."""
    with module_way.sdk() as made:
        yield made


@pytest.fixture
def way(module_way: Way) -> Way:
    """One of the two ways; the vendor's journal is empty."""
    module_way.door.box.forget()
    return module_way
