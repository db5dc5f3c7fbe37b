"""The public API is one list. What is not in it may move."""

import inspect
import subprocess
import sys

import pytest

import icl

PUBLIC = {
    "DemoIndex", "Demonstration", "Example", "FewShot", "Hit", "IclError", "InputError", "LabelScores", "Prediction", "Prompt", "Task",
    "Template", "Why", "__version__", "compare", "crossover", "decide", "label_errors", "leave_out", "load", "load_model", "run", "score", "suggest",
}  # fmt: skip


def test_the_list_changes_only_on_purpose():
    assert set(icl.__all__) == PUBLIC
    assert dir(icl) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_is_there_and_documented(name):
    value = getattr(icl, name)
    assert inspect.getdoc(value), f"icl.{name} has no docstring"
    for method, function in inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ():
        if not method.startswith("_") and function.__module__.startswith("icl."):
            assert inspect.getdoc(function), f"icl.{name}.{method} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'decied'"):
        _ = icl.decied


def test_import_is_instant():
    """Nothing of icl but its own `__init__` is loaded by `import icl`."""
    code = "import sys, icl; print([m for m in sys.modules if m.startswith('icl.') or m in ('torch', 'numpy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_version_is_the_distribution_s():
    from importlib.metadata import version

    assert icl.__version__ == version("icl")
