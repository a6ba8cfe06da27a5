"""Count every entry's parameters and multiply-adds anew into the package's costs.toml."""

from __future__ import annotations

from functools import cache

from posezoo.files import write_atomic
from posezoo.models.cost import count_cost
from posezoo.skeletons import get_skeleton
from posezoo.zoo import get_entry, list_models
from posezoo.zoo.costs import PATH
from posezoo.zoo.entry import TASKS

HEAD = "# Counted from the built networks by scripts/count_costs.py; see costs.py for what the numbers mean.\n"


def main() -> None:
    counted = cache(count_cost)
    lines = [HEAD]
    for entry in map(get_entry, (name for task in TASKS for name in list_models(task=task))):
        joints = len(get_skeleton(entry.skeleton).joints) if entry.skeleton else 0
        cost = counted(entry.arch, joints, entry.input_size_wh)
        row = f"params = {cost.params}, macs = {cost.macs}, summary_macs = {cost.summary_macs}, arrays = {cost.arrays}"
        lines.append(f'"{entry.name}" = {{ {row} }}\n')
    write_atomic(PATH, "".join(lines).encode())
    print(f"{len(lines) - 1} entries -> {PATH}")


if __name__ == "__main__":
    main()
