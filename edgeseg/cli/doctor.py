"""The verb `edgeseg doctor`."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import edgeseg
from edgeseg.cli.messages import add_json, print_json
from edgeseg.machine.terminal import printable, show

Facts = dict[str, Any]


def add(verbs: Any) -> None:
    """Adds the verb and its options."""
    verb = verbs.add_parser(
        "doctor",
        help="describe this installation and this machine, for bug reports",
        description="Prints the versions of edgeseg and of the libraries that it uses, what the machine has, the sizes "
        "of the cache, and whether the weights of the package are intact. If a part cannot be determined, the "
        "reason is printed.",
        examples=("edgeseg doctor", "edgeseg doctor --json"),
    )
    add_json(verb, "the same facts by part")
    verb.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    facts = {part: _facts(find) for part, find in PARTS.items()}
    if options.json:
        print_json(facts)
        return 0
    for part, found in facts.items():
        show(part)
        width = max(map(len, found), default=0)
        for name, value in found.items():
            show(f"  {printable(name):{width}}  {printable(value)}")
    return 0


def _facts(find: Callable[[], Facts]) -> Facts:
    """What a part finds, or its error: any part of an installation may be broken in any way."""
    try:
        return find()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _system() -> Facts:
    return {
        "edgeseg": f"{edgeseg.__version__} in {Path(edgeseg.__file__).parent}",
        "Python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
    }


def _processor() -> Facts:
    from edgeseg.machine.processor import cores, cpu_name

    return {"name": cpu_name(), "architecture": platform.machine(), "cores": os.cpu_count(), "usable cores": cores()}


def _memory() -> Facts:
    """In GB (1e9 bytes), by what POSIX systems say."""
    pages = {"total (GB)": "SC_PHYS_PAGES", "free (GB)": "SC_AVPHYS_PAGES"}
    size = os.sysconf("SC_PAGE_SIZE")
    return {name: round(os.sysconf(each) * size / 1e9, 1) for name, each in pages.items() if each in os.sysconf_names}


def _torch() -> Facts:
    """What PyTorch can compute with; it is imported for that."""
    import torch

    from edgeseg.machine.processor import cpu_features

    facts: Facts = {"threads": torch.get_num_threads(), "instruction sets": ", ".join(cpu_features())}
    facts["CUDA"] = torch.version.cuda or "not in this build"
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{device.name}, {device.total_memory / 1e9:.0f} GB"
    if torch.backends.mps.is_available():
        facts["mps"] = "available"
    return facts


def _requirements() -> Iterator[tuple[str, str]]:
    """The libraries that the installed package names, each with the extra that it belongs to, or ""."""
    from importlib.metadata import requires

    for text in requires("edgeseg") or ():
        extra = re.search(r"extra *== *[\"']([\w-]+)", text)
        yield re.split(r"[^\w.-]", text, maxsplit=1)[0], extra[1] if extra else ""


def _version(library: str, otherwise: str) -> str:
    from edgeseg.machine.versions import version_of

    return version_of(library) or otherwise


def _libraries() -> Facts:
    return {library: _version(library, "not found") for library, extra in _requirements() if not extra}


def _optional_libraries() -> Facts:
    """The libraries of the extra "all", each with the first extra that has it and nothing beyond "all"."""
    extras: dict[str, list[str]] = {}
    for library, extra in _requirements():
        extras.setdefault(extra, []).append(library)
    wanted = set(extras.pop("all"))
    own = {library: extra for extra, each in reversed(extras.items()) if wanted.issuperset(each) for library in each}
    missing = "not found: pip install 'edgeseg[{}]'"
    return {name: _version(name, missing.format(own.get(name, "all"))) for name in sorted(wanted)}


def _cache() -> Facts:
    """The folder, and the size of everything in it in MB (1e6 bytes)."""
    from edgeseg.machine.download import cache_folder

    folder = cache_folder()
    facts: Facts = {"folder": str(folder)}
    for part in sorted(folder.iterdir()) if folder.is_dir() else ():
        files = [path for path in (part, *part.rglob("*")) if path.is_file()]
        facts[f"{part.name} (MB)"] = round(sum(path.stat().st_size for path in files) / 1e6, 1)
    return facts


def _weights() -> Facts:
    """Whether the files of weights in the package are those of the catalog."""
    from edgeseg.machine.download import PACKAGE, fetch
    from edgeseg.zoo.weights import WEIGHTS

    facts = {}
    for name, entry in WEIGHTS.items():
        if entry.addresses[0].startswith(PACKAGE):
            try:
                fetch(entry.addresses[:1], name, sha256=entry.sha256)
                facts[name] = "intact"
            except (OSError, ValueError) as error:
                facts[name] = str(error)
    return facts


PARTS: dict[str, Callable[[], Facts]] = {
    "installation": _system,
    "libraries": _libraries,
    "optional libraries": _optional_libraries,
    "processor": _processor,
    "memory": _memory,
    "PyTorch": _torch,
    "cache": _cache,
    "weights of the package": _weights,
}
