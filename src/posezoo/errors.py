"""Errors that teach: what was given, what was expected, the nearest valid name, the way out.

`PosezooError` is the user's mistake: the command line prints it as one line and exits with code 2.
Anything else that escapes is ours, and exits with code 1.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class PosezooError(Exception):
    """A mistake that the user can mend; its text is one line that says how."""


class UnknownNameError(PosezooError):
    """A name that is in no catalogue."""


def unknown_name(what: str, given: str, valid: Iterable[str], hint: str = "") -> UnknownNameError:
    """The error for a wrong name: says what was given and the nearest valid names.

    Args:
        what: the kind of thing, such as "model" or "skeleton".
        given: the name as typed.
        valid: every name that would have done.
        hint: a closing sentence, such as the command that lists the names.
    """
    names = sorted(valid)
    any_case = {n.lower(): n for n in reversed(names)}
    close = [any_case[n] for n in difflib.get_close_matches(given.lower(), any_case, n=3, cutoff=0.6)]
    # a prefix of a long name is a better guess than any edit distance
    close += [n for n in names if given and n.lower().startswith(given.lower()) and n not in close][: 3 - len(close)]
    if close:
        advice = f"; did you mean {' or '.join(close)}?"
    elif len(names) <= 15:
        advice = f"; valid: {', '.join(names) or 'none, there are no such names'}"
        hint = "" if hint.startswith("(valid: ") else hint
    else:
        advice = ""
    return UnknownNameError(f"unknown {what} '{given}'{advice}{' ' + hint if hint else ''}")


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say in one line which extra of posezoo brings it.

    Args:
        module: the module's import name, such as "torch".
        extra: the extra that installs it, such as "torch".
        purpose: what needs it, such as "training".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.split(".")[0] != module.split(".")[0]:
            raise
        raise PosezooError(f"{purpose} needs {module}: pip install 'posezoo[{extra}]'") from None
