"""`async with` for what has to be closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Something that `async with` closes at its end."""

    async def __aenter__(self) -> Self:
        """Nothing yet."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it, whatever happened."""
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Give back what it holds."""
