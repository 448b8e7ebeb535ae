"""Run chapters on a pretended accelerator: python tools/pretend_device.py NOTEBOOK[:LAST-CELL] ...

Within `PretendDevice()` there is a device "pretend". Its tensors hold tensors of the CPU, which computes all results;
what CUDA refuses is refused: tensors of two devices in one operation, a generator of the CPU, NumPy. So a chapter
that runs here, with its numbers in their bands, moves its models and data as a GPU needs it.

A device cannot be registered for a while, so import this in a process of its own.
"""

import linecache
import os
import sys
import time
import traceback

import torch
from chapter import DEVICE_LINE, Chapter
from execute import find
from IPython.core.inputtransformer2 import TransformerManager
from torch import Tensor
from torch._decomp import decompositions
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME)
DEVICE, CPU = torch.device(NAME, 0), torch.device("cpu")
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
LISTS = {aten.cat.default, aten.stack.default}  # do not even take a single number from the CPU
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# a GPU has kernels for whole layers, which the CPU lacks
RECURRENT = {torch.lstm: decompositions.lstm_impl, torch.gru: decompositions.gru_impl}


class OnDevice(Tensor):
    """A tensor on the pretended device, which holds one on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **layout)
        tensor.held = held
        return tensor

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return RECURRENT.get(function, function)(*args, **kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        Tensor.data.__set__(self, value)
        self.held = value.held

    def numpy(self, **options):
        raise TypeError(f"can't convert a tensor on {self.device} to numpy: call Tensor.cpu() first")

    def __array__(self, *args, **options):
        return self.numpy()

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, spec):
        return format(self.cpu(), spec)

    def __repr__(self, **options):
        return f"{repr(self.detach().cpu())[:-1]}, device='{self.device}')"


def swap(a, b):
    """Exchange two tensors in `Module.to`, as PyTorch does, but also while a graph holds one of them."""
    a.__class__, b.__class__ = b.__class__, a.__class__
    a.__dict__, b.__dict__ = b.__dict__, a.__dict__
    torch._C._swap_tensor_impl(a, b)


class PretendDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on the device and moved there."""

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes on the CPU what it then moves
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects, as with CUDA
        self.swap, torch.utils.swap_tensors = torch.utils.swap_tensors, swap
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_swap_module_params_on_conversion(False)
        torch.utils.swap_tensors = self.swap
        return super().__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


def run(operation, args, kwargs):
    """Call an operation on the tensors that are held; where it belongs on the device, so do its results."""
    leaves = []
    _mapped(leaves.append, (args, kwargs))
    there = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, OnDevice)}
    if operation is aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    elif kwargs.get("device") is not None:
        on_device = kwargs["device"].type == NAME
    else:
        on_device = bool(there)
    if on_device and operation not in MOVES:
        refuse(operation, args, leaves)
    here, options = _mapped(_on_cpu, args), _mapped(_on_cpu, kwargs)
    if operation is aten._to_copy.default:
        options["non_blocking"] = False
    result = operation(*here, **options)
    if there and torch.Tag.inplace_view in operation.tags:
        with no_dispatch():
            return operation(*args, **kwargs)  # what holds takes the new shape, too

    def wrapped(part):
        if id(part) in there:
            return there[id(part)]  # an operation in place returns what it was given
        return OnDevice(part) if isinstance(part, Tensor) else part

    return _mapped(wrapped, result) if on_device else result


def refuse(operation, args, leaves):
    """Raise what CUDA would raise for an operation on the device."""
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{operation}: expected a '{NAME}' device type for generator but found 'cpu'")
    changed = args[0] if operation._schema.is_mutable and args else None
    if operation in INDEXED and isinstance(args[0], OnDevice):  # indices may be anywhere
        leaves = args[2:3]
    elsewhere = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice)]
    if any(leaf.ndim or operation in LISTS or leaf is changed for leaf in elsewhere):
        raise RuntimeError(f"{operation}: expected all tensors to be on the same device, found {NAME} and cpu")


def _mapped(function, tree):
    if isinstance(tree, tuple | list):
        return type(tree)([_mapped(function, part) for part in tree])
    if isinstance(tree, dict):
        return {name: _mapped(function, part) for name, part in tree.items()}
    return function(tree)


def _on_cpu(leaf):
    if isinstance(leaf, OnDevice):
        return leaf.held
    return CPU if isinstance(leaf, torch.device) and leaf.type == NAME else leaf


def run_chapter(path, last):
    """Run the code cells of a notebook, up to the last one if that is named, with `device` set to the pretended one.

    Raises:
        SystemExit: the notebook has no line that sets the device, or a cell fails, also by an assert.
    """
    chapter = Chapter.read(path)
    if chapter.device_lines != 1:
        raise SystemExit(f"{path.stem} must hold one line\n{DEVICE_LINE}")
    names = {"__name__": "__main__"}
    os.chdir(path.parent)
    for cell in chapter.code:
        source = TransformerManager().transform_cell(cell["source"].replace(DEVICE_LINE, f'device = "{NAME}"'))
        linecache.cache[cell["id"]] = len(source), None, source.splitlines(keepends=True), cell["id"]
        try:
            exec(compile(source, cell["id"], "exec"), names)
        except Exception:
            raise SystemExit(f"{path.stem}, cell {cell['id']}:\n{traceback.format_exc()}") from None
        if cell["id"] == last:
            break


if __name__ == "__main__":
    os.environ |= {"MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
    for name, _, last in [argument.partition(":") for argument in sys.argv[1:]]:
        path, start = find(name).resolve(), time.perf_counter()
        with PretendDevice():
            run_chapter(path, last)
        print(f"{path.stem} runs on the pretended device: {time.perf_counter() - start:.0f} s", flush=True)
