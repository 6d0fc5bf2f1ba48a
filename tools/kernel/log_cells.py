"""IPython startup file: after every cell, append a JSON line with its time, its memory and whose `helpers` it uses.

`tools.run_pages` copies this file into the profile of the kernels it starts and reads the lines afterwards.
"""


def _start() -> None:
    import json
    import os
    import sys
    import time

    from IPython import get_ipython

    def peak_bytes() -> "int | None":
        # VmHWM is this process's own; ru_maxrss would also count the process that started the kernel.
        try:
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            pass
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    shell, log = get_ipython(), os.environ["HELPERS_CELLS_LOG"]
    notebook, born = os.environ.get("HELPERS_NOTEBOOK", "?"), time.perf_counter()
    state = {"cell": 0, "began": born}

    def before(info: object) -> None:
        state["began"] = time.perf_counter()

    def after(result: object) -> None:
        now = time.perf_counter()
        state["cell"] += 1
        row = {
            "notebook": notebook,
            "cell": state["cell"],
            "seconds": now - state["began"],
            "total_seconds": now - born,
            # What the page costs whatever else the machine does: the processor's time of all threads since the start.
            "cpu_seconds": time.process_time(),
            "peak_bytes": peak_bytes(),
            "helpers": getattr(sys.modules.get("helpers"), "__file__", None),
        }
        with open(log, "a", encoding="utf8") as lines:
            lines.write(json.dumps(row) + "\n")

    shell.events.register("pre_run_cell", before)
    shell.events.register("post_run_cell", after)


_start()
del _start
