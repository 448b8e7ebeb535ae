"""The tested package behind the executable book *From RNN to Diffusion Transformers*.

`import ditbook` is light: no submodule is loaded, and so no torch, before it is imported.
"""

__version__ = "0.1.0"
