"""edgeofa: one trained elastic network, the best network for every device."""

__version__ = "0.1.0"
