"""Pages of the reference that are made of the code, by their place in `docs/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from docs_site.pages.fields import fields_page
from docs_site.pages.flags import flags_page
from docs_site.pages.messages import messages_page

PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "reference/fields.md": fields_page,
        "reference/flags.md": flags_page,
        "reference/messages.md": messages_page,
    }
)
