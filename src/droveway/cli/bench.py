"""This file knows `droveway bench`: what is measured, how it is watched, and what is shown."""

import os
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.table import Table

from droveway.bench.bench import Asked, Bench
from droveway.bench.load import Pace
from droveway.bench.report import TIMES, Report, Spread, TargetReport
from droveway.cli import options, providers, run_tables, tables
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import complain
from droveway.cli.running import run_async, stopping
from droveway.cli.watching import watching
from droveway.clock import SystemClock
from droveway.engine.assembly import provider_at
from droveway.engine.provider import Provider
from droveway.errors import SettingsError
from droveway.settings import DEFAULT_MODEL, Secret
from droveway.transport import ProxyRules

STDOUT: Final = Path("-")
PERCENTS: Final = ("p50", "p90", "p95", "p99", "p99.9")
WORDS: Final = {
    "first_content_ms": "first content (TTFT)",
    "between_content_ms": "between content",
    "answer_ms": "answer, from sending",
    "scheduled_ms": "answer, from schedule",
}
SECONDS: Final = click.FloatRange(min=0, min_open=True, max=86_400)
positive = click.IntRange(min=1)


@make_command(
    "bench",
    "droveway bench http://127.0.0.1:4100/v1 --rate 50 --duration 30",
    "droveway bench http://127.0.0.1:4100/v1 --against http://127.0.0.1:4010/v1 --json bench.json",
)
@click.argument("url", metavar="URL")
@click.option("--against", metavar="URL", help="A second server, asked by turns with the first.")
@options.api_key
@click.option("--against-key", metavar="KEY", envvar="DROVEWAY_AGAINST_API_KEY",
              help="Key of the second; DROVEWAY_AGAINST_API_KEY holds it more safely. Without one "
                   "none is sent.")  # fmt: skip
@click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME",
              help="Model to ask for.")  # fmt: skip
@click.option("--roles", type=click.IntRange(1, 17), default=17, show_default=True, metavar="N",
              help="How many of the 17 roles take turns.")  # fmt: skip
@click.option("--connections", type=positive, default=100, show_default=True, metavar="N",
              help="Requests in flight at most.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="R",
              help="Requests a second to each server, sent when due; without it, as fast as "
                   "answers come.")  # fmt: skip
@click.option("--duration", type=SECONDS, default=10.0, show_default=True, metavar="S",
              help="Seconds that are counted.")  # fmt: skip
@click.option("--warmup", type=click.FloatRange(min=0, max=86_400), default=1.0,
              show_default=True, metavar="S", help="Seconds before them, not counted.")  # fmt: skip
@click.option("--timeout-s", type=SECONDS, default=60.0, show_default=True, metavar="S",
              help="Seconds that an answer may take.")  # fmt: skip
@click.option("--max-tokens", type=positive, metavar="N", help="Output tokens of each answer.")
@click.option("--stream/--whole", default=True, show_default=True,
              help="Ask for streams, or for whole answers.")  # fmt: skip
@click.option("--json", "file", type=options.FILE, metavar="FILE",
              help="Write the figures to a file as data, too; - prints them instead.")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    url: str,
    against: str | None,
    file: Path | None,
    **given: Any,  # noqa: ANN401 - the options above
) -> None:
    """Measure an OpenAI-compatible server, alone or side by side with another."""
    if file is not None and file != STDOUT:
        _check_writable(file)
    bench = Bench(
        _servers(url, against, api_key=given["api_key"], against_key=given["against_key"]),
        asked=Asked(
            model=given["model"],
            stream=given["stream"],
            roles=given["roles"],
            max_tokens=given["max_tokens"],
        ),
        pace=Pace(
            connections=given["connections"],
            rate=given["rate"],
            warmup_s=given["warmup"],
            duration_s=given["duration"],
            timeout_s=given["timeout_s"],
        ),
        clock=SystemClock(),
        proxy=ProxyRules.from_environment(os.environ),
    )
    run_async(_run(bench))
    report = bench.report()
    data = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    if file == STDOUT:
        click.echo(data, nl=False)
    else:
        tables.show(*parts(report))
    if file is not None and file != STDOUT:
        file.write_bytes(data)
    ctx.exit(_judged(report))


def _servers(
    url: str, against: str | None, *, api_key: str | None, against_key: str | None
) -> list[Provider]:
    chosen = providers.choose(url, api_key, None)
    servers = list(chosen.engine.providers.values())
    if against is not None:
        servers.append(provider_at(against, Secret(against_key) if against_key else None))
    elif against_key is not None and not os.environ.get("DROVEWAY_AGAINST_API_KEY"):
        raise SettingsError("--against-key belongs to --against; leave it out or name the server")
    return servers


def _check_writable(file: Path) -> None:
    try:
        file.open("ab").close()
    except OSError as error:
        raise SettingsError(
            f"cannot write {str(file)!r}: {error.strerror}; choose another file"
        ) from error


async def _run(bench: Bench) -> None:
    def bar() -> Table:
        line = Table.grid(padding=(0, 1))
        line.add_row(
            # The bar counts whole steps.
            run_tables.progress_bar(int(bench.passed_s * 10), int(bench.all_s * 10), width=40),
            _progress(bench),
        )
        return line

    screen = watching(screen=bar, line=lambda: _progress(bench))
    async with screen:
        with stopping(lambda _: bench.stop()):
            await bench.run()


def _progress(bench: Bench) -> str:
    measured, failed = bench.counts
    said = f"{bench.passed_s:5.1f}/{bench.all_s:g} s  {measured} measured"
    return f"{said}, {failed} failed" if failed else said


def parts(report: Report) -> list[object]:
    """Draw a report: each server's times and counts, then the difference."""
    drawn: list[object] = []
    for told in report.targets:
        shown = _table(told.url)
        for name in TIMES:
            _add(shown, WORDS[name], getattr(told, name))
        drawn += [shown, *_lines(told), ""]
    if report.difference:
        shown = _table("difference, the first minus the second")
        for name, each in report.difference.items():
            _add(shown, WORDS[name], each.difference_ms)
        shown.add_section()
        for name, each in report.difference.items():
            _add(shown, f"{WORDS[name]}, ratio", each.ratio)
        drawn += [shown, ""]
    if report.own_cpu_ms_per_request is not None:
        drawn.append(f"measuring took {report.own_cpu_ms_per_request:.2f} ms CPU a request here")
    return drawn


def _table(title: str) -> Table:
    return tables.table(f"{title} (ms)", *PERCENTS)


def _add(shown: Table, name: str, spread: Spread | None) -> None:
    if spread is None:
        return
    values = (getattr(spread, each) for each in Spread.__struct_fields__)
    shown.add_row(name, *(f"{value:,.2f}" for value in values))


def _lines(told: TargetReport) -> list[str]:
    rate = "no request" if told.success_rate is None else f"{100 * told.success_rate:.2f} %"
    speed = f"{told.requests_per_s:,.1f} answers and {told.output_tokens_per_s:,.0f} output tokens"
    lines = [f"{told.ok:,} of {told.requests:,} answered ({rate}); {speed} a second"]
    if told.errors:
        lines.append("failed: " + ", ".join(f"{k} {n:,}" for k, n in told.errors.items()))
    usage = told.usage
    tokens = f"{usage.input_total:,} tokens in ({usage.cached_read:,} cached), {usage.output:,} out"
    if told.uncounted:
        tokens += f", and {told.uncounted:,} answers told none"
    cost = "unknown" if told.cost is None else f"{told.cost} {told.currency} by the price book"
    if told.cost is not None and told.unpriced:
        cost += f", without {told.unpriced:,} answers that have no price"
    if told.gateway_cost is not None:
        cost += f"; the gateway says {told.gateway_cost}"
    return [*lines, tokens, f"cost {cost}"]


def _judged(report: Report) -> int:
    """Say in one line what went wrong; 0, 1 when nothing was answered, 130 when interrupted."""
    if report.interrupted:
        complain("interrupted; the figures are of the time until then")
        return 130
    for told in report.targets:
        if not told.ok:
            often = next(iter(told.errors), "nothing was due; give it more --duration")
            complain(f"no request to {told.url} succeeded; most often: {often}")
    return 0 if any(told.ok for told in report.targets) else 1
