"""This file knows what is asked: each role's system prompt and a task, no two requests the same."""

from collections.abc import Sequence
from typing import Final

import msgspec

from droveway.agents.roles import built_in_roles

_TURN: Final = "TURN-NUMBER"


class Question(msgspec.Struct, frozen=True):
    """What one role is asked, as the two halves of a request body around the turn's number.

    Attributes:
        role: Its name.
        before: The body up to the number.
        after: The rest of it.
    """

    role: str
    before: bytes
    after: bytes

    def body(self, turn: int) -> bytes:
        """Write the body of a turn.

        The number makes each request another one, so that nobody answers from memory; it stands
        at the end, so that a prompt cache still knows the beginning.
        """
        return b"%b%d%b" % (self.before, turn, self.after)


def questions(
    count: int, *, model: str, stream: bool, max_tokens: int | None = None
) -> Sequence[Question]:
    """Write what the first `count` of the seventeen roles are asked.

    Args:
        count: How many roles take turns.
        model: Which model is asked for.
        stream: Whether events are wanted, with the usage at their end.
        max_tokens: Output tokens of each answer; None leaves it to the server.
    """
    made = []
    for name, role in list(built_in_roles().items())[:count]:
        asked = {
            "model": model,
            "messages": [
                {"role": "system", "content": role.instructions},
                {
                    "role": "user",
                    "content": f"Say in four sentences how you begin a task such as this: "
                    f"{role.summary} This is task {_TURN}.",
                },
            ],
            "stream": stream,
        }
        if stream:
            asked["stream_options"] = {"include_usage": True}
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
        before, _, after = msgspec.json.encode(asked).partition(_TURN.encode())
        made.append(Question(name, before, after))
    return made
