"""What a suite is made of besides its rows, as digests for its manifest: bases that are trained, saved predictors, own components."""

from __future__ import annotations

from ..files import sha256_file
from ..plugins import find
from ..values import Spec
from .loading import LoadedSuite, all_methods


def specs(loaded: LoadedSuite) -> list[tuple[str, Spec]]:
    """(name, settings) of all methods and of those that they are made of, which are named METHOD.OPTION."""
    return [
        (".".join([entry.name, *path[1::2]]), spec) for entry in loaded.methods for path, spec in all_methods(entry.spec, loaded.plugins)
    ]


def saved_digests(loaded: LoadedSuite) -> dict[str, str]:
    """Saved predictors that compete: method -> sha256 of the file that lists the checksums of all others."""
    folders = {name: loaded.folder / str(spec.settings.get("path")) for name, spec in specs(loaded) if spec.name == "saved"}
    return {name: sha256_file(file) for name, folder in folders.items() if (file := folder / "predictor.json").is_file()}


def base_digests(loaded: LoadedSuite) -> dict[str, str]:
    """What methods are trained from: name -> digest of its files. Fetched here, before any work. A method that declares `BASE` has an
    option `base`: an `encoder`, by default that of the suite, or a `model`, by default the cell's."""
    from ..model.load import weights_digest
    from ..train.bases import find_base, fingerprint_of

    found: dict[str, str] = {}
    for _, spec in specs(loaded):
        kind, base = getattr(find("method", spec.name, loaded.plugins).load(), "BASE", None), spec.settings.get("base")
        if kind == "encoder":
            name = str(base or loaded.suite.encoder)
            found[name] = found.get(name) or fingerprint_of(find_base(loaded.beside(name)))
        elif kind == "model" and base and "://" not in str(base):
            found[str(base)] = found.get(str(base)) or weights_digest(loaded.beside(str(base)))
    return found


def plugin_digests(loaded: LoadedSuite) -> dict[str, str]:
    """Own components: file name -> sha256 of the Python in the folders given."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for folder in loaded.plugins for path in sorted(folder.rglob("*.py"))}
