"""Oracles of the ablation tests: the whole network run again for every filter, and what a layer has seen."""

import torch


def silenced(net, x, layer, call=1):
    """Logits, (B, K), and without each filter of a layer (in its call-th run), (F, B, K)."""
    module, runs, width, silent = net.get_submodule(layer), [], [], None

    def hook(_module, _inputs, output):
        runs.append(1)
        width[:] = [output.shape[1]]
        if silent is None or len(runs) != call:
            return None
        output = output.clone()
        output[:, silent] = 0
        return output

    was = net.training
    net.eval()
    handle = module.register_forward_hook(hook)
    with torch.no_grad():
        whole, without = net(x.clone()), []
        for silent in range(width[0]):  # noqa: B007 (the hook reads it)
            runs.clear()
            without.append(net(x.clone()))
    handle.remove()
    net.train(was)
    return whole, torch.stack(without)


def counted(net, layer):
    """Images that a layer sees, a list that grows run by run."""
    seen = []
    net.get_submodule(layer).register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    return seen
