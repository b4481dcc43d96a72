"""Format ``py``: one readable file of plain PyTorch, and the weights beside it.

The file is derived from what Gapless runs: operations from their layers, cells from their graphs and the architecture,
the rest from the sources of the very classes. The written file is read back and must give the same logits, bit for bit.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gapless.core.catalogue import executed
from gapless.core.cell import Cell, CellModule, CellSpec, rejoin
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.network import Chosen, ChosenSite
from gapless.core.op import HalvesModule, NoiseModule, NormRule, Op, OpModule, zeros
from gapless.formats.layout import WIDTH, Call, Named, Node, Unwritable, lay_out, listing, literal
from gapless.formats.model import Model
from gapless.formats.reader import read_safetensors, read_weights
from gapless.formats.source import Sources, is_own, keep_methods, reachable, text_of

BASIC = (zeros, rejoin, HalvesModule, NoiseModule)
"""What operations and cells are written with: it comes first in a file."""
FILE, WEIGHTS = "model.py", "weights.safetensors"
OWN = ("CLASSES", "NAMES", "CHANNELS", "SIZE", "MEAN", "STD", "WEIGHTS", "network", "load")
"""Names that a written file defines itself."""
IMPORTED = ("torch", "nn", "F", "Tensor", "Path", "PathLike", "OrderedDict", "json", "math")
ARGUMENTS = ("channels", "stride", "inputs")
LOAD = '''def load(path: str | PathLike[str] = WEIGHTS) -> nn.Module:
    """Return the network with the weights of a file, in evaluation mode."""
    model = network()
    model.load_state_dict(read_weights(path))
    return model.eval()
'''


def write(model: Model, folder: Path) -> dict[str, Any]:
    """Write ``model.py`` and ``weights.safetensors``.

    Returns
    -------
    dict
        ``difference``: 0.0, for the file that is read back gives the same logits bit for bit.

    Raises
    ------
    UserError
        Where the network cannot stand in a file of its own.
    """
    if model.space.python_only:
        raise UserError(
            "A patched model cannot be written as a file of its own, for its modules are yours and not described by a "
            "space. Try the `format` onnx or torch."
        )
    try:
        try:
            _write(model, folder, Writer(model))
        except Unwritable:
            _write(model, folder, Writer(model, spell_out=True))
    except Unwritable as error:
        raise UserError(
            f"This network cannot be written as one Python file: {error}. The file can hold modules of torch.nn, the "
            "cells and operations that a space chooses, and classes of modules that stand in a file and whose "
            "arguments are modules, numbers and texts. The `format` onnx and torch have no such limits."
        ) from None
    return {"difference": 0.0}


def _write(model: Model, folder: Path, writer: Writer) -> None:
    text, names = writer.text(), writer.names
    weights = {names[name]: value.contiguous() for name, value in model.network.state_dict().items() if name in names}
    if len(weights) < len(model.network.state_dict()):
        raise Unwritable("some of its tensors belong to no module that was found")
    (folder / FILE).write_text(text, encoding="utf-8")
    (folder / WEIGHTS).write_bytes(save(weights))
    try:
        copy = module_of(folder / FILE).load()
    except (RuntimeError, TypeError, AttributeError, NameError, ValueError) as error:
        raise Unwritable(f"the file does not build the same modules ({str(error).splitlines()[0]})") from None
    if not torch.equal(*(model.logits(module, 2) for module in (copy, model.network))):
        raise Unwritable("the file does not give the same logits")


def module_of(path: Path) -> ModuleType:
    """Run a written file."""
    return executed(path.read_bytes(), path, "gapless_written_model")


# ---------------------------------------------------------------------- what the space chose


@dataclass(frozen=True)
class Body:
    """A cell as an architecture fills it: what one class is written for.

    Parameters
    ----------
    cell
        The graph.
    ops
        (key of an edge, option label, operation) of each edge that is kept.
    norm, partial
        As in :class:`gapless.core.cell.CellSpec`.
    """

    cell: Cell
    ops: tuple[tuple[str, str, Op], ...]
    norm: NormRule
    partial: int


class Noted(Chosen):
    """Builds the network of an architecture and notes what each cell is made of."""

    def __init__(self, arch: Arch) -> None:
        super().__init__(arch)
        self.bodies: dict[nn.Module, tuple[Body, int]] = {}

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return the cell without drop path, and note it with its channels."""
        module = super().cell(replace(spec, drop_path=False))
        assert isinstance(module, CellModule)
        chosen = {e.key: self.arch[e.ask] for e in spec.cell.edges if e.key in module.edges}
        kept = tuple((key, option, spec.ops[option]) for key, option in chosen.items())
        self.bodies[module] = Body(spec.cell, kept, spec.norm, spec.partial), spec.channels
        return module


# ---------------------------------------------------------------------- the file


class Writer:
    """Writes the file of a model.

    Parameters
    ----------
    model
        What is written.
    spell_out
        Give every class of modules an ``__init__`` of its own that lists what an instance holds, also where its
        arguments could be read off its attributes.

    Attributes
    ----------
    names
        Name of a tensor in Gapless -> its name in the file; complete after :meth:`text`.
    """

    def __init__(self, model: Model, *, spell_out: bool = False) -> None:
        self.model = model
        self.spell_out = spell_out
        self.names: dict[str, str] = {}
        noted = Noted(model.arch)
        with torch.device("meta"):
            self.root = model.space.build(noted)
        self.bodies = noted.bodies
        self.sources = Sources(OWN)
        self.sources.imports |= {("torch", "", "torch"), ("torch", "nn", "nn"), ("torch", "Tensor", "Tensor")}
        self.sources.imports |= {("os", "PathLike", "PathLike")}
        self.strided = any(
            e.stride != 1 for body, _ in self.bodies.values() for e in body.cell.edges if _op(body, e.key) is not None
        )
        self.taken = {*OWN, *IMPORTED, *ARGUMENTS}
        self.functions: dict[tuple[str, Op, NormRule, int], tuple[str, str]] = {}
        self.cells: dict[Body, tuple[str, str]] = {}
        self.spelled: dict[str, tuple[str, str]] = {}
        self.own = [m for m in _outside_sites(self.root) if is_own(type(m)) and not self._ours(m)]
        self.reachable = reachable({c for m in self.own for c in type(m).__mro__ if is_own(c) and c is not nn.Module})
        self.taken |= {type(m).__name__ for m in self.own}

    def text(self) -> str:
        """Return the file."""
        self._check_alone()
        self.sources.add(read_weights)
        self.sources.add(read_safetensors)
        parts = self.sources.parts
        readers = [parts.pop(f.__name__) for f in (read_weights, read_safetensors)]
        built = lay_out("return ", self.expression(self.root, "", ""), indent=4)
        kind = built[0].removeprefix("    return ").partition("(")[0]
        if not re.fullmatch(r"(nn\.)?\w+", kind) or kind in {name for name, _ in self.functions.values()}:
            kind = "nn.Module"
        network = [f"def network() -> {kind}:", '    """Return the network with random weights."""', *built]
        body = "\n\n".join(
            [
                *(parts[thing.__name__] for thing in BASIC if thing.__name__ in parts),
                *(text for _, text in self.functions.values()),
                *(text for _, text in self.cells.values()),
                *(text for name, text in parts.items() if name not in {thing.__name__ for thing in BASIC}),
                *(text for _, text in self.spelled.values()),
                "\n".join(network) + "\n",
                LOAD,
                *readers,
            ]
        )
        constants = self.constants()
        imports = self.sources.header(f"{constants}\n{body}")
        head = [self.docstring(), "from __future__ import annotations", *imports, constants]
        return "\n\n".join(head) + "\n\n\n" + body

    def constants(self) -> str:
        """Return what is told of the data."""
        model, space = self.model, self.model.space
        lines = [f"CLASSES = {space.classes}"]
        if model.names is not None:
            lines += lay_out("NAMES = ", listing(map(literal, model.names), "()"))
        sides = "" if isinstance(space.size, int) else "  # height, width"
        lines += [f"CHANNELS = {space.channels}", f"SIZE = {space.size}{sides}"]
        if model.mean is None or model.std is None:
            lines.append("# not known: put in the mean and the deviation of your own training images, by channel")
        mean, std = model.mean or (0.0,) * space.channels, model.std or (1.0,) * space.channels
        lines += lay_out("MEAN = ", listing(map(literal, mean), "()"))
        lines += lay_out("STD = ", listing(map(literal, std), "()"))
        lines.append(f'WEIGHTS = Path(__file__).with_name("{WEIGHTS}")')
        return "\n".join(lines)

    def docstring(self) -> str:
        """Return the head of the file."""
        f = self.model.facts
        size = " x ".join(map(str, self.model.space.image_shape))
        told = {
            "Architecture": f["notation"],
            "Space": f"{f['space']} ({f['source']})" if f["source"] else f["space"],
            "Size": f"{f['params']:,} parameters, {f['macs']:,} multiply-adds per image",
            "Accuracy": "not measured" if f["accuracy"] is None else f"{f['accuracy']:.2f} % of {f['tested_on']}",
            "Origin": f"{f['origin']} (Gapless {f['gapless']})",
        }
        lines = [f"A classifier of {size} images into {f['classes']} classes, in plain PyTorch."]
        if self.model.warning:
            lines += ["", self.model.warning]
        lines.append("")
        square = isinstance(self.model.space.size, int)
        for name, value in told.items():
            lines += textwrap.wrap(f"{name + ':':<13} {value}", WIDTH - 2, subsequent_indent=" " * 14)
        lines += ["", f"Usage, with pixels as uint8 [N, CHANNELS, {'SIZE, SIZE' if square else '*SIZE'}]:", ""]
        usage = [
            "network = load()",
            "mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))",
            "with torch.inference_mode():",
            "    shares = network((pixels.float() / 255 - mean) / std).softmax(dim=1)  # [N, CLASSES]",
        ]
        lines += [f"    {line}" for line in usage]
        lines += [
            "",
            "This file needs nothing but PyTorch, and may be used, changed and passed on without restriction.",
        ]
        text = "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
        return f'"""{text}\n"""'

    # ------------------------------------------------------------------ modules as expressions

    def expression(self, module: nn.Module, old: str, new: str) -> Node:
        """Return the expression that makes a module, and note the names of its tensors: they begin with ``old`` in
        Gapless and with ``new`` in the file."""
        if module in self.bodies:
            return self._cell_call(module, old, new)
        if isinstance(module, ChosenSite):
            ((label, option),) = module.named_children()
            return self.expression(option, _join(old, label), new)
        if isinstance(module, OpModule):
            return self._op_call(module, old, new)
        if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
            return self._container(module, old, new)
        if not is_own(type(module)):
            return self._plain(module, old, new)
        items = None if self.spell_out else self._arguments(module)
        return self._spelled(module, old, new) if items is None else self._call(module, items, old, new)

    def _container(self, module: nn.Module, old: str, new: str) -> Node:
        children = [(n, self.expression(m, _join(old, n), _join(new, n))) for n, m in module.named_children()]
        kind = f"nn.{type(module).__name__}"
        numbered = [n for n, _ in children] == [str(i) for i in range(len(children))]
        if isinstance(module, nn.ModuleList):
            return Call(kind, (("", listing(node for _, node in children)),))
        if isinstance(module, nn.Sequential) and numbered:
            return Call(kind, tuple(("", node) for _, node in children))
        named = Call("", tuple((literal(n), node) for n, node in children), "{}", ": ")
        if isinstance(module, nn.ModuleDict):
            return Call(kind, (("", named),))
        self.sources.imports.add(("collections", "OrderedDict", "OrderedDict"))
        return Call(kind, (("", Call("OrderedDict", (("", named),))),))

    def _plain(self, module: nn.Module, old: str, new: str) -> Node:
        """Return the call of a class of torch.nn: its arguments are its attributes of the same names."""
        if list(module.children()):
            raise Unwritable(f"a {type(module).__name__} of torch.nn holds modules that are not seen from outside")
        kind = type(module)
        needed: list[Any] = []
        others: dict[str, Any] = {}
        for p in list(inspect.signature(kind.__init__).parameters.values())[1:]:
            if p.name in ("device", "dtype") or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            value = getattr(module, p.name, p.default)
            if p.name == "bias" and (value is None or isinstance(value, Tensor)):
                value = value is not None
            if isinstance(value, tuple) and value and all(v is value[0] or v == value[0] for v in value):
                value = value[0]
            if value is p.empty:
                raise Unwritable(f"what a {kind.__name__} was made with cannot be read off it")
            if p.default is p.empty:
                needed.append(value)
            elif isinstance(value, Named) or value != p.default:
                others[p.name] = value
        if "bias" in others:  # a normalisation without scale has no bias either, and older versions do not take it
            rest = {k: v for k, v in others.items() if k != "bias"}
            with torch.device("meta"):
                others = rest if list(kind(*needed, **rest).state_dict()) == list(module.state_dict()) else others
        self._same_names(module, old, new)
        items = [("", literal(v)) for v in needed] + [(k, literal(v)) for k, v in others.items()]
        return Call(f"nn.{kind.__name__}", tuple(items))

    def _arguments(self, module: nn.Module) -> dict[str, Any] | None:
        """Return what a module of one's own was made with, where its attributes of the same names say so."""
        found: dict[str, Any] = {}
        init = type(module).__init__
        for p in [] if init is nn.Module.__init__ else list(inspect.signature(init).parameters.values())[1:]:
            value = getattr(module, p.name, p.default)
            if value is p.empty or p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                return None
            if not isinstance(value, nn.Module) or p.name not in dict(module.named_children()):
                try:
                    literal(value)
                except Unwritable:
                    return None
                if value is p.default or value == p.default:
                    continue
            found[p.name] = value
        inside = [m for name, child in module.named_children() if name not in found for m in child.modules()]
        return None if any(self._ours(m) for m in inside) else found

    def _call(self, module: nn.Module, items: Mapping[str, Any], old: str, new: str) -> Node:
        kind = type(module)
        nodes: dict[str, Node] = {}
        for name, value in items.items():
            is_module = isinstance(value, nn.Module)
            nodes[name] = self.expression(value, _join(old, name), _join(new, name)) if is_module else literal(value)
        for base in reversed(kind.__mro__):
            if is_own(base) and issubclass(base, nn.Module):
                self.sources.put(base.__name__, keep_methods(text_of(base), self.reachable), base)
        self._same_names(module, old, new, besides=tuple(items))
        modules_only = all(isinstance(value, nn.Module) for value in items.values())
        bare = modules_only and bool(new)
        return Call(kind.__name__, tuple(("" if bare else name, node) for name, node in nodes.items()))

    def _spelled(self, module: nn.Module, old: str, new: str) -> Node:
        """Return the call of a class that is written for this module: its ``__init__`` lists what the module holds."""
        if any(p is not None for p in (*module._parameters.values(), *module._buffers.values())):
            raise Unwritable(
                f"{type(module).__name__} holds parameters or buffers itself, and its arguments cannot be read off its "
                "attributes; keep each argument as an attribute of the same name"
            )
        kind = type(module)
        start = "super().__init__()" if kind.__bases__ == (nn.Module,) else "nn.Module.__init__(self)"
        lines = ["    def __init__(self) -> None:", f"        {start}"]
        usual = set(vars(nn.Module()))
        for name, value in vars(module).items():
            if name not in usual:
                try:
                    lines += lay_out(f"self.{name} = ", literal(value), indent=8)
                except Unwritable:
                    raise Unwritable(
                        f"{kind.__name__} keeps the attribute {name!r} of the type {type(value).__name__}; only "
                        "modules, numbers and texts can be written"
                    ) from None
        for name, child in module.named_children():
            lines += lay_out(f"self.{name} = ", self.expression(child, _join(old, name), _join(new, name)), indent=8)
        source = keep_methods(text_of(kind), self.reachable | {"__init__"}, "\n".join(lines))
        if source not in self.spelled:
            used = {name for name, _ in self.spelled.values()}
            name = self._free(kind.__name__) if kind.__name__ in used else kind.__name__
            self.spelled[source] = name, source.replace(f"class {kind.__name__}", f"class {name}", 1)
            self.sources.follow(source, kind, {kind.__name__, *self.taken})
        return Call(self.spelled[source][0], ())

    def _same_names(self, module: nn.Module, old: str, new: str, besides: tuple[str, ...] = ()) -> None:
        for name in module.state_dict():
            if name.partition(".")[0] not in besides:
                self.names[_join(old, name)] = _join(new, name)

    def _ours(self, module: nn.Module) -> bool:
        """Return whether a module is what a space chose, which the file writes in its own way."""
        return module in self.bodies or isinstance(module, OpModule | ChosenSite)

    def _check_alone(self) -> None:
        seen: dict[Tensor, str] = {}
        for path, tensor in self.root.named_parameters(remove_duplicate=False):
            if tensor in seen:
                raise Unwritable(f"{seen[tensor]} and {path} are one and the same parameter")
            seen[tensor] = path

    # ------------------------------------------------------------------ operations

    def _function(self, stem: str, op: Op, norm: NormRule, stride: int = 0) -> str:
        """Return the name of the function that makes an operation; ``stride`` 0 stands for one in a cell."""
        key = (stem, op, norm, stride)
        if key not in self.functions:
            name = self._free(stem)
            self.functions[key] = name, self._function_text(name, op, norm, stride)
        return self.functions[key][0]

    def _function_text(self, name: str, op: Op, norm: NormRule, stride: int) -> str:
        channels = Named(64, "channels")
        if stride:
            inputs = Named(32, "inputs")
            made = self._layers(op.build(channels, inputs=inputs, stride=stride, norm=norm))
            head, body = f"def {name}(inputs: int, channels: int) -> nn.Module:", lay_out("return ", made, indent=4)
        elif not self.strided:
            made = self._layers(op.build(channels, norm=norm))
            head, body = f"def {name}(channels: int) -> nn.Module:", lay_out("return ", made, indent=4)
        else:
            head = f"def {name}(channels: int, stride: int) -> nn.Module:"
            two = self._layers(op.build(channels, stride=Named(2, "stride"), norm=norm))
            body = lay_out("return ", two, indent=4)
            if op.strided is not None:
                one = self._layers(op.build(channels, norm=norm))
                body = ["    if stride == 1:", *lay_out("return ", one, indent=8), *body]
        return "\n".join([head, f'    """Return the operation {name}."""', *body]) + "\n"

    def _layers(self, module: OpModule) -> Node:
        nodes = [self._layer(layer) for layer in module]
        if len(nodes) == 1 and not module.state_dict():
            return nodes[0]
        return Call("nn.Sequential", tuple(("", node) for node in nodes)) if nodes else "nn.Identity()"

    def _layer(self, layer: nn.Module) -> Node:
        kept = dict(self.names)
        node = self.expression(layer, "", "")
        self.names = kept
        return node

    def _op_call(self, module: OpModule, old: str, new: str) -> Node:
        self._same_names(module, old, new)
        stem = "_".join(map(_layer_name, module.layers)) or "identity"
        name = self._function(stem, module.op, module.norm, module.stride)
        return Call(name, (("", literal(module.inputs)), ("", literal(module.channels))))

    # ------------------------------------------------------------------ cells

    def _cell_call(self, module: nn.Module, old: str, new: str) -> Node:
        body, channels = self.bodies[module]
        if body not in self.cells:
            first = next(iter(body.cell.edges)).ask
            kind = first.partition(":")[0] if ":" in first else ""
            name = self._free(re.sub(r"\W", "", kind.title()) + "Cell")
            self.cells[body] = name, self._cell_text(name, body)
        for key, label, _ in body.ops:
            part = _join(old, f"edges.{key}.{label}")
            assert isinstance(module, CellModule)
            for name in module.edges[key].get_submodule(label).state_dict():
                self.names[_join(part, name)] = _join(_join(new, _attribute(key, label)), name)
        made = any(not op.zero for _, _, op in body.ops)
        return Call(self.cells[body][0], (("", literal(channels)),) if made else ())

    def _cell_text(self, name: str, body: Body) -> str:
        cell = body.cell
        states = [f"s{i}" for i in range(cell.inputs)]
        width = "channels" if body.partial == 1 else f"channels // {body.partial}"
        made = []
        for key, label, op in body.ops:
            if not op.zero:
                edge = next(e for e in cell.edges if e.key == key)
                call = self._function(_word(label), op, body.norm)
                stride = f", {edge.stride}" if self.strided else ""
                made.append(f"self.{_attribute(key, label)} = {call}({width}{stride})")
        at = cell.nodes.start
        doc = f"Operations that were found: ..._{at}_0 leads from state s0 to state s{at}, and so on."
        lines = [f"class {name}(nn.Module):", f'    """{doc}"""', ""]
        if made:
            lines += ["    def __init__(self, channels: int) -> None:", "        super().__init__()"]
            lines += [*(f"        {line}" for line in made), ""]
        arguments = ", ".join(f"{state}: Tensor" for state in states)
        lines.append(f"    def forward(self, {arguments}) -> Tensor:")
        out = [f"s{i}" for i in cell.output]
        side = " side by side" if len(out) > 1 else ""
        lines.append(f'        """Return {", ".join(out)}{side}; a state is [N, channels, height, width]."""')
        nodes = list(self._nodes(body))
        if any(":part]" in line for line in nodes):
            lines.append(f"        part = s0.shape[1] // {body.partial}")
            self.sources.add(rejoin)
        lines += nodes
        if len(out) > 1:
            lines.append(f"        return torch.cat([{', '.join(out)}], 1)")
        elif lines[-1].startswith(f"        {out[0]} = "):
            lines[-1] = f"        return {lines[-1].partition(' = ')[2]}"
        else:
            lines.append(f"        return {out[0]}")
        return "\n".join(lines) + "\n"

    def _nodes(self, body: Body) -> Iterator[str]:
        """Yield the lines that compute the states, summed in the order of the edges."""
        cell, ops = body.cell, {key: op for key, _, op in body.ops}
        read = set(cell.output)
        for node in reversed(cell.nodes):
            kept = [e for e in cell.into(node) if e.key in ops and (node in read or not ops[e.key].zero)]
            read |= {e.source for e in (kept or cell.into(node)[:1] if node in read else kept)}
        for node in cell.nodes:
            kept = [e for e in cell.into(node) if e.key in ops and (node in read or not ops[e.key].zero)]
            terms = [self._term(body, e.key) for e in kept]
            if node not in read:
                yield from (f"        {term}  # its output leads nowhere" for term in terms)
                continue
            if not terms:
                first = cell.into(node)[0]
                self.sources.add(zeros)
                terms = [f"zeros(s{first.source}, {first.stride})"]
            line = f"        s{node} = {' + '.join(terms)}"
            if len(line) <= WIDTH:
                yield line
            else:
                yield f"        s{node} = {terms[0]}"
                yield from (f"        s{node} = s{node} + {term}" for term in terms[1:])

    def _term(self, body: Body, key: str) -> str:
        edge = next(e for e in body.cell.edges if e.key == key)
        label, op = next((label, op) for k, label, op in body.ops if k == key)
        x = f"s{edge.source}" if body.partial == 1 else f"s{edge.source}[:, :part]"
        if op.zero:
            self.sources.add(zeros)
        y = f"zeros({x}, {edge.stride})" if op.zero else f"self.{_attribute(key, label)}({x})"
        return y if body.partial == 1 else f"rejoin({y}, s{edge.source}, {body.partial}, {edge.stride})"

    def _free(self, stem: str) -> str:
        """Return a name that nothing has yet: the stem, or the stem with a number."""
        taken = self.taken | set(self.sources.parts) | set(dir(builtins)) | set(keyword.kwlist)
        name, n = stem, 2
        while name in taken:
            name, n = f"{stem}{'_' if stem[-1].isdigit() else ''}{n}", n + 1
        self.taken.add(name)
        return name


# ---------------------------------------------------------------------- words


def _op(body: Body, key: str) -> Op | None:
    return next((op for k, _, op in body.ops if k == key), None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _word(label: str) -> str:
    """Return an option label as a name: ``skip_connect#2`` is ``skip_connect``."""
    word = re.sub(r"\W+", "_", label.partition("#")[0])
    return word if word.isidentifier() else f"op_{word}"


def _attribute(key: str, label: str) -> str:
    target, _, source = key.partition("<-")
    return f"{_word(label)}_{target}_{source}"


def _layer_name(layer: object) -> str:
    """Return ``conv_3x3`` for ``Conv(3)``."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
    sizes = {f.name: getattr(layer, f.name) for f in fields(layer)}  # type: ignore[arg-type]
    return f"{name}_{sizes['kernel']}x{sizes['kernel']}" if "kernel" in sizes else name


def _outside_sites(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a network, without those inside what a space chose in a cell or as an operation."""
    if isinstance(module, CellModule | OpModule):
        return
    if not isinstance(module, ChosenSite):
        yield module
    for child in module.children():
        yield from _outside_sites(child)
