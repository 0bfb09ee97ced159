"""A torch module that is run and left as it was."""

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_CONTAINERS = {list, dict, set, deque, OrderedDict, defaultdict}


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """The module in eval mode, and afterwards everything as it was: modes, buffers, attributes, random states.

    Attributes have their values back, and tensors, lists, dicts, sets and deques among them their contents. What
    ``forward`` changes inside of other objects, or outside of the module, stays changed.
    """
    kept = [_Kept(module) for module in model.modules()]
    states = random.getstate(), np.random.get_state()  # the global one is what must be given back
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(devices)):
        model.eval()
        try:
            yield
        finally:
            for module in kept:
                module.put_back()
            random.setstate(states[0])
            np.random.set_state(states[1])


class _Kept:
    """One module's own state, of which weights are no part: nothing that is run here changes them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._scripted = isinstance(module, torch.jit.ScriptModule)
        lazy = isinstance(module, torch.nn.modules.lazy.LazyModuleMixin)  # becomes another class, which stays
        self._attributes: dict[str, Any] = {} if self._scripted or lazy else dict(vars(module))
        self._contents = {k: v.copy() for k, v in self._attributes.items() if type(v) in _CONTAINERS}
        self._mode = getattr(module, "training", None)  # a frozen TorchScript has none
        self._buffers = dict(module._buffers)  # forward may put others in their place
        own = [v for v in self._attributes.values() if isinstance(v, torch.Tensor) and v.layout == torch.strided]
        tensors = [buffer for buffer in (*self._buffers.values(), *own) if buffer is not None and not buffer.is_meta]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def put_back(self) -> None:
        """Make everything what it was."""
        if self._attributes:
            own = vars(self._module)
            own.clear()
            own.update(self._attributes)
        for name, before in self._contents.items():
            container = self._attributes[name]
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(before)
        if self._mode is not None:
            self._module.training = self._mode
        if self._scripted:  # keeps its own table, always with the same names
            for name, buffer in self._buffers.items():
                if dict(self._module._buffers)[name] is not buffer:
                    setattr(self._module, name, buffer)
        with torch.no_grad():
            for tensor, value in self._tensors:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
