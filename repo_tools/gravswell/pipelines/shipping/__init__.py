"""A pipeline's functions as source: what they need of their module and no more, for a Python that has never seen it.

Servers run other releases of Python, so bytecode and pickles do not travel: text does. What cannot be written as text
is refused by its name.
"""

from gravswell.pipelines.shipping.closure import Shipment, ship

__all__ = ["Shipment", "ship"]
