"""Prints docs/reference/python.md from the docstrings of every public name."""

import inspect

import droveway

HEAD = """# Python

Everything that `import droveway` gives; made from the docstrings by `make docs`. The sandbox for
your own tests is `droveway.sandbox`, see [its page](sandbox.md).
"""


def signature_of(value: object) -> str:
    """Return how a name is called; nothing where that says nothing."""
    if not callable(value):
        return ""
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    return signature.replace("droveway.", "").replace("collections.abc.", "").replace("typing.", "")


def methods_of(value: object) -> list[str]:
    """Return the public methods a class defines itself, with their first lines."""
    found = []
    for name, member in vars(value).items() if inspect.isclass(value) else ():
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        document = inspect.getdoc(inner.fget if isinstance(inner, property) else inner)
        told = inspect.isfunction(inner) or isinstance(inner, property)
        if told and document and not name.startswith("_"):
            call = "()" if inspect.isfunction(inner) else ""
            found.append(f"- `.{name}{call}`: {document.splitlines()[0]}")
    return found


def entry(name: str) -> str:
    """Return what the page says of a name."""
    value = getattr(droveway, name)
    parts = [f"## {name}", ""]
    shown = f"{name}{signature_of(value)}"
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    if not is_error and len(shown) < 1_500:
        parts += ["```text", shown, "```", ""]
    document = inspect.getdoc(value) or ""
    parts += ["```text", document, "```"]
    methods = [] if is_error else methods_of(value)
    return "\n".join([*parts, *([""] if methods else []), *methods])


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), *(entry(name) for name in droveway.__all__)]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
