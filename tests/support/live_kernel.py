"""A notebook in a live kernel, cell by cell and in any order, as a person runs it in JupyterLab."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from jupyter_client.manager import KernelManager

from batch.kernel import short_folder
from batch.parameters import read_cells


class LiveNotebook:
    """The code cells of a notebook, by their number among all cells, and a kernel for them.

    Args:
        notebook: its parameters cell may be replaced, see `cells`.
        folder: where the kernel runs.
    """

    def __init__(self, notebook: Path, folder: Path) -> None:
        self.cells = {
            number: cell["source"]
            for number, cell in enumerate(read_cells(notebook))
            if cell["cell_type"] == "code"
        }
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        # Sockets that are files: no port can be taken by another process.
        self.manager = KernelManager(kernel_name="python3", transport="ipc")
        self.sockets = TemporaryDirectory(prefix="pekit", dir=short_folder())
        self.manager.connection_file = f"{self.sockets.name}/k.json"
        environment = {**os.environ, "WANDB_MODE": "disabled", "PEKIT_BATCH": "0"}
        self.manager.start_kernel(cwd=str(self.folder), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def restart(self) -> None:
        """Kill the kernel and start another one."""
        self.stop(now=True)
        self.start()

    def stop(self, now: bool = False) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=now)
        self.sockets.cleanup()

    @property
    def process(self) -> int:
        return self.manager.provisioner.pid

    def run(self, *numbers: int, interrupt_at: str = "") -> str:
        """Run cells up to the first error; returns what they printed and the error, as text.

        interrupt_at: interrupt the kernel once this text is printed.
        """
        told = ""
        for number in numbers:
            request, failed = self.client.execute(self.cells[number]), False
            for kind, content in self._messages(request):
                if kind == "stream":
                    told += content["text"]
                elif kind == "error":
                    failed = True
                    told += f"{content['ename']}: {content['evalue']}\n"
                if interrupt_at and interrupt_at in told:
                    self.manager.interrupt_kernel()
                    interrupt_at = ""
            if failed:
                break
        return told

    def _messages(self, request: str) -> Iterator[tuple[str, dict]]:
        """What the kernel sends for a request, until it is idle."""
        end = time.monotonic() + 300
        while True:
            message = self.client.get_iopub_msg(timeout=end - time.monotonic())
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["content"].get("execution_state") == "idle":
                return
            yield message["msg_type"], message["content"]
