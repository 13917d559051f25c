"""A tool call as one text for judges and rules, and back."""


def call_text(name: str, arguments: str) -> str:
    """`name(arguments)`."""
    return f"{name}({arguments})"


def arguments_of(name: str, text: str) -> str:
    """The arguments in what became of a call's text; the name stays as it was."""
    return text.removeprefix(f"{name}(").removesuffix(")")
