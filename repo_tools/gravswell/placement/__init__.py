"""Which model holds which devices: consecutive groups, each model's own unless it shares them. Pure.

A replica's devices are numbered from 0. Models take them in order: each the first free devices in a row that are
enough, or those that it asks for by its start. A model that shares takes free ones too, and where there are none those
that the fewest others share. Nobody is moved for the sake of another, so a model that is added at the end changes
nothing for those before it.

Its law: only the standard library and the errors, for the library, the agent and the operator stand on it.
"""

from gravswell.placement.groups import Group, Held, Wish
from gravswell.placement.layout import Layout
from gravswell.placement.notation import parse_held, parse_wish
from gravswell.placement.placing import arrange, place

__all__ = ["Group", "Held", "Layout", "Wish", "arrange", "parse_held", "parse_wish", "place"]
