"""A linker over HTTP: JSON for programs, a page for people.

    drin-jax serve --model=PLACE [--kb=KB] [--host=127.0.0.1] [--port=8000]
                   [--token-file=FILE] [--batch=64] [--wait-ms=3] [--queue=1024]
                   [--max-batch=256] [--max-text=CHARACTERS] [--max-body=BYTES]
                   [--max-pixels=PIXELS] [--open]

PLACE is "sample", a finished run's workdir, a folder of a model, or its name on the hub; with --kb
it links to another knowledge base than its own. The port opens once the model is ready; then a line
tells the address, where a page tries it out and /docs describes every request. With --token-file,
who shows the token that FILE holds may change the knowledge base; without, nobody may. SIGTERM and
Ctrl-C finish what was taken, and end with 0. Needs the extra `serve`.
"""

import gc
import webbrowser
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.schema import UserError, reason
from drin_jax import command

FLAGS = flags.FLAGS


def main() -> None:
    """Serve until a signal comes."""
    try:
        from drin_jax.linking.server import serving
    except ModuleNotFoundError as error:
        if f"{error.name}.".startswith(("drin_jax.", "data_pipeline.")):
            raise
        raise UserError(f"{error.name} is missing; pip install 'drin_jax[serve]'") from None
    from drin_jax.linking.linker import Linker
    from drin_jax.linking.server.bounds import Bounds
    from drin_jax.linking.server.service import Service

    if not FLAGS.model:
        raise UserError("--model is missing; give sample, a workdir, a folder or a name on the hub")
    given: dict[str, Any] = FLAGS.flag_values_dict()
    bounds = Bounds(
        text=given["max-text"],
        body=given["max-body"],
        pixels=given["max-pixels"],
        items=given["max-batch"],
        queue=given["queue"],
        batch=given["batch"],
        wait=given["wait-ms"] / 1000,
    )
    token = _token(given["token-file"])
    taken = serving.bound(FLAGS.host, FLAGS.port)  # before the model is waited for
    linker = Linker.from_pretrained(FLAGS.model, kb=FLAGS.kb)
    linker.warm_up(bounds.batch)
    gc.collect()
    gc.freeze()  # what stays for good is not gone through again with every few answers
    kb = linker.kb.info()
    told = f"{kb['entities']:,} entities of {kb['name']}, model {linker.model}"
    told += ", writable" if token else ""
    ready = f"{serving.address(taken)} links to {told}"

    def announce() -> None:
        print(ready, flush=True)
        if FLAGS.open:
            webbrowser.open(serving.address(taken))

    serving.serve(Service(linker, bounds, token), taken, announce)


def _token(file: str | None) -> str:
    """What --token-file holds; "" without one. UserError where it holds no token."""
    if file is None:
        return ""
    try:
        token = Path(file).read_text().strip()
    except (OSError, ValueError) as error:
        raise UserError(f"--token-file {file} cannot be read: {reason(error)}") from None
    if not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UserError(f"--token-file {file} has to hold one word of ASCII, the token")
    return token


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir, folder, name on the hub, or sample.")
    flags.DEFINE_string("kb", None, "Knowledge base to link to, in place of the model's own.")
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all of this machine.")
    flags.DEFINE_integer("port", 8000, "Port to listen on; 0: any that is free.")
    flags.DEFINE_bool("open", False, "Show the page in this machine's browser.")
    flags.DEFINE_string("token-file", None, "File of the token that writers have to show.")
    flags.DEFINE_integer("batch", 64, "Mentions that are linked together, at most.")
    flags.DEFINE_float("wait-ms", 3, "Milliseconds that a mention waits for others, at most.")
    flags.DEFINE_integer("queue", 1024, "Mentions that may wait; more are told to come back.")
    flags.DEFINE_integer("max-batch", 256, "Mentions of a request to /link/batch.")
    flags.DEFINE_integer("max-text", 10_000, "Characters of a text.")
    flags.DEFINE_integer("max-body", 8 << 20, "Bytes of a request's body.")
    flags.DEFINE_integer("max-pixels", 40_000_000, "Pixels of a picture.")
    command.run(main)
