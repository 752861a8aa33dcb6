"""All cases, a module for each part of the model."""

from reference.cases import consuming, declaring, dying, limits, routing, settling
from reference.record import CASES as ALL_CASES

__all__ = ["ALL_CASES", "consuming", "declaring", "dying", "limits", "routing", "settling"]
