"""A process of its own, to be killed: ``python -m tests.embedding.sharing.shard_process TABLE OUTPUT BATCH``."""

import os
import signal
import sys

from nl3d.embedding.network import seeded
from nl3d.embedding.sharing.shards import embed_to_file
from tests.embedding.people import TinyNet


def main(table, output, last_batch):
    model = seeded(TinyNet)

    def count(*_):
        if len(model.seen) == int(last_batch):
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(count)
    embed_to_file(table, model, output, batch_size=2, batches_per_part=3)


if __name__ == "__main__":
    main(*sys.argv[1:])
