"""Seconds until snapjudge is ready: import, help, loading mini (with and without torch's own import), one question from a cold start.

Each in a fresh process, the best of five; beside it what torch alone and transformers' BertModel take, in the same run.

    python -m benchmarks.startup
"""

import subprocess
import sys
import time

from benchmarks.common import record

CASES = {
    "python -c pass": "pass",
    "import snapjudge": "import snapjudge",
    "snapjudge --help": "import sys; sys.argv=['snapjudge','--help']\ntry:\n import snapjudge.cli.main as m; m.main()\nexcept SystemExit: pass",
    "import torch": "import torch",
    "load mini, torch's import included": "from snapjudge.model.hub import load_backbone; load_backbone()",
    "import transformers' BertModel": "from transformers.models.bert.modeling_bert import BertModel",
}


def main() -> None:
    seconds = {}
    for name, code in CASES.items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        seconds[name] = min(times)
    warm = "import torch, time; t=time.perf_counter(); from snapjudge.model.hub import load_backbone; load_backbone(); print(time.perf_counter()-t)"
    found = [float(subprocess.run([sys.executable, "-c", warm], check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    seconds["load mini, torch imported before"] = min(found)
    record("startup", {"seconds": seconds}, "python -m benchmarks.startup")


if __name__ == "__main__":
    main()
