"""From errors to messages and exit codes. A traceback is shown only to who asks for it."""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable
from typing import Any

import typer

from ..errors import IclError, InputError
from .output import tell

FINE, FAILED, USAGE, MISSED, PARTLY, INTERRUPTED = 0, 1, 2, 3, 4, 130
_FOLDER = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})
"""What a disk that is full, or a folder that may not be written, says."""
_PLACE = frozenset({errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP})
"""What a place says where no file of that name can be made, such as /proc."""


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """A command that ends with its exit code (None: 0), whatever happens in it.

    A parameter whose type is a dataclass stands for a group of options: its fields become options of the command.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            groups[name] = hint
            inner = typing.get_type_hints(hint, include_extras=True)
            parameters += [_keyword(field.name, field.default, inner[field.name]) for field in dataclasses.fields(hint)]
        else:
            parameters.append(_keyword(name, parameter.default, hint))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        raise typer.Exit(_code_of(command, values))

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _keyword(name: str, default: Any, hint: Any) -> inspect.Parameter:
    missing = default is dataclasses.MISSING
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if missing else default, annotation=hint)


def _code_of(command: Callable[..., int | None], values: dict[str, Any]) -> int:
    try:
        code = command(**values)
        sys.stdout.flush()
    except IclError as error:
        _show(error)
        return error.exit_code
    except KeyboardInterrupt as error:
        tell(str(error) or "icl: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`icl ls | head -1`). What is still buffered must not raise again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError as error:
        tell(f"icl: out of memory{f': {error}' if str(error) else ''}")
        tell("  Use a smaller memory budget, fewer rows (--limit), or a machine with more memory.")
        return FAILED
    except OSError as error:
        _show_refused(error)
        return FAILED
    except Exception as error:
        refused = _refused(error)
        if refused is None or _traceback_wanted():
            _show_unexpected(error)
        else:
            _show_refused(refused)
        return FAILED
    return code or FINE


def _show(error: IclError) -> None:
    if isinstance(error, InputError) and len(error.problems) > 1:
        tell(f"icl: {len(error.problems)} problems:")
        for problem in error.problems:
            tell(str(problem))
    else:
        tell(f"icl: {error}")
    if _traceback_wanted():
        traceback.print_exception(error)


def _refused(error: Exception) -> OSError | None:
    """What the system said of a file where the writer of weights puts it into an error of its own; None: the error is another."""
    said = str(error)
    if type(error).__name__ == "SafetensorError" and (number := re.search(r"\(os error (\d+)\)", said)):
        code, place = int(number[1]), re.search(r'at path "([^"]+)"', said)
        return OSError(code, os.strerror(code), place[1] if place else None)
    if isinstance(error, RuntimeError) and "inline_container" in said and "unexpected pos" in said:  # torch.save does not say why
        return OSError(errno.ENOSPC, "it could not be written to its end")
    return None


def _show_refused(error: OSError) -> None:
    """What the system says of a file or folder, and what to do."""
    if _traceback_wanted() or error.errno not in _FOLDER | _PLACE or (error.errno in _PLACE and not error.filename):
        _show_unexpected(error)
        return
    if error.errno in _FOLDER:
        fix = "Free some space, or name a folder that you may write."
    elif error.errno == errno.ENOENT:  # said of a file that is read as of one that is written
        fix = (
            "Either it was there and is gone by now, or its folder is not there and cannot be made: check the path, or name another place."
        )
    else:
        fix = "No such file can be made there: name another place."
    tell(f"icl: {error.filename or 'a file'}: {error.strerror}")
    tell(f"  {fix} Files are written whole or not at all: older ones are as they were.")


def _show_unexpected(error: Exception) -> None:
    if _traceback_wanted():
        traceback.print_exception(error)
        return
    lines = str(error).strip().splitlines() or ["(no message)"]
    tell(f"icl: unexpected {type(error).__name__}: {lines[0]}")
    tell("  This is a fault of icl or of a library under it. Set ICL_TRACEBACK=1 and run again to see where it happened.")


def _traceback_wanted() -> bool:
    return os.environ.get("ICL_TRACEBACK", "") not in ("", "0")
