"""This file knows what a help page looks like: one sentence, examples to paste, then options."""

from collections.abc import Callable
from typing import Any

import click

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command whose help shows examples before its options.

    Args:
        examples: Lines to paste.
        options: As for click's command.
    """

    def __init__(self, *, examples: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401 - those of click, which checks them
        super().__init__(**{"context_settings": CONTEXT, **options})
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sentence, and the examples under it."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A group of commands; its help shows examples before them.

    Args:
        examples: Lines to paste.
        options: As for click's group.
    """

    def __init__(self, *, examples: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401 - those of click, which checks them
        super().__init__(**{"context_settings": CONTEXT, **options})
        self.examples = examples

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sentence, and the examples under it."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


def command(
    name: str,
    *examples: str,
    **options: Any,  # noqa: ANN401 - those of click, which checks them
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command; its docstring is the one sentence.

    Args:
        name: What is typed.
        examples: Lines to paste.
        options: As for click's command.
    """
    return click.command(name, cls=Command, examples=examples, **options)


def write_examples(examples: tuple[str, ...], formatter: click.HelpFormatter) -> None:
    """Write examples as lines that can be pasted: they are never wrapped."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
