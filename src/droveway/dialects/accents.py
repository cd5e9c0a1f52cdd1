"""This file knows where vendors of the OpenAI dialect differ: one small table row each.

An accent is data plus two pure functions; a vendor without a row speaks plainly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from droveway.chat import ChatRequest
from droveway.errors import SettingsError

ReasoningReplay = Literal["never", "with_tools"]

# DeepSeek, guides/thinking_mode, 2026-11: it takes low, high and max; these are its own mappings.
_DEEPSEEK_EFFORT: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


@dataclass(frozen=True, slots=True)
class Accent:
    """How one vendor differs.

    Attributes:
        name: As `accent` in the settings.
        cap_field: Field of the output cap.
        replay: Whether an assistant's reasoning goes back with the history.
        thinking_switch: Whether thinking is on by default and switched by a field of its own.
        json_schema: Whether `response_format: json_schema` is taken; else a JSON object is asked
            for and the schema stands in the instructions.
    """

    name: str
    cap_field: Literal["max_tokens", "max_completion_tokens"]
    replay: ReasoningReplay
    thinking_switch: bool
    json_schema: bool

    def thinking_fields(self, request: ChatRequest) -> Mapping[str, Any]:
        """Return the fields that carry the wish for more or less thinking."""
        effort = request.reasoning_effort
        if not self.thinking_switch:
            return {} if effort is None else {"reasoning_effort": effort}
        if effort is None:
            return self._thinking_for_tools(request)
        if effort == "none":
            return {"thinking": {"type": "disabled"}}
        return {
            "thinking": {"type": "enabled"},
            "reasoning_effort": _DEEPSEEK_EFFORT.get(effort, effort),
        }

    def _thinking_for_tools(self, request: ChatRequest) -> Mapping[str, Any]:
        # "Thinking mode does not support this tool_choice" (400, DeepSeek, 2026-11): a call that
        # must use a tool cannot think, and its caller said nothing about thinking.
        forced = request.tool_choice not in (None, "auto", "none")
        if forced and "thinking" not in request.extra:
            return {"thinking": {"type": "disabled"}}
        return {}


PLAIN: Final = Accent(
    name="plain", cap_field="max_tokens", replay="never", thinking_switch=False, json_schema=True
)
ACCENTS: Final[Mapping[str, Accent]] = {
    accent.name: accent
    for accent in (
        PLAIN,
        Accent(
            name="openai",
            cap_field="max_completion_tokens",
            replay="never",
            thinking_switch=False,
            json_schema=True,
        ),
        Accent(
            name="deepseek",
            cap_field="max_tokens",
            replay="with_tools",
            thinking_switch=True,
            json_schema=False,
        ),
    )
}


def accent_named(name: str | None) -> Accent:
    """Return the accent of that name; plain without one.

    Raises:
        SettingsError: There is no such accent.
    """
    if name is None:
        return PLAIN
    if name not in ACCENTS:
        raise SettingsError(f"unknown accent {name!r}; known are {', '.join(sorted(ACCENTS))}")
    return ACCENTS[name]
