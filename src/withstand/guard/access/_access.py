"""Who asks, and whether they may now."""

from __future__ import annotations

from .._message import Headers, Request
from ..wire import RequestError
from ._keys import Key, Keys
from ._quota import Quota

NOBODY = Key(id="open", tenant="default")
"""Who asks where no key is wanted."""


class Access:
    """Keys and quotas; without keys everybody is let in as one client.

    most: requests of one key at one time where there are several, None for any number. A key comes
    as `x-api-key` or as a bearer token. Raises RequestError, 401, 429 or 503.
    """

    def __init__(
        self, keys: Keys | None, quota: Quota | None = None, *, most: int | None = None
    ) -> None:
        self.keys, self.quota, self.most = keys, quota, most
        self._shared = most is not None and keys is not None and len(keys) > 1
        self._under_way: dict[str, int] = {}

    def admit(self, request: Request) -> tuple[Key, Headers]:
        """Whose request it is, and what is told of the quota that is left."""
        key = self.whose(request.headers)
        return key, [] if self.quota is None else within(self.quota, key)

    def begin(self, key: Key) -> None:
        """Count a request that is under way until `end`, so that no key takes all the room."""
        if self._shared:
            now = self._under_way.get(key.id, 0)
            if now >= (self.most or 0):
                raise RequestError(503, "busy_key", "try again later", [(b"retry-after", b"1")])
            self._under_way[key.id] = now + 1

    def end(self, key: Key) -> None:
        """A request that had begun has been answered."""
        if self._shared:
            now = self._under_way.pop(key.id) - 1
            if now:
                self._under_way[key.id] = now

    def whose(self, headers: Headers) -> Key:
        """Whose request it is, without a count."""
        if self.keys is None:
            return NOBODY
        shown = []
        for name, value in headers:
            if name == b"x-api-key":
                shown.append(value)
            elif name == b"authorization":
                shown.append(value[7:] if value[:7].lower() == b"bearer " else value)
        # Two keys are nobody's: servers would differ about which one counts.
        found = self.keys.find(shown[0].decode("latin-1")) if len(shown) == 1 else None
        if found is None:
            raise RequestError(
                401, "key", "no valid API key; send it as x-api-key or Authorization: Bearer"
            )
        return found


def within(quota: Quota, key: Key) -> Headers:
    """Headers that tell of a client's quota; raises RequestError 429 where it is used up."""
    verdict = quota.take(key.id)
    headers = []
    for name, value in quota.headers(verdict).items():
        headers.append((name.encode(), value.encode()))
    if not verdict.allowed:
        raise RequestError(429, "quota", "too many requests; slow down", headers)
    return headers
