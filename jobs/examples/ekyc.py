"""The example type `ekyc-verification`: is a user who they say they are?

Three checks at the same time, then a decision from what they brought.  The scores are reckoned from
the payload alone, so that the same user always fares the same; nothing is asked of any network.
"""

from __future__ import annotations

import hashlib
from typing import Any

from jobs.execution.context import StepContext
from pipeline.errors import PermanentError

DOCUMENT_KINDS = ("passport", "identity card", "driving licence")
MATCHES = 0.6  # a face this much alike is the document's
HIT_SHARE = 0.02  # of users share a name with somebody on a list


def document(context: StepContext) -> dict[str, Any]:
    """Which document was shown, and how legible it is."""
    user = _user(context)
    return {
        "kind": DOCUMENT_KINDS[int(_share(user, "kind") * len(DOCUMENT_KINDS))],
        "legible": round(0.7 + 0.3 * _share(user, "document"), 3),
    }


def face(context: StepContext) -> dict[str, Any]:
    """How much the face is like the document's."""
    alike = round(0.5 + 0.5 * _share(_user(context), "face"), 3)
    return {"alike": alike, "matches": alike >= MATCHES}


def sanctions(context: StepContext) -> dict[str, Any]:
    """Whether a list of sanctions has somebody of that name."""
    return {"hit": _share(_user(context), "sanctions") < HIT_SHARE}


def decision(context: StepContext) -> dict[str, Any]:
    """What the three checks add up to."""
    results = context.results
    missing = [name for name in ("document", "face", "sanctions") if name not in results]
    if missing:
        raise PermanentError(f"no decision without the results of {', '.join(missing)}")
    if results["sanctions"]["hit"]:
        return {"decision": "review", "because": "somebody of that name is on a list"}
    if not results["face"]["matches"]:
        return {"decision": "rejected", "because": "the face is not the document's"}
    return {"decision": "approved", "because": "all checks passed"}


def _user(context: StepContext) -> int:
    payload = context.payload
    user = payload.get("user_id") if isinstance(payload, dict) else None
    if isinstance(user, float) and user.is_integer():
        user = int(user)  # JSON Schema takes 1.0 for an integer
    if not isinstance(user, int) or isinstance(user, bool):
        raise PermanentError("the payload has no user_id that is a whole number")
    return user


def _share(user: int, check: str) -> float:
    """From 0 up to 1, by the user and the check alone."""
    digest = hashlib.sha256(f"{check}:{user}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
