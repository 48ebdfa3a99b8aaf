"""The nodes: one file per step of the graph. They hold no maths; that is in `lens_models`."""

from .camera import ApertureSweepNode, CameraNode
from .depth import DepthFromGeometryNode, DepthFromImageNode, LoadDepthNode
from .focus import FocusDistanceNode
from .lens import DrBokehLensNode, TAFLensNode
from .output import ContactSheetNode
from .shape import ApertureShapeNode

NODES = (
    CameraNode,
    ApertureSweepNode,
    LoadDepthNode,
    DepthFromImageNode,
    DepthFromGeometryNode,
    FocusDistanceNode,
    ApertureShapeNode,
    TAFLensNode,
    DrBokehLensNode,
    ContactSheetNode,
)
