"""JSON Schema of a device profile: `python -m config.profile_schema`.

`config/device_profiles/schema.json` is what this prints; a test holds the one to the other.
"""

from __future__ import annotations

import json
import sys

from config.profile_model import ProfileDocument


def schema() -> str:
    """The schema, for editors that complete and check while one writes."""
    document = ProfileDocument.model_json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by `python -m config.profile_schema`: change config/profile_model.py.",
    }
    return json.dumps({**head, **document}, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
