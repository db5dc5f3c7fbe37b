"""The folder list is the architecture: imports point one way."""

import ast
from pathlib import Path

import icl

ROOT = Path(__file__).resolve().parent.parent / "icl"
RANK = {
    "errors": 0, "values": 1, "patterns": 1, "files": 1, "plugins": 1, "seeds": 1, "progress": 1, "protocols": 1, "weights": 1.5, "endpoint": 1.5,
    "data": 2, "prompt": 2, "retrieve": 2, "model": 2, "readout": 2, "train": 3, "methods": 4, "evaluate": 5, "report": 6,
    "suite": 7, "ship": 7, "audit": 7.5, "decision": 7.5, "cli": 8, "__init__": 9, "__main__": 9,
}  # fmt: skip
# Among the small modules of rank 1, the order in which they may use each other.
RANK_1 = ["values", "patterns", "protocols", "seeds", "progress", "files", "plugins"]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def icl_imports():
    for path in sorted(ROOT.rglob("*.py")):
        package = ("icl", *path.relative_to(ROOT).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.ImportFrom):
                if node.level:
                    base = ".".join(package[: len(package) - node.level + 1])
                    module = f"{base}.{node.module}" if node.module else base
                else:
                    module = node.module or ""
                targets = [module] if module != "icl" else [f"icl.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            for target in targets:
                if target.startswith("icl."):
                    name = target.split(".")[1]
                    name = icl._WHERE[name].split(".")[1] if name in icl._WHERE else name  # a public name stands for its room
                    if name != "__version__":
                        yield room_of(path), name, f"{path.relative_to(ROOT.parent)}:{node.lineno}"


def test_imports_point_down():
    wrong = []
    for source, target, where in icl_imports():
        if source == target:
            continue
        if RANK.get(source) == RANK.get(target) == 1:
            if RANK_1.index(target) >= RANK_1.index(source):
                wrong.append(f"{where}: icl.{source} must not import icl.{target}")
        elif target not in RANK or source not in RANK or RANK[target] >= RANK[source]:
            wrong.append(f"{where}: icl.{source} must not import icl.{target}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known():
    rooms = {p.stem if p.is_file() else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms <= set(RANK)
