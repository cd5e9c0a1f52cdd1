"""This file knows `droveway doctor`: one small request to each provider, and what to do."""

import asyncio
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from droveway.chat import ChatRequest, Message
from droveway.cli import options, providers, tables
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async
from droveway.engine.engine import Engine
from droveway.engine.terms import Terms
from droveway.errors import DrovewayError
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout

# The least that every vendor takes; OpenAI refuses caps below 16 on some models (2026-11).
OUTPUT_TOKENS: Final = 16
PATIENCE: Final = Timeout(connect_s=10.0, first_token_s=20.0, idle_s=20.0, total_s=30.0)
SANDBOX_MODEL: Final = "deepseek-flash"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider did.

    Attributes:
        provider: Its name.
        model: What it was asked for.
        ok: Whether it answered.
        latency_ms: From the request to the end of its answer; None when it did not answer.
        advice: What to do; None when all is well.
    """

    provider: str
    model: str
    ok: bool
    latency_ms: float | None = None
    advice: str | None = None


@make_command(
    "doctor", "droveway doctor", "droveway doctor --base-url http://127.0.0.1:4010/v1 --json"
)
@options.provider
@options.model
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, *, as_json: bool, model: str | None, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Try each provider with one small request, and say what to do where one fails."""
    chosen = providers.choose(given["base_url"], given["api_key"], given["config"])
    providers.tell_sandbox(chosen)
    found = run_async(_examine(chosen.engine, model))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        _show(found)
    if not all(each.ok for each in found):
        ctx.exit(1)


async def _examine(engine: Engine, model: str | None) -> list[Finding]:
    async with engine:
        asked = [
            _asked(engine, name, model=model, known=providers.models_of(provider))
            for name, provider in engine.providers.items()
        ]
        return await asyncio.gather(*(_try(engine, *each) for each in asked))


def _asked(engine: Engine, name: str, *, model: str | None, known: list[str]) -> tuple[str, str]:
    if model is not None:
        return name, model.removeprefix(f"{name}/")
    if known:
        return name, known[0].removeprefix(f"{name}/")
    return name, engine.settings.routing.simple


async def _try(engine: Engine, provider: str, model: str) -> Finding:
    request = ChatRequest(
        model=f"{provider}/{model}",
        messages=(Message(role="user", content="Say ok."),),
        max_tokens=OUTPUT_TOKENS,
    )
    try:
        _, row = await engine.chat(
            request, Terms(timeout=PATIENCE, retry=RetryPolicy(max_attempts=1))
        )
    except DrovewayError as error:
        return Finding(provider=provider, model=model, ok=False, advice=str(error))
    return Finding(provider=provider, model=model, ok=True, latency_ms=round(row.total_ms, 3))


def _show(found: list[Finding]) -> None:
    shown = tables.table("provider", "model", "", "latency", "what to do",
                         left=("model", "", "what to do"))  # fmt: skip
    for each in found:
        word = Text("ok", style="green") if each.ok else Text("failed", style="bold red")
        took = "-" if each.latency_ms is None else f"{each.latency_ms / 1e3:.2f} s"
        shown.add_row(each.provider, each.model, word, took, each.advice or "nothing")
    tables.show(shown)
