"""The examples of /openapi.json; the tests send them."""

from typing import Any, Final

RECORDS: Final = [{"id": "123", "text": "Life is like a box of chocolates."}]

REQUESTS: Final[dict[str, Any]] = {
    "sentence": {"payload": {"fromLang": "en", "records": RECORDS, "toLang": "ja"}},
    "several": {
        "payload": {
            "fromLang": "en",
            "records": [
                {"id": 1, "text": "Good morning.\nHow are you?"},
                {"id": "greeting", "text": "See you tomorrow."},
                {"id": 1, "text": ""},
            ],
            "toLang": "de",
        }
    },
}

RESULT: Final = {"result": [{"id": "123", "text": "人生はチョコレートが好きです。"}]}

_ID: Final = "6f1c9a5be0d2477e8a3f0b6c5d4e3f2100"

TICKET: Final = {"id": _ID, "state": "queued", "total": 1, "done": 0, "estimatedSeconds": 0.4}

CANCELLED: Final = TICKET | {"state": "cancelled", "estimatedSeconds": 0.0}

JOB: Final = TICKET | {
    "state": "done",
    "done": 1,
    "estimatedSeconds": 0.0,
    "failed": 0,
    "model": "small",
    "fromLang": "en",
    "toLang": "ja",
    "createdAt": "2026-11-22T09:30:00.000Z",
    "deadlineAt": "2026-11-23T09:30:00.000Z",
    "result": RESULT["result"],
}
