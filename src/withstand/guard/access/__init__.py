"""Who asks, whether they may, and how often: keys, quotas, and the guard's own secrets."""

from ._access import NOBODY, Access, within
from ._keys import Key, Keys
from ._mac import Mac
from ._quota import Quota, Rate
from ._secrets import Secrets

__all__ = ["NOBODY", "Access", "Key", "Keys", "Mac", "Quota", "Rate", "Secrets", "within"]
