"""This file knows how a type-hinted function becomes a tool: schema, arguments and call."""

import asyncio
import inspect
import logging
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from droveway.chat import Message, Tool, ToolCall
from droveway.errors import ToolError

LOG: Final = logging.getLogger("droveway.tools")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARGUMENT: Final = re.compile(r"^\s+\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """What a tool gave back.

    Attributes:
        id: The model's name for the call.
        name: The tool.
        content: Text that goes back to the model: the result as JSON, or what went wrong.
        failed: Whether the tool raised or its arguments did not fit.
    """

    id: str
    name: str
    content: str
    failed: bool = False


class FunctionTool:
    """A function that a model may call.

    Args:
        function: Sync (it runs in a thread) or async, with a type hint on every parameter. Its
            docstring's first paragraph tells the model what it does, its `Args:` what they mean.

    Raises:
        ToolError: It cannot be a tool: a parameter without a hint, `*args`, or an odd name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        if not inspect.isroutine(function):
            raise ToolError(f"a tool is a function or a method, not {self.name}")
        if not _NAME.fullmatch(self.name):
            raise ToolError(f"a tool cannot be named {self.name!r}; give the function a plain name")
        document = inspect.getdoc(function) or ""
        self._arguments = _arguments_struct(function, self.name, _described(document))
        schema = _inlined(_schema_of(self._arguments, self.name))
        self.tool = Tool(
            name=self.name,
            description=document.partition("\n\n")[0].replace("\n", " "),
            parameters={"type": "object", "properties": {}, **schema},
        )

    async def call(self, call: ToolCall) -> ToolResult:
        """Make one call; whatever goes wrong goes back to the model, which may do better."""
        try:
            given = msgspec.json.decode(call.arguments or "{}", type=self._arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._failed(call, f"the arguments do not fit: {error}")
        arguments = {name: getattr(given, name) for name in self._arguments.__struct_fields__}
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**arguments)
            else:
                result = await asyncio.to_thread(self.function, **arguments)
            content = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        except SystemExit as error:
            # Let through, it would end the event loop that all agents share, and them with it.
            raise ToolError(f"tool {self.name!r} asked the process to exit") from error
        except Exception as error:  # foreign code: its failure goes back to the model
            LOG.warning("tool %s raised", self.name, exc_info=error)
            return self._failed(call, f"{type(error).__name__}: {error}")
        return ToolResult(call.id, self.name, content)

    def _failed(self, call: ToolCall, why: str) -> ToolResult:
        return ToolResult(call.id, self.name, f"error: {why}", failed=True)


class Toolbox:
    """The tools of one agent, by name.

    Raises:
        ToolError: Two tools share a name, or one cannot be a tool.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        if callable(functions) or isinstance(functions, str):
            raise ToolError("tools is a list of functions; write tools=[function]")
        made = [FunctionTool(function) for function in functions]
        self._by_name = {tool.name: tool for tool in made}
        if len(self._by_name) < len(made):
            raise ToolError("two tools have the same name; rename one of the functions")
        self.tools = tuple(tool.tool for tool in made)

    async def call_all(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """Make all calls of one round at once; results in the order of the calls."""
        return list(await asyncio.gather(*(self._call(call) for call in calls)))

    async def _call(self, call: ToolCall) -> ToolResult:
        tool = self._by_name.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            return ToolResult(
                call.id, call.name, f"error: no tool {call.name!r}; there are: {known}", failed=True
            )
        return await tool.call(call)


def as_message(result: ToolResult) -> Message:
    """Return a tool's result as the turn that goes back to the model."""
    return Message(role="tool", content=result.content, tool_call_id=result.id)


def _arguments_struct(
    function: Callable[..., Any], name: str, described: Mapping[str, str]
) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise ToolError(f"tool {name!r} takes *{parameter.name}; name its parameters")
        if parameter.name not in hints:
            raise ToolError(f"tool {name!r} needs a type hint on {parameter.name!r}")
        hint = hints[parameter.name]
        if parameter.name in described:
            hint = typing.Annotated[hint, msgspec.Meta(description=described[parameter.name])]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    try:
        return msgspec.defstruct(
            f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True
        )
    except TypeError as error:
        raise ToolError(f"tool {name!r} has a parameter no schema can tell: {error}") from error


def _schema_of(arguments: type[msgspec.Struct], name: str) -> dict[str, Any]:
    try:
        return msgspec.json.schema(arguments)
    except TypeError as error:
        told = str(error).partition("\n")[0]
        raise ToolError(f"tool {name!r} has a parameter no schema can tell: {told}") from error


def _described(document: str) -> dict[str, str]:
    """Read the `Args:` section of a Google docstring; one line each is enough for a model."""
    _, _, section = document.partition("\nArgs:\n")
    found: dict[str, str] = {}
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        match = _ARGUMENT.match(line)
        if match:
            found[match[1]] = match[2].strip()
    return found


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the outermost struct where its reference stands; models take objects, not references."""
    reference = schema.pop("$ref", None)
    if reference is None:
        return schema
    name = reference.rpartition("/")[2]
    definitions = schema["$defs"]
    outer: dict[str, Any] = definitions.pop(name)
    outer.pop("title", None)
    return {**outer, "$defs": definitions} if definitions else outer
