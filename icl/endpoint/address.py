"""The address of a remote model, and the key that goes with it. Keys come from the environment alone and are written nowhere."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from ..errors import InputError, Problem

DEFAULT_KEY = "OPENAI_API_KEY"
_RECOGNISABLE = 8
"""Characters of a key's start that servers like to quote in their errors."""


@dataclass(frozen=True, slots=True)
class Address:
    """`https://host/v1#model-name`, taken apart."""

    base: str
    """Without a slash at the end, without the model."""
    model: str
    """Empty if the address names none."""
    host: str
    local: bool
    """On this machine or in a private network."""
    encrypted: bool

    def __str__(self) -> str:
        return f"{self.base}#{self.model}"


def parse(address: str) -> Address:
    """Take an address apart. Raises InputError; the message never repeats an address that could hold a secret."""
    if "@" in address.partition("#")[0]:  # looked for first: the parser quotes what it cannot read
        raise InputError(Problem("the model's address holds a user name or a key", f"{_KEYS} {_FORM}", field="model"))
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InputError(Problem("the model's address cannot be read: its host or port is none", _FORM, field="model")) from None
    if parts.query:
        raise InputError(Problem(f"the model's address on {host} has a query (?…)", f"{_KEYS} {_FORM}", field="model"))
    if not host:
        raise InputError(Problem(f"'{address}' names no host", _FORM, field="model"))
    base = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    return Address(base, unquote(parts.fragment), host, _is_local(host), parts.scheme.lower() == "https")


_FORM = "Write https://host/v1#model-name."
_KEYS = "Put the key into an environment variable and name that: api_key_env='OPENAI_API_KEY'."


def _is_local(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:  # a name: one without a dot is known to this machine's own network only
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
    return found.is_private or found.is_loopback or found.is_link_local


@dataclass(frozen=True, slots=True)
class Key:
    """Where the key stands. The value itself is read when a request is sent and kept nowhere."""

    variable: str
    sent: bool
    """False: there is none, or the connection would carry it in the clear."""

    def headers(self) -> dict[str, str]:
        value = self.value()
        return {"Authorization": f"Bearer {value}"} if value else {}

    def value(self) -> str:
        return os.environ.get(self.variable, "").strip() if self.sent else ""

    def redacted(self, text: str) -> str:
        """The text without the key, in any of the spellings in which servers and libraries give it back."""
        value = os.environ.get(self.variable, "").strip()
        if not value:
            return text
        for spelling in (value, quote(value, safe=""), base64.b64encode(value.encode()).decode()):
            text = text.replace(spelling, "[key]")
        if len(value) >= 2 * _RECOGNISABLE:
            text = re.sub(re.escape(value[:_RECOGNISABLE]) + r"[^\s\"',}]*", "[key]", text)
        return text


def key_for(address: Address, variable: str | None) -> Key:
    """The key for an address. variable: as the user gave it; None: `OPENAI_API_KEY` if it is set.

    Raises InputError if a variable that was named is not set, or if its key would go to a foreign host unencrypted.
    """
    safe = address.encrypted or address.local
    if variable is None:
        return Key(DEFAULT_KEY, safe and bool(os.environ.get(DEFAULT_KEY, "").strip()))
    if not os.environ.get(variable, "").strip():
        raise InputError(Problem(f"the environment variable {variable} is not set", "Export it with the key.", field="api_key_env"))
    if not safe:
        raise InputError(
            Problem(f"a key would go to {address.host} unencrypted", "Use an https:// address, or no api_key_env.", field="api_key_env")
        )
    return Key(variable, True)
