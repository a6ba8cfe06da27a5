"""Our docstrings call a section `Example:`; Griffe, which reads them for the documentation, knows `Examples:`."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class ExampleSections(Extension):
    """Lets an example with a prompt be shown as code."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rename the section; called by Griffe for each thing that it reads."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
