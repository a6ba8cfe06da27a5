"""What Griffe, which reads our docstrings for the documentation, is to show otherwise."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class ExampleSections(Extension):
    """Lets an example with a prompt be shown as code: our section is `Example:`, and Griffe knows `Examples:`."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rename the section; called by Griffe for each thing that it reads."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)


class ConstantDefaults(Extension):
    """Shows a default that is a constant by its value: `max_age_s=2.0`, not `max_age_s=MAX_AGE`."""

    def on_package(self, *, pkg: Any, **_: Any) -> None:
        """Look at everything in the package; called by Griffe when all of it was read."""
        _show_defaults(pkg)


def _show_defaults(thing: Any) -> None:
    for member in thing.members.values():
        if member.is_alias:
            continue
        if member.is_function:
            for parameter in member.parameters:
                parameter.default = _constant(member, parameter.default)
        elif member.is_attribute and thing.is_class:  # of which those of a dataclass become parameters
            member.value = _constant(thing, member.value)
        elif member.is_module or member.is_class:
            _show_defaults(member)


def _constant(scope: Any, value: Any) -> Any:
    """The value of a constant of the module, if that is what `value` names; else `value`."""
    named = scope.module.members.get(str(value))
    return named.value if named is not None and named.is_attribute else value
