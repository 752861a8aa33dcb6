"""The one place that holds the version of the distribution (Semantic Versioning).

The numbers of the wire protocol and of the segment layout are their own and live beside what they describe.
"""

__version__ = "0.1.0"
