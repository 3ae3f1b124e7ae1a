"""A client of the HTTP service, with nothing but Python's own library.

    drin-jax serve --model=sample --token-file=token &
    python examples/client.py [--url=http://127.0.0.1:8000] [--name=Kelfield] [--token-file=token]

Searches the knowledge base for a name, links it in a sentence with a picture (that of an entity),
annotates a text, and, with a token, adds an entity, links to it and takes it out again.
"""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen


def ask(address: str, body: Any = None, method: str = "", token: str = "") -> Any:
    """The JSON of an answer, or the bytes of a picture."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    asked = Request(address, data, headers, method=method or ("POST" if data else "GET"))
    try:
        with urlopen(asked, timeout=60) as answer:
            kind, content = answer.headers.get_content_type(), answer.read()
    except HTTPError as error:  # every mistake is {"error": one line}
        sys.exit(f"{address}: {error.code}, {json.load(error)['error']}")
    except URLError as error:
        sys.exit(f"{address}: {error.reason}; start it with drin-jax serve --model=sample")
    return json.loads(content) if kind == "application/json" else content


def show(found: Any) -> None:
    best = found["candidates"][0]
    print(f"  {found['mention']!r} is {best['id']} ({best['probability']:.0%}), ", end="")
    print(f"or nobody ({found['nil_probability']:.0%}): {best['description'][:60]}")


def main(url: str, name: str, token_file: Path | None) -> None:
    base = ask(f"{url}/kb")
    print(f"{base['entities']} entities in {base['name']}")
    namesakes = ask(f"{url}/entities?name={quote(name)}&k=5")["entities"]
    if not namesakes:
        sys.exit(f"nothing is called {name}; give another --name")
    print(f"{name} may be {', '.join(one['id'] for one in namesakes)}")

    text = f"One look was enough to recognise {name}."
    span = [text.index(name), text.index(name) + len(name)]
    for one in [one for one in namesakes if one["has_image"]][:2]:
        picture = ask(f"{url}/entities/{quote(one['id'], safe='')}/image")
        image = base64.b64encode(picture).decode()
        print(f"with the picture of {one['id']}")
        show(ask(f"{url}/link", {"text": text, "span": span, "image": image, "k": 1}))

    print("annotated")
    for found in ask(f"{url}/annotate", {"text": f"On Monday {name} was shown to us."})["mentions"]:
        show(found)

    if token_file:
        token, entity = token_file.read_text().strip(), f"{url}/entities/client-1"
        ask(entity, {"name": "Ottoline Quex", "description": "a guide"}, "PUT", token)
        print("added")
        show(ask(f"{url}/link", {"text": "Ottoline Quex told us.", "mention": "Ottoline Quex"}))
        ask(entity, method="DELETE", token=token)
        print(f"removed; {ask(f'{url}/kb')['entities']} entities")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    flags.add_argument("--name", default="Kelfield", help="that the knowledge base has")
    flags.add_argument("--token-file", type=Path, help="with it, the knowledge base is changed")
    main(**vars(flags.parse_args()))
