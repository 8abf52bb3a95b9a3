"""Who may log in."""

from __future__ import annotations

from ..._errors import OperationError
from .._site import Site
from .._web import Ask, Done, Page, Route
from ..access import ROLES


def login_page(site: Site, token: str, back: str, told: str) -> Page:
    """The form that lets somebody in."""
    empty = not site.accounts.all()
    values = {"token": token, "back": back, "told": told, "empty": empty, "config": site.path.name}
    return Page("login.html.j2", "Log in", values)


def people(site: Site, ask: Ask) -> Page:
    """Accounts and their roles."""
    values = {"here": "users", "accounts": site.accounts.all(), "roles": ROLES}
    return Page("people.html.j2", "People", values)


def add(site: Site, ask: Ask) -> Done:
    """A new account."""
    name = ask.form.get("name", "").strip().lower()
    site.accounts.add(name, ask.form.get("role", ""), ask.form.get("password", ""))
    return Done(f"{name} may log in", "/users")


def change(site: Site, ask: Ask) -> Done:
    """Another role."""
    name = ask.form.get("name", "")
    site.accounts.change(name, role=ask.form.get("role", ""))
    return Done(f"{name} has another role", "/users")


def remove(site: Site, ask: Ask) -> Done:
    """Take an account away, with its sessions; nobody's own."""
    name = ask.form.get("name", "")
    if name == ask.account.name:
        raise OperationError("this is your own account; let another admin take it away")
    site.accounts.remove(name)
    return Done(f"{name} may not log in any more", "/users")


def leave(site: Site, ask: Ask) -> Done:
    """Log out."""
    site.sessions.end(ask.session.token)
    return Done("the session is over", "/login")


ROUTES = (
    Route(path="/users", answer=people, role="admin"),
    Route(path="/users/add", answer=add, role="admin", action="add account",
          about="{name}", hidden=("password",)),
    Route(path="/users/change", answer=change, role="admin", action="change role",
          about="{name}"),
    Route(path="/users/remove", answer=remove, role="admin", action="remove account",
          about="{name}"),
    Route(path="/logout", answer=leave, action="log out"),
)  # fmt: skip
