"""Published numbers to stand beside ours. None are bundled: each has to come with its source.

`--published FILE.json` takes a list of objects with these fields, all but `value` texts:

    [{"system": "the row's slug or title", "dataset": "as in the paper", "metric": "hits@1",
      "value": 0.5, "protocol": "candidates, gold in graph or not", "source": "paper, table"}]

`value` is a fraction, like ours. `metric` is `hits@K` or `mrr`. What was measured under another
protocol than ours is shown with its own and compared with nothing.
"""

import json
import math
from pathlib import Path
from typing import Any

from data_pipeline.schema import UserError

FIELDS = ("system", "dataset", "metric", "value", "protocol", "source")
NONE = "published numbers: none bundled; pass --published"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of published numbers; UserError naming the row that is odd."""
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--published {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"--published {path}: is no JSON ({error})") from None
    if not isinstance(rows, list):
        raise UserError(f"--published {path}: is no list of objects {{{', '.join(FIELDS)}}}")
    for i, row in enumerate(rows):
        problem = _problem(row)
        if problem:
            raise UserError(f"--published {path}: entry {i + 1} {problem}")
    return rows


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return "is no object"
    for field in FIELDS:
        if field not in row:
            return f"has no {field!r}; it needs {', '.join(FIELDS)}"
        if field != "value" and not (isinstance(row[field], str) and row[field].strip()):
            return f"has an empty or odd {field!r}; write a text"
    value = row["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"has the value {value!r}; write a number"
    if not 0 <= value <= 1:
        return f"has the value {value!r}; write a fraction from 0 to 1"
    if row["metric"] != "mrr" and not row["metric"].removeprefix("hits@").isdigit():
        return f"has the metric {row['metric']!r}; known are mrr, hits@K"
    return None
