"""One point of `bench.scaling`, in a process of its own: `python -m bench.scaling_process JOB.json`, served as
`bench.turns` wants it.

It binds itself to its cores and caps oneDNN before any library is loaded: both are looked at once, at that moment.
"""

import json
import os
import sys
from pathlib import Path


def main(path: str) -> None:
    """Serve the job in the JSON file `path` until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):  # Linux only
        os.sched_setaffinity(0, job["cores"])
    os.environ.update(job["environment"])
    from runtime.cores import hold_to

    hold_to(len(job["cores"]))
    from bench.scaling_work import WORK

    run = WORK[job["kind"]](job)
    print(json.dumps({"batch": 1}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps([run() for _ in range(int(line))]), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
