"""This file knows embeddings: the same way as a chat, without a stream and without words."""

from typing import TYPE_CHECKING

from droveway.engine.inquiry import EMBEDDINGS, Passed
from droveway.errors import BadRequestError
from droveway.gateway.chat import begin, whole
from droveway.gateway.visit import Visit
from droveway.routing.tiers import TIERS

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway


def embeddings(gateway: "Gateway", visit: Visit) -> None:
    """Serve `POST /v1/embeddings`."""
    inquiry = Passed(visit.body, EMBEDDINGS)
    if inquiry.model == "auto" or inquiry.model in TIERS:
        raise BadRequestError(f"{inquiry.model!r} chooses among chat models; name an embedding one")
    answer = begin(gateway, visit, inquiry)
    if answer is not None:
        answer.listen(lambda: whole(answer))
