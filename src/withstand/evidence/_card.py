"""What somebody should know of a corpus before using it: its data card."""

from __future__ import annotations

import json
from collections import Counter

from ._corpus import Corpus
from ._entry import Entry

_MOST = 12


def card(corpus: Corpus, *, title: str = "", licence: str = "") -> str:
    """A data card in Markdown: counts by kind, origin and label, versions, imports, limits."""
    versions, view = corpus.versions(), corpus.view()
    kinds: Counter[str] = Counter()
    attacks: Counter[str] = Counter()
    models: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    brought: Counter[str] = Counter()
    shapes = {
        (version.number, shard.name): f"{shard.dtype} {shard.shape}"
        for version in versions
        for shard in version.shards
    }
    for entry in corpus.entries(distrusted=True):
        kinds[_kind(entry, trusted=view.trusts(entry))] += 1
        attacks[entry.attack] += 1
        models[entry.origin.model[:16] or "not known"] += 1
        forms[shapes[entry.version, entry.shard]] += 1
        labels["none" if entry.label is None else json.dumps(entry.label)] += 1
        if entry.kind == "flagged":
            verdicts[entry.verdict or "not looked at"] += 1
        if entry.origin.imported:
            brought[entry.origin.imported] += 1
    head = versions[-1] if versions else None
    told = [
        f"# {_plain(title or corpus.path.name)}",
        "",
        f"- Licence: {_plain(licence) or 'not stated: ask before you pass it on'}",
        f"- Entries: {sum(kinds.values()):,}",
        f"- Version: {head.number if head else 0}, digest `{head.digest if head else '-'}`",
        f"- Written: {versions[0].time} to {versions[-1].time}" if versions else "- Written: never",
        "",
    ]
    told += _table("Kind", kinds) + _table("Type and shape", forms) + _table("Made by", attacks)
    told += _table("Against the model", models) + _table("Label", labels)
    if verdicts:
        told += _table("Verdict on flagged inputs", verdicts)
    if view.imports:
        told += ["## Imports", ""]
        told += ["| exchange | entries | key | sender | licence | trusted |", "|---" * 6 + "|"]
        for name, remark in view.imports.items():
            about = [_plain(str(remark.about.get(key, ""))) for key in ("key", "sender", "licence")]
            trusted = f"by {_plain(remark.by)}" if remark.trusted else "no"
            cells = [f"`{name[:16]}`", f"{brought[name]:,}", f"`{about[0][:16]}`", *about[1:]]
            told.append(f"| {' | '.join([*cells, trusted])} |")
        told.append("")
    return "\n".join([*told, _LIMITS])


_LIMITS = """## Limits

- It is no sample of any traffic: it holds what attacks found and guards suspected. Rates computed
  on it say nothing about rates in the field.
- An adversarial example fooled the model that it names, and may not fool another.
- A flagged input was suspicious to a guard. Without a verdict nobody has looked at it.
- Imported entries were made by others. They are left out until somebody trusts them.
- Inputs may be personal data, and what was erased elsewhere is not erased here.
"""


def _kind(entry: Entry, *, trusted: bool) -> str:
    if not entry.origin.imported:
        return entry.kind + ("" if trusted else ", called benign")
    return f"{entry.kind}, imported" + ("" if trusted else ", not trusted")


def _table(name: str, counts: Counter[str]) -> list[str]:
    rows = [f"| {_plain(key)} | {count:,} |" for key, count in counts.most_common(_MOST)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(_MOST))
    rows += [f"| {len(counts) - _MOST} others | {rest:,} |"] if rest else []
    return [f"| {name} | entries |", "|---|---:|", *rows, ""]


def _plain(text: str) -> str:
    """Text of unknown origin, on one line, with nothing that Markdown or a browser acts upon."""
    kept = "".join(c if c.isprintable() else " " for c in text)[:120]
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else {"<": "&lt;"}.get(c, c) for c in kept)
