"""Checkpoints that many processes write together, in the background, whole or not at all.

A checkpoint is a folder `step-00000500` of torch.distributed.checkpoint, with `about.json` and a list of SHA-256 sums
for each process. It is written under another name, and gets its own when every process has finished.
"""

import json
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from ditbook.training.distributed import World

KEPT = 2  # complete checkpoints; older ones are removed
ABOUT = "about.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A checkpoint, and what it says about itself."""

    folder: Path
    about: dict[str, Any]


class Snapshots:
    """The checkpoints of a run. All processes call each method, at the same time.

    Args:
        folder: where they lie, one that all processes see.
        world: the processes.
    """

    def __init__(self, folder: str | Path, world: World) -> None:
        self.folder, self.world = Path(folder), world
        self.group = dist.new_group(backend="gloo")  # its own: it is used while the training uses the others
        self.pool = ThreadPoolExecutor(1)
        self.job: Future[None] | None = None
        self.step = 0  # of the job

    def save(self, step: int, state: dict[str, Any], about: dict[str, Any]) -> None:
        """Copy the state, and write it while the training goes on.

        Args:
            step: names the checkpoint.
            state: nested dicts of tensors.
            about: what JSON can hold.

        Raises:
            OSError: this or the last checkpoint could not be written; those before are untouched.
        """
        self.poll(finish=True)
        self.step, partial = step, self._partial(step)
        fault = self._everywhere(self._begun(partial, about) if self.world.first else None)
        if fault:
            raise OSError(f"the checkpoint of step {step} cannot be written: {fault}")
        written = dcp.async_save(state, checkpoint_id=partial, process_group=self.group)
        self.job = self.pool.submit(self._completed, written, partial)

    def poll(self, finish: bool = False) -> None:
        """Publish the checkpoint that is being written, if all processes have finished, and remove old ones.

        Args:
            finish: wait until they have.

        Raises:
            OSError: it could not be written; those before are untouched.
        """
        if self.job is None:
            return
        if finish:
            wait([self.job])
        if not all(self.world.gather(self.job.done())):
            return
        error, self.job = self.job.exception(), None
        fault = self._everywhere(_reason(error) if error else None)
        if fault:
            if self.world.first:
                shutil.rmtree(self._partial(self.step), ignore_errors=True)
            free = shutil.disk_usage(self.folder).free / 1e9
            raise OSError(f"the checkpoint of step {self.step} could not be written ({free:.1f} GB are free): {fault}")
        if self.world.first:
            target = self.folder / f"step-{self.step:08d}"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier run, and damaged
            os.replace(self._partial(self.step), target)
            for old in self._complete()[KEPT:]:
                shutil.rmtree(old)
        dist.barrier(self.world.group)

    def newest(self) -> Found | None:
        """The newest checkpoint that is undamaged; None where there is none at all.

        Those passed over are named in warnings.

        Raises:
            ValueError: there are checkpoints, and all are damaged.
        """
        found = self._complete()
        for folder in found:
            fault = self._everywhere(self._fault(folder))
            if fault is None:
                return Found(folder, json.loads((folder / ABOUT).read_text(encoding="utf-8")))
            if self.world.first:
                logger.warning("%s is passed over: %s", folder, fault)
        if found:
            raise ValueError(f"no checkpoint in {self.folder} is whole; remove the folder to start anew")
        return None

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Read a checkpoint into the tensors of `state`, whatever number of processes wrote it."""
        dcp.load(state, checkpoint_id=folder, process_group=self.group)

    def _partial(self, step: int) -> Path:
        return self.folder / f"partial-{step:08d}"

    def _complete(self) -> list[Path]:
        """The checkpoints that were published, the newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _begun(self, partial: Path, about: dict[str, Any]) -> str | None:
        """Make an empty folder with `about`; return what went wrong."""
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / ABOUT).write_text(json.dumps(about | {"processes": self.world.size}), encoding="utf-8")
        except OSError as error:
            return str(error)
        return None

    def _completed(self, written: Any, partial: Path) -> None:
        """Wait until the files are written, and write the sums of this process's."""
        written.result()
        own = sorted(partial.glob(f"__{self.world.rank}_*")) + [partial / ".metadata"] * self.world.first
        text = json.dumps({path.name: _sum_of(path) for path in own})
        (partial / f"sums-{self.world.rank}.json").write_text(text, encoding="utf-8")

    def _fault(self, folder: Path) -> str | None:
        """What is wrong with the part of a checkpoint that this process verifies."""
        try:
            processes = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["processes"]
            sums: dict[str, str] = {}
            for rank in range(processes):
                sums |= json.loads((folder / f"sums-{rank}.json").read_text(encoding="utf-8"))
            for name in sorted(sums)[self.world.rank :: self.world.size]:
                if _sum_of(folder / name) != sums[name]:
                    return f"{name} is damaged (SHA-256 differs)"
        except (OSError, ValueError, KeyError) as error:
            return str(error)
        return None

    def _everywhere(self, fault: str | None) -> str | None:
        """The first fault of any process."""
        return next((other for other in self.world.gather(fault) if other), None)


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    """The cause of an error, which torch.distributed.checkpoint wraps in the errors of all processes."""
    failures = getattr(error, "failures", {})
    return str(next(iter(failures.values()))[0]) if failures else str(error)
