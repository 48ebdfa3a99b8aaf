"""Workflows in ComfyUI's two forms: the saved graph of the editor, and the prompt the server runs."""

from __future__ import annotations

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "IMAGECOMPARE")
#: A choice that brings inputs of its own; understood for choices that bring none.
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
ONLY_IN_THE_EDITOR = ("Note", "MarkdownNote")
NORMAL, NEVER = 0, 2


class Link(list):
    """Output of a node in a prompt: `[node id, output]`; `link.out(1)` is the same node's next output."""

    def out(self, index: int) -> Link:
        return Link([self[0], index])


class Graph(dict):
    """A prompt built call by call: `g = Graph(); g("SaveImage", images=g("EmptyImage", width=64), ...)`."""

    def __call__(self, class_type: str, **inputs) -> Link:
        node_id = str(len(self) + 1)
        self[node_id] = {"class_type": class_type, "inputs": inputs}
        return Link([node_id, 0])


def _specs(info: dict) -> dict[str, tuple]:
    """Name -> (type, options) of a node's inputs in the order the editor lays them out."""
    specs = {}
    for kind in ("required", "optional"):
        inputs = info["input"].get(kind) or {}
        for name in (info.get("input_order") or {}).get(kind) or inputs:
            kind_of, options = (*inputs[name], {})[:2]
            specs[name] = (kind_of, options)
    return specs


def _is_widget(kind, options: dict) -> bool:
    return not options.get("forceInput") and (
        isinstance(kind, list) or kind in (*WIDGET_TYPES, DYNAMIC_COMBO)
    )


def _brought(options: dict, chosen: str) -> dict:
    """The inputs that come with a choice of a dynamic combo."""
    (option,) = [o for o in options["options"] if o["key"] == chosen]
    return {name: spec for kind in option["inputs"].values() for name, spec in kind.items()}


def _default(kind, options: dict):
    if kind == "IMAGECOMPARE":
        return {"__value__": ["", ""]}  # nothing compared yet, as the editor sends lists
    choices = kind if isinstance(kind, list) else options.get("options")
    return options.get("default", choices[0] if choices else None)


def _widgets(info: dict, values: list) -> dict:
    """The widget values of a saved node by name. They are saved by position, the editor's own among them."""
    named, position = {}, 0
    for name, (kind, options) in _specs(info).items():
        if str(kind).startswith("COMFY_") and kind != DYNAMIC_COMBO:
            raise ValueError(f"{info['name']}.{name}: inputs of type {kind} are not understood here")
        if not _is_widget(kind, options):
            continue
        named[name] = values[position] if position < len(values) else _default(kind, options)
        position += 1
        if kind == DYNAMIC_COMBO and _brought(options, named[name]):
            raise ValueError(
                f"{info['name']}.{name} = {named[name]}: the inputs it brings are not understood"
            )
        if options.get("control_after_generate", name in ("seed", "noise_seed")):
            position += 1
    return named


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """A workflow saved by the editor as the prompt the editor would send for it."""
    links = {link[0]: (link[1], link[2]) for link in workflow["links"]}
    skipped = {n["id"] for n in workflow["nodes"] if n.get("mode", NORMAL) == NEVER}
    prompt = {}
    for node in workflow["nodes"]:
        kind, node_id = node["type"], node["id"]
        if kind in ONLY_IN_THE_EDITOR or node_id in skipped:
            continue
        if kind not in object_info:
            raise ValueError(f"node {node_id}: ComfyUI knows no {kind}")
        if node.get("mode", NORMAL) != NORMAL:
            raise ValueError(f"node {node_id} {kind}: bypassed nodes are not understood here")
        inputs = _widgets(object_info[kind], node.get("widgets_values") or [])
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                source, output = links[slot["link"]]
                if source not in skipped:
                    inputs[slot["name"]] = [str(source), output]
        prompt[str(node_id)] = {"class_type": kind, "inputs": inputs}
    return prompt
