"""This file knows the single lines on stderr: a problem, and a remark beside the work."""

import click


def complain(message: str) -> None:
    """Say in one line what went wrong and what to do."""
    click.secho("error:", fg="red", bold=True, nl=False, err=True)
    click.echo(f" {' '.join(message.split())}", err=True)


def remark(message: str) -> None:
    """Say something beside the work."""
    click.secho(message, dim=True, err=True)
