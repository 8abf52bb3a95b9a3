"""Who may see the pages and act on them."""

from ._accounts import ROLES, Account, Accounts, Role
from ._sessions import Session, Sessions, form_token
from ._throttle import Throttle

__all__ = [
    "ROLES",
    "Account",
    "Accounts",
    "Role",
    "Session",
    "Sessions",
    "Throttle",
    "form_token",
]
