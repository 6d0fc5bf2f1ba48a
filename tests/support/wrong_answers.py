"""Answers that the exercises' checks must refuse, by exercise: the mistakes that readers make."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from helpers import cam, data, metrics, saliency, similarnet
from helpers.capture import activations, logits_from
from helpers.networks import LeNet, load, normalize


def flipped(image, kernel):
    return F.conv2d(image[None, None], kernel.flip(0, 1)[None, None])[0, 0]


def padded(image, kernel):
    return F.conv2d(image[None, None], kernel[None, None], padding=1)[0, 0]


def swapped(image, kernel):
    return F.conv2d(image[None, None], kernel.T[None, None])[0, 0]


def square_only(image, kernel):
    side = image.shape[0] - kernel.shape[0] + 1
    return F.conv2d(image[None, None], kernel[None, None])[0, 0, :side, :side]


def three_by_three_only(image, kernel):
    result = torch.zeros(image.shape[0] - 2, image.shape[1] - 2)
    for u in range(3):
        for v in range(3):
            result += kernel[u, v] * image[u : u + result.shape[0], v : v + result.shape[1]]
    return result


def writes_into_the_image(image, kernel):
    answer = F.conv2d(image[None, None], kernel[None, None])[0, 0]
    image[: answer.shape[0], : answer.shape[1]] = answer
    return answer


def not_a_number(image, kernel):
    return F.conv2d(image[None, None], kernel[None, None])[0, 0] * float("nan")


def stride_of_its_own(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        size += (kernel - 1) * step
    return size


def strides_forgotten(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def kernels_added(layers):
    return sum(kernel for kernel, _ in layers)


def last_layer_only(layers):
    return layers[-1][0]


def naive_loss(logits, labels):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


def one_maximum_for_the_batch(logits, labels):
    safe = logits - logits.max()
    return (safe.exp().sum(1).log() - safe[torch.arange(len(labels)), labels]).mean()


def one_image(model_pool):
    return nn.Sequential(LeNet().features, model_pool, nn.Flatten(), nn.LazyLinear(10))


def blind_to_everything():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))
    nn.init.zeros_(model[2].weight)
    return model


def map_of(reduce, score="logit"):
    """A wrong saliency map: another way to make one number of the three slopes."""

    def answer(model, image, c):
        w = saliency.input_gradient(model, image[None], c, score=score)[0]
        return reduce(w)

    return answer


def map_that_fills_the_weights(model, image, c):
    x = image[None].clone().requires_grad_()
    model(x)[0, c].backward()
    return x.grad[0].abs().amax(0)


def map_of_all_classes(model, image, c):
    x = image[None].clone().requires_grad_()
    (w,) = torch.autograd.grad(model(x).sum(), x)
    return w[0].abs().amax(0)


def ascent(sign=1.0, factor=2.0, penalty=1.0):
    """A wrong step of ascent."""

    def step(model, image, c, l2, lr):
        w = saliency.input_gradient(model, image[None], c)[0]
        return image + sign * lr * (w - penalty * factor * l2 * image)

    return step


def blind(weight, value, network=None):
    """A network with one weight and an image with one pixel, for exercise 2.4."""
    model = network or nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = value
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        if network is None:
            model[1].weight[0, 0] = weight
    return model, image


def share_without_choosing():
    net = load("scenes-gmp", "cpu")
    s = data.scenes(200, 201, objects=2)
    maps = saliency.class_saliency(net, normalize(s.images, net), s.labels)
    own, other = (metrics.mass_in_mask(maps, m) for m in (s.masks, s.masks.flip(1)))
    return (own > other).double().mean().item()


SHARES = torch.tensor([[2.0, 1, 0], [0, -3, -1.5], [0, 0, 6]])  # the right map of exercise 3.1


def box_by(sides, at_least=False, refuse=True):
    def box(cam_map, share):
        if refuse and cam_map.max() <= 0:
            return torch.full((4,), float("nan"))
        limit = share * cam_map.max()
        rows, columns = ((cam_map >= limit) if at_least else (cam_map > limit)).nonzero().T
        return torch.stack(sides(rows, columns)) if len(rows) else torch.zeros(4)

    return box


def grad_cam_by(rule):
    def grad_cam(body, head, image, c):
        f = body(image[None]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(head(f)[0, c], f)
        return rule(slope, f).detach()

    return grad_cam


def grad_cam_that_fills_the_weights(body, head, image, c):
    f = body(image[None]).detach().requires_grad_()
    head(f)[0, c].backward()
    return (f.grad.mean((2, 3), keepdim=True) * f).sum(1)[0].relu().detach()


def right_errors(maps, head, y):
    filters = torch.arange(maps.shape[1])
    wrong = [(head(maps * (filters != i)[:, None, None]).argmax(1) != y).float().mean() for i in filters]
    return (head(maps).argmax(1) != y).float().mean(), torch.stack(wrong)


def errors_by(silence):
    def answer(maps, head, y):
        wrong = [(head(silence(maps, i)).argmax(1) != y).float().mean() for i in range(maps.shape[1])]
        return (head(maps).argmax(1) != y).float().mean(), torch.stack(wrong)

    return answer


def mean_ablation_by(value):
    def answer(model, layer, x, y):
        maps = activations(model, x, layer)[layer]
        errors = []
        for i in range(maps.shape[1]):
            changed = maps.clone()
            changed[:, i] = value(maps, i)
            errors.append(F.cross_entropy(logits_from(model, x, layer, changed), y))
        return torch.stack(errors)

    return answer


def side_of(linear, channels):
    return round((linear.in_features / channels) ** 0.5)


def convolution_by(lay_out, bias=True, padding=0):
    def answer(linear, channels):
        layer = nn.Conv2d(channels, linear.out_features, side_of(linear, channels), padding=padding, bias=bias)
        layer.weight.data = lay_out(linear.weight.data, layer.weight.shape).contiguous()
        if bias:
            layer.bias.data = linear.bias.data
        return layer

    return answer


def table_of(drop=None, **changes):
    def answer(features, images, masks, weights):
        def auc(w):
            maps = cam.upsample(similarnet.heatmap(features, w), tuple(images.shape[2:]))
            return metrics.pixel_auc(maps, masks).mean().item()

        rows = {"weighted": weights, "uniform": torch.ones_like(weights), "random": torch.rand(len(weights))}
        rows = {name: auc(changes[name](w) if name in changes else w) for name, w in rows.items()}
        rows["image"] = metrics.pixel_auc(images[:, 0], masks).mean().item()
        return {name: value for name, value in rows.items() if name != drop}

    return answer


def unfolded(
    distance=lambda d, k: d / k,
    weight=lambda d: d * torch.exp(-d),
    larger=lambda difference: difference.clamp(min=0),
    average=lambda zones: zones.mean(1),
    k=None,
    pad="constant",
):
    fixed = k

    def answer(x, k=7, a=0.1, b=0.9):
        k = fixed or k
        padded = F.pad(x[:, None], [k // 2] * 4, mode=pad)
        zones = F.unfold(padded, k).view(len(x), k * k, *x.shape[1:])
        offset = torch.arange(k, dtype=x.dtype) - k // 2
        d = distance(torch.hypot(offset[:, None], offset).flatten()[:, None, None], k)
        return a * (-average(zones)).exp() + b * (weight(d) * larger(zones - x[:, None])).sum(1)

    return answer


def forgetting(copied=True, forked=True, seeded=True, which=-1, every=False, draw=None):
    def answer(model, seed=0):
        network = copy.deepcopy(model) if copied else model
        layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
        with torch.random.fork_rng(devices=[], enabled=forked):
            torch.manual_seed(seed if seeded else 0)
            for layer in layers if every else [layers[which]]:
                layer.reset_parameters()
                if draw:
                    draw(layer)
        return network

    return answer


def falls(original, outside, control):
    whole, without_outside, without_as_much = (part.double().mean().item() for part in (original, outside, control))
    return whole - without_outside, whole - without_as_much, without_outside - without_as_much


def paired(outside, control):
    return ((outside.double() - control.double()).std() / len(outside) ** 0.5).item()


def circles(
    unit=lambda height, width: (min(height, width) / width, min(height, width) / height),
    radii=lambda r_min, n: r_min ** torch.linspace(0, 1, n),
    angles=lambda n: torch.arange(n) * 2 * math.pi / n,
    last=-1,
):
    def answer(n_radii, n_angles, r_min, height, width):
        r, a, (x, y) = radii(r_min, n_radii)[:, None], angles(n_angles), unit(height, width)
        return torch.stack([r * a.cos() * x, r * a.sin() * y], dim=last)

    return answer


def around_by(angles="circular", radii="constant", turn=lambda weight: weight):
    def answer(views, weight):
        closed = F.pad(F.pad(views, (2, 2, 0, 0), mode=angles), (0, 0, 2, 2), mode=radii)
        return F.conv2d(closed, turn(weight))

    return answer


def right_radii(outer, inner, share):
    return 1 + math.ceil(math.log(inner / outer) / math.log(1 - share))


def right_angles(share):
    return math.ceil(2 * math.pi / share)


def fused_by(joint, dim=-1):
    def answer(p0, pu, prior):
        posterior = joint(p0, pu, prior)
        return posterior if dim is None else posterior / posterior.sum(dim, keepdim=True)

    return answer


def bound_by(rule):
    def answer(p0, pu, prior):
        joint = p0 * pu / prior
        return rule(joint / joint.sum(-1, keepdim=True), p0, pu, prior)

    return answer


def looking(
    near=lambda away, radius: away <= radius,
    norm=2,
    forget=False,
    copied=True,
    forbidden=float("-inf"),
    stop=True,
):
    """A wrong scan path; `forget` lets all but the last place be looked at again."""

    def answer(scores, saccades, places=None, radius=0.0):
        left = scores.clone() if copied else scores
        path = []
        while len(path) < saccades and not (stop and (left == forbidden).all()):
            best = int(left.argmax())
            path.append(best)
            left = scores.clone() if forget else left
            left[best] = forbidden
            if places is not None:
                left[near((places - places[best]).norm(norm, dim=-1), radius)] = forbidden
        return path

    return answer


def luck(a, n):
    return 1 - (1 - a) ** n


def tries(a, measured):
    return math.log(1 - measured) / math.log(1 - a)


WRONG_ANSWERS = {
    "1.1": [
        lambda: (3, 224),
        lambda: (5, 224),
        lambda: (7, 224),
        lambda: (4, 80),
        lambda: (4, 216),
        lambda: (4, 219),
        lambda: 4,
        lambda: (4, 224, 0),
        lambda: None,
        lambda: (224, 4),
        lambda: ((4, 4), 224),
    ],
    "1.2": [
        lambda: ("23", 212),  # 100 pixels
        lambda: ("25", 212),  # not the first
        lambda: ("24", 196),  # the last ReLU
        lambda: ("24", 32),  # the stride
        lambda: ("conv5_1", 212),
        lambda: "24",
    ],
    "1.3": [
        flipped,
        padded,
        swapped,
        square_only,
        three_by_three_only,
        writes_into_the_image,
        not_a_number,
        lambda image, kernel: image,
        lambda image, kernel: None,
        lambda image, kernel: torch.zeros(image.shape[0] - kernel.shape[0] + 1, image.shape[1] - kernel.shape[1] + 1),
    ],
    "1.4": [
        lambda: torch.ones(3, 3),
        lambda: torch.ones(3, 3).tril(-1),
        lambda: torch.ones(3, 3).triu(1) - torch.ones(3, 3).tril(-1),  # the bright side at the upper right
        lambda: torch.tensor([[-1.0, 0, 1]] * 3),
        lambda: torch.tensor([[-1.0, 0, 1]] * 3).T,
        lambda: torch.zeros(3, 3),
        lambda: torch.ones(2, 2),
        lambda: [[0, -1, -1], [1, 0, -1], [1, 1, 0]],
    ],
    "1.5": [stride_of_its_own, strides_forgotten, kernels_added, last_layer_only, lambda layers: 16],
    "1.6": [
        lambda: (torch.eye(2), torch.eye(2)),
        lambda: (2 * torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 0], [0, 1]])),  # the text's own pair
        lambda: (torch.tensor([[0.0, 0], [0, 1]]), torch.tensor([[1.0, 0], [0, 0]])),
        lambda: (torch.tensor([[3.0, 0], [0, 0]]), torch.tensor([[2.0, 1], [0, 0]])),
        lambda: (torch.zeros(2, 2), torch.ones(2, 2)),
        lambda: (torch.rand(4, 4), torch.rand(4, 4)),
        lambda: torch.eye(2),
        lambda: (torch.full((2, 2), float("nan")), torch.eye(2)),
    ],
    "1.7": [
        naive_loss,
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
        lambda logits, labels: -F.cross_entropy(logits, labels),
        lambda logits, labels: F.cross_entropy(logits.softmax(1), labels),
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
        lambda logits, labels: F.cross_entropy(logits.clamp(-20, 20), labels),
        lambda logits, labels: F.cross_entropy(logits, labels.roll(1)),
        one_maximum_for_the_batch,
    ],
    "1.8": [
        LeNet,
        lambda: one_image(nn.Identity()),
        lambda: one_image(nn.AdaptiveAvgPool2d(2)),
        blind_to_everything,
        lambda: nn.Sequential(LeNet().features, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        lambda: nn.Sequential(
            LeNet().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 900), nn.Linear(900, 10)
        ),
        lambda: "GAP",
        lambda: nn.Sequential(
            LeNet().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.Softmax(dim=1)
        ),
    ],
    "2.1": [
        lambda: (torch.tensor([[2.0, 0], [0, 2]]), -3.0),  # asleep, as in the text
        lambda: (torch.tensor([[2.0, 5], [5, 2]]), -3.0),
        lambda: (torch.tensor([[2.0, 5], [-5, 2]]), 17.0),
        lambda: (torch.tensor([[2.0, 5], [-5, 2]]), 3.0),
        lambda: (torch.tensor([[1.0, 1], [-1, 1]]), -3.0),
        lambda: torch.tensor([[2.0, 5], [-5, 2]]),
        lambda: (torch.tensor([2.0, 5, -5, 2]), -3.0),
    ],
    "2.2": [
        map_of(lambda w: w.abs().sum(0)),
        map_of(lambda w: w.amax(0)),
        map_of(lambda w: w.amax(0).abs()),
        map_of(lambda w: w.abs().mean(0)),
        map_of(lambda w: w.abs().amax(0), score="probability"),
        map_of(lambda w: w.abs()),
        map_that_fills_the_weights,
        map_of_all_classes,
        lambda model, image, c: None,
    ],
    "2.3": [lambda: 50, lambda: 1, lambda: 0, lambda: 100, lambda: 2.5, lambda: None],
    "2.4": [
        lambda: blind(0.0, 2.0),  # nothing matters
        lambda: blind(1.0, 2.0),  # the map sees it
        lambda: blind(0.0, 2.0)[0],
        lambda: (blind(0.0, 2.0)[0], torch.zeros(4, 4)),
        lambda: (torch.zeros(2), torch.zeros(1, 1, 4, 4)),
    ],
    "2.5": [
        ascent(sign=-1.0),
        ascent(factor=1.0),
        ascent(penalty=0.0),
        ascent(penalty=-1.0),
        lambda model, image, c, l2, lr: image,
        lambda model, image, c, l2, lr: image[None],
    ],
    "2.6": [
        lambda side, kernel, layer: 1,
        lambda side, kernel, layer: side**2,
        lambda side, kernel, layer: side**2 - max(0, side - layer * (kernel - 1)) ** 2,
        lambda side, kernel, layer: side**2 - max(0, side - layer * (kernel - 1)) ** 2 + 1,
        lambda side, kernel, layer: side**2 - (side - layer * (kernel - 1)) ** 2 + 1,
        lambda side, kernel, layer: side**2 - max(0, side - (kernel - 1)) ** 2 + 1,
        lambda side, kernel, layer: None,
    ],
    "2.7": [
        metrics.center_map,
        metrics.random_map,
        lambda images: torch.ones(len(images), 64, 64),
        lambda images: images,
        lambda images: images.mean(1),
        lambda images: None,
    ],
    "2.8": [lambda: 0.5, lambda: 1.5, lambda: None, share_without_choosing],
    "3.1": [
        lambda: (torch.tensor([[-1.0, -0.5, 0], [0, 6, 3], [0, 0, -3]]), 0.7),  # the text's own map
        lambda: (-SHARES, 0.7),
        lambda: (SHARES / 9, 0.7),
        lambda: (SHARES, 0.5),
        lambda: (SHARES, 4.7),
        lambda: SHARES,
        lambda: (SHARES.flatten(), 0.7),
    ],
    "3.2": [
        lambda f, weight, target: torch.einsum("kc,bchw->bkhw", weight, f),  # every class
        lambda f, weight, target: torch.einsum("bkc,bchw->bkhw", weight[target], f).relu(),
        lambda f, weight, target: torch.einsum("bkc,bchw->bkhw", weight[target], f) / f[0, 0].numel(),
        lambda f, weight, target: torch.einsum("bkc,bchw->bkhw", weight[target].softmax(2), f),
        lambda f, weight, target: torch.einsum("bkc,bchw->bhw", weight[target], f),
        lambda f, weight, target: torch.einsum("bkc,bchw->bkhw", weight[target[:1]].expand(len(f), -1, -1), f).flip(1),
        lambda f, weight, target: None,
    ],
    "3.3": [
        box_by(lambda rows, columns: (columns.min(), rows.min(), columns.max(), rows.max())),
        box_by(lambda rows, columns: (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)),
        box_by(lambda rows, columns: (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), at_least=True),
        box_by(lambda rows, columns: (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), refuse=False),
        lambda cam_map, share: torch.tensor([0, 0, cam_map.shape[1], cam_map.shape[0]]),
        lambda cam_map, share: None,
    ],
    "3.4": [
        lambda: (torch.ones(2, 4, 4), torch.tensor([1.0, -1.0])),
        lambda: (torch.ones(2, 4, 4), torch.tensor([1.0, 1.0])),
        lambda: (torch.stack([torch.eye(4) * 3, -torch.ones(4, 4)]), torch.tensor([1.0, 1.0])),  # below zero
        lambda: (torch.ones(2, 4, 4), torch.tensor([-1.0, -1.0])),
        lambda: (torch.ones(4, 4), torch.tensor([1.0, -1.0])),
        lambda: (torch.ones(2, 4, 4), torch.tensor([1.0])),
        lambda: torch.ones(2, 4, 4),
    ],
    "3.5": [lambda: 0.9, lambda: 0.0, lambda: 0.55, lambda: 1.0, lambda: 20, lambda: None],
    "3.6": [
        grad_cam_by(lambda slope, f: (slope * f).sum(1)[0].relu()),  # place by place
        grad_cam_by(lambda slope, f: (slope.mean((2, 3), keepdim=True) * f).sum(1)[0]),  # no ReLU
        grad_cam_by(lambda slope, f: (slope.sum((2, 3), keepdim=True) * f).sum(1)[0].relu()),
        grad_cam_by(lambda slope, f: (slope.mean((2, 3), keepdim=True).relu() * f).sum(1)[0]),
        grad_cam_by(lambda slope, f: slope.sum(1)[0].relu()),
        grad_cam_by(lambda slope, f: (slope.mean((2, 3), keepdim=True) * f).relu()),
        lambda body, head, image, c: None,
        grad_cam_that_fills_the_weights,
    ],
    "3.7": [
        lambda V, W, H: (W * (V @ H.T) / (W @ H @ H.T), H * (W.T @ V) / (W.T @ W @ H)),  # both from the old W
        lambda V, W, H: (W, H * (W.T @ V) / (W.T @ W @ H)),
        lambda V, W, H: (W * (W @ H @ H.T) / (V @ H.T), H),
        lambda V, W, H: (W * (V @ H.T), H * (W.T @ V)),
        lambda V, W, H: W,
        lambda V, W, H: (V, V),
    ],
    "3.8": [
        lambda weight: weight,
        lambda weight: 2 * weight,
        torch.ones_like,
        lambda weight: weight.softmax(1),
        lambda weight: weight + 0.5,
        lambda weight: weight - 0.1,
        lambda weight: weight[:, :10],
        lambda weight: None,
    ],
    "4.1": [
        lambda: (0.25, torch.tensor([0.5, 0.5, 0.0])),  # the text's own toy
        lambda: (0.0, torch.tensor([0.5, 0.5, 0.0])),
        lambda: (0.0, torch.tensor([0.25, 0.5, 0.25])),
        lambda: (0.0, torch.tensor([0.75, 0.5, 1.0])),
        lambda: (1.0, torch.tensor([0.25, 0.5, 0.0])),
        lambda: torch.tensor([0.25, 0.5, 0.0]),
    ],
    "4.2": [
        errors_by(lambda maps, i: maps * (torch.arange(maps.shape[1]) == i)[:, None, None]),  # that one alone
        errors_by(lambda maps, i: torch.cat([maps[:, :i], maps[:, i + 1 :], maps[:, :1]], 1)),
        errors_by(lambda maps, i: maps.index_fill(0, torch.tensor(i % len(maps)), 0)),  # an image, not a filter
        lambda maps, head, y: tuple(1 - errors for errors in right_errors(maps, head, y)),
        lambda maps, head, y: (right_errors(maps, head, y)[0], right_errors(maps, head, y)[1][:, None]),
        lambda maps, head, y: right_errors(maps.zero_(), head, y),
        lambda maps, head, y: (right_errors(maps, head, y)[1].mean(), right_errors(maps, head, y)[1]),
        lambda maps, head, y: None,
    ],
    "4.3": [
        lambda change, expected: 1.0,
        lambda change, expected: change.std().item(),
        lambda change, expected: -1.0,
        lambda change, expected: expected / len(change),
        lambda change, expected: None,
    ],
    "4.4": [
        lambda h, w, padding, pools: (h, w),
        lambda h, w, padding, pools: (h - 8 + 4 * padding, w - 8 + 4 * padding),  # forgets the poolings
        lambda h, w, padding, pools: ((h - 8 + 4 * padding) // (4 if pools else 1),) * 2,
        lambda h, w, padding, pools: tuple((side - 8 + 4 * padding) // (4 if pools else 1) for side in (h, w)),
        lambda h, w, padding, pools: tuple((side - 4 + 2 * padding) // (4 if pools else 1) for side in (h, w)),
        lambda h, w, padding, pools: None,
    ],
    "4.5": [
        mean_ablation_by(lambda maps, i: 0.0),
        mean_ablation_by(lambda maps, i: maps[:, i].mean((1, 2), keepdim=True)),  # image by image
        mean_ablation_by(lambda maps, i: maps[:, i].mean(0)),  # place by place
        mean_ablation_by(lambda maps, i: maps.mean()),
        lambda model, layer, x, y: torch.zeros(16),
        lambda model, layer, x, y: None,
    ],
    "4.6": [
        lambda linear, channels: nn.Conv2d(channels, linear.out_features, side_of(linear, channels)),
        convolution_by(lambda weight, shape: weight.view(shape), bias=False),
        convolution_by(lambda weight, shape: weight.view(shape).mT),
        convolution_by(lambda weight, shape: weight.view(shape).flip(-1, -2)),
        convolution_by(lambda weight, shape: weight.view(shape[0], shape[2], shape[3], shape[1]).movedim(3, 1)),
        convolution_by(lambda weight, shape: weight.view(shape), padding=1),
        lambda linear, channels: linear,
        lambda linear, channels: None,
    ],
    "4.7": [
        table_of(weighted=lambda w: torch.ones_like(w)),
        table_of(uniform=lambda w: torch.arange(16.0)),
        table_of(random=lambda w: torch.ones_like(w)),
        table_of(random=lambda w: -w),
        table_of(weighted=lambda w: -w),
        table_of(drop="image"),
        lambda features, images, masks, weights: None,
    ],
    "4.8": [
        lambda boxes, probabilities: probabilities.amax(-1) > 0.9,
        lambda boxes, probabilities: torch.ones(boxes.shape[:2], dtype=torch.bool),
        lambda boxes, probabilities: (boxes[..., 2:] - boxes[..., :2]).amax(-1) < 14,
        lambda boxes, probabilities: (boxes[..., 2:] - boxes[..., :2]).amax(-1),
        lambda boxes, probabilities: torch.zeros(boxes.shape[:2], dtype=torch.bool),
        lambda boxes, probabilities: None,
    ],
    "5.1": [lambda: (True, True), lambda: (False, False), lambda: (True, False), lambda: True, lambda: (0, 1)],
    "5.2": [
        unfolded(distance=lambda d, k: d * k),
        unfolded(weight=lambda d: torch.exp(-d)),
        unfolded(larger=lambda difference: difference),
        unfolded(larger=lambda difference: difference.abs()),
        unfolded(larger=lambda difference: (-difference).clamp(min=0)),
        unfolded(average=lambda zones: zones.sum(1)),
        unfolded(average=lambda zones: -zones.mean(1)),
        unfolded(k=7),
        unfolded(pad="replicate"),
        lambda x, k=7, a=0.1, b=0.9: x,
        lambda x, k=7, a=0.1, b=0.9: None,
    ],
    "5.3": [
        lambda logits, x, c: torch.autograd.grad(logits[:, c].sum(), x)[0],
        lambda logits, x, c: torch.autograd.grad(logits.softmax(1)[:, c].sum(), x)[0],
        lambda logits, x, c: torch.autograd.grad(logits.log_softmax(1)[:, c].sum(), x)[0],
        lambda logits, x, c: torch.autograd.grad(torch.logit(logits.softmax(1)[:, c]).sum(), x)[0],
        lambda logits, x, c: torch.autograd.grad((logits[:, c] - logits.logsumexp(1)).sum(), x)[0],
        lambda logits, x, c: logits,
        lambda logits, x, c: None,
    ],
    "5.4": [
        lambda g: g > g.flatten(-2).quantile(0.9, dim=-1)[..., None, None] + 1,
        lambda g: g > g.quantile(0.9),
        lambda g: g > g.square().mean((-2, -1), keepdim=True).sqrt(),
        lambda g: (g.flatten(-2).argsort(-1).argsort(-1) < -(-g[0].numel() // 10)).view(g.shape),
        lambda g: (g.flatten(-2).argsort(-1, descending=True) < -(-g.shape[-1] * g.shape[-2] // 10)).view(g.shape),
        lambda g: g,
        lambda g: None,
    ],
    "5.5": [
        forgetting(copied=False),
        forgetting(forked=False),
        forgetting(seeded=False),
        forgetting(which=0),
        forgetting(every=True),
        forgetting(draw=lambda layer: nn.init.normal_(layer.weight)),
        forgetting(draw=lambda layer: nn.init.zeros_(layer.weight)),
        lambda model, seed=0: model,
        lambda model, seed=0: None,
    ],
    "5.6": [
        lambda o, a, c: (*falls(o, a, c), 0.0),
        lambda o, a, c: (*falls(o, a, c), (a.double() - c.double()).std().item()),
        lambda o, a, c: (*falls(o, a, c), ((a.double().var() + c.double().var()) / len(a)).sqrt().item()),
        lambda o, a, c: (*falls(o, c, a), paired(a, c)),
        lambda o, a, c: (falls(o, a, c)[0], falls(o, a, c)[1], -falls(o, a, c)[2], paired(a, c)),
        lambda o, a, c: (a.double().mean().item(), c.double().mean().item(), falls(o, a, c)[2], paired(a, c)),
        lambda o, a, c: falls(o, a, c)[0],
        lambda o, a, c: None,
    ],
    "6.1": [
        lambda: (180, False, False),  # to the left
        lambda: (90, False, False),
        lambda: (0, True, False),
        lambda: (0, False, True),
        lambda: (0, True, True),
        lambda: (math.pi, False, False),  # not in degrees
        lambda: (0, False),
        lambda: ("right", False, False),
        lambda: (0, "no", "no"),
        lambda: None,
    ],
    "6.2": [
        circles(unit=lambda height, width: (1, 1)),  # ellipses on images that are not square
        circles(unit=lambda height, width: (width / min(height, width), height / min(height, width))),
        circles(unit=lambda height, width: (min(height, width) / height, min(height, width) / width)),
        circles(unit=lambda height, width: (min(height, width) / 2, min(height, width) / 2)),  # pixels
        circles(unit=lambda height, width: (height / width, 1)),  # as if no image were tall
        circles(unit=lambda height, width: (1, width / height)),
        circles(radii=lambda r_min, n: torch.linspace(1, r_min, n)),
        circles(radii=lambda r_min, n: r_min ** torch.linspace(1, 0, n)),  # the fovea on top
        circles(radii=lambda r_min, n: r_min ** (torch.arange(n) / n)),
        circles(angles=lambda n: torch.linspace(0, 2 * math.pi, n)),  # the first angle twice
        circles(angles=lambda n: -torch.arange(n) * 2 * math.pi / n),
        circles(angles=lambda n: torch.arange(n) * 2 * math.pi / n + math.pi / 2),
        circles(angles=lambda n: torch.arange(n) * 360 / n),
        circles(last=0),
        lambda *arguments: circles()(*arguments).flip(-1),  # y before x
        lambda *arguments: circles()(*arguments).mT,
        lambda *arguments: None,
    ],
    "6.3": [
        lambda views, weight: F.conv2d(views, weight),
        lambda views, weight: F.conv2d(views, weight, padding=1),
        around_by(angles="constant"),
        around_by(angles="replicate"),
        around_by(angles="reflect"),
        around_by(radii="circular"),
        around_by(radii="replicate"),
        around_by(radii="reflect"),
        around_by(angles="constant", radii="circular"),  # the wrong axis
        around_by(turn=lambda weight: weight.flip(-1, -2)),
        around_by(turn=lambda weight: weight.mT),
        lambda views, weight: F.conv2d(torch.cat([views[..., -1:], views, views[..., :3]], -1), weight, padding=(2, 0)),
        lambda views, weight: F.conv2d(torch.cat([views[..., :2], views, views[..., -2:]], -1), weight, padding=(2, 0)),
        lambda views, weight: None,
    ],
    "6.4": [
        lambda view: view,
        lambda view: view.flip(-1),
        lambda view: view.flip(-2),
        lambda view: view.flip(-1).roll(1, -1),  # up and down
        lambda view: view.roll(view.shape[-1] // 2, -1),  # half a turn
        lambda view: view.flip(-1).roll(view.shape[-1] // 2, -1),  # a column beside
        lambda view: view[..., (4 - torch.arange(view.shape[-1])) % view.shape[-1]],  # right for 8 angles alone
        lambda view: view[..., : view.shape[-1] // 2 + 1].flip(-1),
        lambda view: None,
    ],
    "6.5": [
        lambda outer, inner, share: (math.ceil(math.log(inner / outer) / math.log(1 - share)), right_angles(share)),
        lambda outer, inner, share: (right_radii(outer, inner, share) + 1, right_angles(share)),
        lambda outer, inner, share: (right_radii(outer, inner, share), right_angles(share) + 1),
        lambda outer, inner, share: (right_radii(outer, inner, share), math.floor(2 * math.pi / share)),
        lambda outer, inner, share: (right_radii(outer, inner, share), math.ceil(1 / share)),
        lambda outer, inner, share: (right_radii(outer, inner, share), math.ceil(360 / share)),
        lambda outer, inner, share: (1 + math.ceil(math.log(outer / inner) / share), right_angles(share)),
        lambda outer, inner, share: (1 + math.ceil(math.log(outer / inner, 1 + share)), right_angles(share)),
        lambda outer, inner, share: (1 + math.ceil((outer - inner) / (share * inner)), right_angles(share)),
        lambda outer, inner, share: (math.ceil(math.log(inner / outer)), right_angles(share)),  # below zero
        lambda outer, inner, share: (1, right_angles(share)),
        lambda outer, inner, share: (0, 0),
        lambda outer, inner, share: (right_angles(share), right_radii(outer, inner, share)),
        lambda outer, inner, share: (math.log(inner / outer) / math.log(1 - share) + 1, 2 * math.pi / share),
        lambda outer, inner, share: None,
    ],
    "6.6": [
        lambda letter: True,
        lambda letter: False,
        lambda letter: letter != "a",
        lambda letter: letter in "acd",
        lambda letter: letter in "ab",
        lambda letter: "yes",
        lambda letter: None,
    ],
    "7.1": [
        lambda: (">", ">", ">"),  # if it were a bound
        lambda: ("<", ">", "="),
        lambda: (">", "<", ">"),
        lambda: (">", "<", "<"),
        lambda: ("=", "=", "="),
        lambda: ("=", "<", "="),
        lambda: (">", "=", "="),
        lambda: (True, False, None),
        lambda: ">",
        lambda: None,
    ],
    "7.2": [
        fused_by(lambda p0, pu, prior: p0 * pu),
        fused_by(lambda p0, pu, prior: p0 * pu / prior, dim=None),
        fused_by(lambda p0, pu, prior: p0 * pu / prior, dim=0),
        fused_by(lambda p0, pu, prior: p0 * pu * prior),
        fused_by(lambda p0, pu, prior: p0 * pu / prior**2),
        fused_by(lambda p0, pu, prior: p0 + pu - prior),
        fused_by(lambda p0, pu, prior: (p0 + pu) / 2, dim=None),
        fused_by(lambda p0, pu, prior: (p0 * pu / prior).softmax(-1), dim=None),
        fused_by(lambda p0, pu, prior: pu, dim=None),
        fused_by(lambda p0, pu, prior: p0.expand_as(pu), dim=None),
        fused_by(lambda p0, pu, prior: (p0 * pu / prior)[0]),
        fused_by(lambda p0, pu, prior: p0.log() + pu.log() - prior.log(), dim=None),
        lambda p0, pu, prior: None,
    ],
    "7.3": [
        bound_by(lambda p, p0, pu, prior: (p * pu.log()).sum(-1)),  # as printed
        bound_by(lambda p, p0, pu, prior: (p * pu.log()).sum(-1) + math.log(len(prior))),
        bound_by(lambda p, p0, pu, prior: (p * pu.log()).sum(-1) - (prior * prior.log()).sum()),
        bound_by(lambda p, p0, pu, prior: (p * (pu * prior).log()).sum(-1)),
        bound_by(lambda p, p0, pu, prior: (p * (p / p0).log()).sum(-1)),  # the gain itself
        bound_by(lambda p, p0, pu, prior: (p0 * (pu / prior).log()).sum(-1)),
        bound_by(lambda p, p0, pu, prior: (pu * (pu / prior).log()).sum(-1)),
        bound_by(lambda p, p0, pu, prior: (p * (pu / prior).log2()).sum(-1)),
        bound_by(lambda p, p0, pu, prior: -(p * (pu / prior).log()).sum(-1)),
        bound_by(lambda p, p0, pu, prior: (p * (pu / prior).log()).sum(0)),
        bound_by(lambda p, p0, pu, prior: p * (pu / prior).log()),
        lambda p0, pu, prior: (lambda p: (p * (pu / prior).log()).sum(-1))(p0 * pu / prior),  # not normalised
        lambda p0, pu, prior: None,
    ],
    "7.4": [
        lambda scores, saccades, places=None, radius=0.0: [int(scores.argmax())] * saccades,
        lambda scores, saccades, places=None, radius=0.0: scores.argsort(descending=True)[:saccades].tolist(),
        lambda scores, saccades, places=None, radius=0.0: scores.argsort()[:saccades].tolist(),
        lambda scores, saccades, places=None, radius=0.0: scores.argsort(descending=True)[:saccades],
        lambda scores, saccades, places=None, radius=0.0: scores.argsort(descending=True).tolist(),
        looking(copied=False),
        looking(forbidden=0.0, stop=False),
        looking(stop=False),
        looking(near=lambda away, radius: away < radius),
        looking(near=lambda away, radius: away > radius),
        looking(near=lambda away, radius: away**2 <= radius),  # no root
        looking(norm=1),
        looking(norm=float("inf")),  # a square, not a circle
        looking(forget=True),
        lambda scores, saccades, places=None, radius=0.0: None,
    ],
    "7.5": [
        lambda a, n, measured: (n * a, tries(a, measured)),
        lambda a, n, measured: (min(1.0, n * a), tries(a, measured)),
        lambda a, n, measured: (a**n, tries(a, measured)),
        lambda a, n, measured: ((1 - a) ** n, tries(a, measured)),
        lambda a, n, measured: (1 - a**n, tries(a, measured)),
        lambda a, n, measured: (n * a * (1 - a) ** (n - 1), tries(a, measured)),  # exactly one
        lambda a, n, measured: (luck(a, n), math.ceil(tries(a, measured) + 0.5)),
        lambda a, n, measured: (luck(a, n), measured / a),
        lambda a, n, measured: (luck(a, n), math.log(1 - measured) / math.log(a)),
        lambda a, n, measured: (luck(a, n), math.log(measured) / math.log(1 - a)),
        lambda a, n, measured: (tries(a, measured), luck(a, n)),
        lambda a, n, measured: luck(a, n),
        lambda a, n, measured: None,
    ],
    "7.6": [
        lambda letter: True,
        lambda letter: False,
        lambda letter: letter == "d",  # "dear" is not "impossible"
        lambda letter: letter in "bcd",
        lambda letter: letter in "abd",
        lambda letter: letter == "b",
        lambda letter: 1 if letter in "bd" else 0,
        lambda letter: None,
    ],
}
