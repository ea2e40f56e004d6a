"""Reading a Detectron2 config: every option must be understood, or it stops by name."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError


class Options:
    """The given options, and the reference's values for those that were left out; remembers which of the given were read."""

    def __init__(self, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.options, self.unread = {**(defaults or {}), **options}, set(options)

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option; ConfigError when it is absent and has no default."""
        self.unread.discard(name)
        if name not in self.options and default is None:
            raise ConfigError(name, None, "is missing")
        return self.options.get(name, default)

    def choose(self, name: str, choices: Mapping[Any, Any], default: Any = None) -> Any:
        """What the option's value stands for among `choices`."""
        value = self.take(name, default)
        if value not in choices:
            raise ConfigError(name, value, f"is not supported. Choices: {', '.join(map(str, choices))}")
        return choices[value]

    def need(self, name: str, *allowed: Any) -> None:
        """ConfigError when the option is given with another value than the ones that are built."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            raise ConfigError(name, value, f"is not supported. Choices: {', '.join(map(str, allowed))}")

    def ignore(self, *prefixes: str) -> None:
        """Options that mean nothing to this architecture."""
        self.unread = {name for name in self.unread if not name.startswith(prefixes)}

    def require_all_read(self) -> None:
        """ConfigError naming the options that nothing asked for."""
        if self.unread:
            names = ", ".join(sorted(self.unread))
            raise ConfigError(names, None, "is not known: this translation would change the model silently")
