"""Names of a network's layers, and leaving the network as it was found."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

INPUT = "input"  # the name of x itself among the layers


def layer_names(model: nn.Module, kind: type | tuple[type, ...] = nn.Module) -> list[str]:
    """Names of the leaf modules, in order of registration.

    Args:
        model: any network.
        kind: keep only leaves of this type (or these types), for example `nn.Conv2d`.

    Returns:
        Names that `activations`, `gradients` and `masked_forward` accept. Those accept inner modules
        too ("layer4"); a module registered under two names is listed once.
    """
    leaves = ((name, module) for name, module in model.named_modules() if name and not any(module.children()))
    return [name for name, module in leaves if isinstance(module, kind)]


def check_feature_maps(maps: Tensor, layer: str, model: nn.Module) -> Tensor:
    """Return what a layer gave unchanged if it is feature maps, (B, C, h, w).

    Args:
        maps: the activations.
        layer: its name, for the message.
        model: its network, for the names of layers that may have some.

    Raises:
        ValueError: another rank.
    """
    if maps.ndim != 4:
        last = ", ".join(layer_names(model, (nn.Conv2d, nn.MaxPool2d, nn.ReLU))[-6:])
        hint = f"; layers that may have some are {last}" if last else ""
        raise ValueError(f"layer must have feature maps (B, C, h, w), got {layer!r} with {tuple(maps.shape)}{hint}")
    return maps


def named_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that these names stand for.

    Args:
        model: any network.
        names: as `activations` takes them; of "relu#2" the module "relu" is looked up, "input" is left out.

    Returns:
        name, without the number of the call -> module.

    Raises:
        ValueError: an unknown name; the nearest ones are listed.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    del known[""]
    if INPUT in names and INPUT in known:
        raise ValueError(f"model must have no module named {INPUT!r}, which stands for x, got one: rename it")
    bases = [name.partition("#")[0] for name in names if name != INPUT]
    for base in bases:
        if base not in known:
            near = difflib.get_close_matches(base, known, n=5, cutoff=0.4) or layer_names(model)[:10]
            raise ValueError(
                f"layer must be one of the network's, got {base!r}; the nearest names are {', '.join(near)}"
            )
    return {base: known[base] for base in bases}


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode with frozen parameters inside; afterwards the model exactly as it was found.

    Put back, also after an exception: each module's `training` and `inplace` flags and hooks (those added
    inside are removed), each parameter's `requires_grad` and `.grad`. Flags are set module by module, because
    a module may override `train()`, and modules may be in mixed modes.

    Args:
        model: any network.

    Yields:
        The same model.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    flags = [{key: vars(m)[key] for key in ("training", "inplace") if key in vars(m)} for m in modules]
    registries = [v for m in modules for key, v in vars(m).items() if "_hooks" in key and isinstance(v, dict)]
    hooks = [(registry, dict(registry)) for registry in registries]
    grads = [(p.requires_grad, p.grad) for p in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, saved in zip(modules, flags, strict=True):
            vars(module).update(saved)
        for registry, saved in hooks:
            registry.clear()
            registry.update(saved)
        for parameter, (requires_grad, grad) in zip(parameters, grads, strict=True):
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
