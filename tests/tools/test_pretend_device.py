"""The pretended accelerator computes what the CPU computes, and refuses what CUDA refuses.

A device cannot be registered for a while, so all of this runs in one other process.
"""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from chapter import DEVICE_LINE

TOOLS = Path(__file__).resolve().parents[2] / "tools"
START = """
import copy, io, json, sys
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from pretend_device import OnDevice, PretendDevice

def there(x):
    return x.to("pretend")

def run(code):
    names = {**globals(), "x": torch.randn(6, 4, generator=torch.Generator().manual_seed(0))}
    try:
        exec(code, names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

torch.manual_seed(0)
with PretendDevice():
    print(json.dumps([run(code) for code in json.load(sys.stdin)]))
"""
WORKS = {
    "moving": "d = there(x); assert d.device.type == 'pretend' and torch.equal(d.cpu(), x) and there(d) is d",
    "making": """
for make in (torch.zeros, torch.ones, torch.randn):
    assert isinstance(make(3, device="pretend"), OnDevice)
d = torch.tensor([1, 2], device="pretend")
assert d.tolist() == [1, 2] and d.new_zeros(3).device == torch.arange(3, device=d.device).device == d.device
""",
    "numbers": "d = there(x); assert d.sum().item() == float(x.sum()) and f'{d[0, 0]:.2f}' == f'{x[0, 0]:.2f}'",
    "printing": "assert repr(there(torch.tensor([1, 2]))) == \"tensor([1, 2], device='pretend:0')\"",
    "a number from the CPU": "assert torch.equal((there(x) + x[0, 0]).cpu(), x + x[0, 0])",
    "indices from the CPU": "assert torch.equal(there(x)[torch.tensor([2, 0])].cpu(), x[[2, 0]])",
    "views": "d = there(x); d[1:3] = 2; d[0].add_(1); assert d[1:3].eq(2).all() and d[0].cpu().equal(x[0] + 1)",
    "shapes in place": "d = there(x).transpose_(0, 1); assert d.shape == (4, 6) and torch.equal(d.cpu(), x.T)",
    "parameters": """
model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
model[1].weight = model[0].weight
before, alive = list(model.parameters()), model(x).sum()
model.to("pretend")
assert all(a is b for a, b in zip(before, model.parameters(), strict=True)) and isinstance(before[0], nn.Parameter)
assert model[0].weight is model[1].weight and copy.deepcopy(model)(there(x)).device.type == "pretend"
model.cpu().load_state_dict(there(model).state_dict())
""",
    "assigned data": "m = there(nn.Linear(4, 4)); m.weight.data = there(x[:4]); assert m.weight.cpu().equal(x[:4])",
    "training": """
for options in ({}, {"fused": True}, {"foreach": True}):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4))
    ends = []
    for net, rows in ((copy.deepcopy(model), x), (there(model), there(x))):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, **options)
        for _ in range(3):
            optimizer.zero_grad()
            net(rows).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        ends.append(net(rows).cpu())
    assert torch.allclose(*ends, atol=1e-5)
""",
    "layers": """
attend = lambda z: F.scaled_dot_product_attention(z, z, z, is_causal=True)
layers = [attend, nn.Conv1d(6, 2, 3), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0)]
layers += [cls(4, 5, batch_first=True) for cls in (nn.RNN, nn.LSTM, nn.GRU)]
for layer in layers:
    here = layer(x[None])
    moved = layer(there(x[None])) if layer is attend else there(layer)(there(x[None]).requires_grad_())
    here, moved = (out[0] if isinstance(out, tuple) else out for out in (here, moved))
    assert torch.allclose(here, moved.cpu(), atol=1e-5), layer
    moved.sum().backward() if moved.requires_grad else None
""",
    "derivatives": "assert torch.func.jvp(torch.square, (there(x),), (there(x),))[1].cpu().equal(2 * x * x)",
    "other devices": "assert nn.Linear(2, 2).to('meta').weight.is_meta and there(x).to('meta').is_meta",
}
FAILS = {
    "two devices": ("there(x) + x", "same device"),
    "a layer elsewhere": ("nn.Linear(4, 4)(there(x))", "same device"),
    "a list of numbers from two devices": ("torch.stack([there(x).sum(), x.sum()])", "same device"),
    "a number of the CPU changed": ("x.sum().add_(there(x).sum())", "same device"),
    "indices from the device": ("x[there(torch.tensor([0]))]", "same device"),
    "values from the CPU": ("there(x)[[0, 1]] = x[:2]", "same device"),
    "numpy": ("there(x).numpy()", "call Tensor.cpu"),
    "an array": ("np.asarray(there(x))", "call Tensor.cpu"),
    "a generator and a device": ("torch.randn(3, generator=torch.Generator(), device='pretend')", "generator"),
    "a generator elsewhere": ("there(x).normal_(generator=torch.Generator())", "generator"),
}


@pytest.fixture(scope="module")
def said():
    """For each code None, or the error that it raised."""
    codes = [*WORKS.values(), *(code for code, _ in FAILS.values())]
    done = subprocess.run(
        [sys.executable, "-c", START], input=json.dumps(codes), capture_output=True, text=True, cwd=TOOLS, check=True
    )
    return dict(zip(codes, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", WORKS)
def test_it_computes_as_the_cpu_does(name, said):
    assert said[WORKS[name]] is None


@pytest.mark.parametrize("name", FAILS)
def test_it_refuses_what_cuda_refuses(name, said):
    code, message = FAILS[name]
    assert message in said[code]


def run(name):
    return subprocess.run([sys.executable, TOOLS / "pretend_device.py", name], capture_output=True, text=True)


@pytest.mark.parametrize("part", ["05:ch05-26", "13:ch13-08"])
def test_a_chapter_runs_there(part):
    """Its beginning, in which one trains and the other samples; whole chapters take minutes."""
    done = run(part)
    assert done.returncode == 0, done.stderr


def test_what_a_chapter_forgets_is_found(tmp_path):
    cells = [f"import torch\nx = torch.zeros(1, 2)\n{DEVICE_LINE}", "torch.nn.Linear(2, 2).to(device)(x)"]
    path = tmp_path / "01_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    done = run(str(path))
    assert done.returncode == 1
    assert "same device" in done.stderr
