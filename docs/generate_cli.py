"""Write docs/cli.md from the command definitions, or with --check say whether it is up to date.

The text is put together from names, options and help strings instead of the printed `--help`, whose layout changes with the
version of typer and the width of the terminal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from icl.cli.app import app

TARGET = Path(__file__).resolve().parent / "cli.md"


def page() -> str:
    command = get_command(app)
    parts = [
        "# Command line",
        "Written by `make docs` from the commands themselves; `make docs-check` compares.",
        *_section(command, "icl"),
    ]
    return "\n\n".join(parts) + "\n"


def _section(command: Any, path: str) -> list[str]:
    subcommands = getattr(command, "commands", {})
    parts = [f"## `{path}`", _paragraph(command.help)]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    usage = " ".join([path, *(["COMMAND"] if subcommands else [_argument(a) for a in arguments]), *(["[OPTIONS]"] if options else [])])
    parts.append(f"```text\n{usage}\n```")
    rows = [(f"`{_argument(a).strip('[]')}`", a.help) for a in arguments]
    rows += [(f"`{_option(o)}`", _with_default(o)) for o in options]
    if rows:
        parts.append("| | |\n|---|---|\n" + "\n".join(f"| {_cell(name)} | {_cell(_paragraph(text))} |" for name, text in rows))
    if command.epilog:
        parts.append(_paragraph(command.epilog))
    for name in subcommands:
        parts += _section(subcommands[name], f"{path} {name}")
    return parts


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[]")
    name = f"{name}…" if argument.nargs == -1 and not name.endswith("…") else name
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} {option.metavar or 'VALUE'}"


def _with_default(option: Any) -> str:
    shown = option.default is not None and option.default is not False and option.default != [] and not callable(option.default)
    return f"{option.help} Default: `{option.default}`." if shown else option.help


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET} differs from what the command line says. Run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
