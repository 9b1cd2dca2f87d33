"""The kernel that a notebook of the batch runs in: always this interpreter's.

    with own_kernel() as options:
        papermill.execute_notebook(..., **options)

Jupyter would take the first `python3` on JUPYTER_PATH, which may be another environment's.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets.config import Config

LONGEST = 70  # characters of the folder of sockets; a system takes a path of about 100


def short_folder() -> str:
    """The folder for temporary files, or /tmp where its path is too long for sockets."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST else "/tmp"


@contextmanager
def own_kernel() -> Iterator[dict[str, Any]]:
    """Arguments of papermill for a kernel of this interpreter.

    It talks by sockets that are files. A TCP port is chosen, released and only seconds later bound
    by the kernel; what takes it meanwhile, such as another stage, ends this one.
    """

    class OwnKernel(AsyncKernelManager):
        busy = False

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

        async def _async_interrupt_kernel(self) -> None:
            # Jupyter interrupts whatever it shuts down; an idle kernel reports that as an error.
            if self.busy or not self.shutting_down:
                await super()._async_interrupt_kernel()

    with tempfile.TemporaryDirectory(prefix="pekit", dir=short_folder()) as sockets:
        files = {"transport": "ipc", "connection_file": f"{sockets}/k.json"}
        yield {
            "kernel_name": "python3",
            "language": "python",
            "kernel_manager_class": OwnKernel,
            "config": Config(KernelManager=files),
            "on_cell_execute": lambda **_: setattr(OwnKernel, "busy", True),
            "on_cell_executed": lambda **_: setattr(OwnKernel, "busy", False),
        }
