"""The checks of `bake verify` on records and signatures as checks of `bake audit`, combined to one per kind."""

from __future__ import annotations

from collections.abc import Iterator

from baker.trust.attest.signing import TrustContext
from baker.trust.attest.verify import verify_records
from baker.trust.audit.checks import Check, Checker, Subject

TITLES = {"journal": "chain of records", "record": "records", "signature": "signatures", "provenance": "provenance"}


def checker(trust: TrustContext) -> Checker:
    """The checker for the records and signatures in `trust`."""

    def check(subject: Subject) -> Iterator[Check]:
        found = list(verify_records(subject.image, trust))
        for name, title in TITLES.items():
            of_kind = [each for each in found if each.name == name]
            failed = [f"{each.subject}: {each.detail}" for each in of_kind if each.ok is False]
            good = [each for each in of_kind if each.ok]
            unknown = [f"{each.subject}: {each.detail}" for each in of_kind if each.ok is None]
            if failed:
                yield Check(title, "failed", "; ".join(failed))
            elif good:
                summary = good[0].detail if len(good) == 1 else f"all {len(good)} are in order"
                yield Check(title, "ok", "; ".join([summary, *unknown]))
            elif unknown:
                yield Check(title, "unknown", "; ".join(unknown))

    return check
