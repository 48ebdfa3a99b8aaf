"""The nodes: one file per step of the graph. They hold no maths; that is in `lens_models`."""

from .camera import ApertureSweepNode, CameraNode
from .depth import DepthFromGeometryNode, DepthFromImageNode, LoadDepthNode
from .depth_model import LoadDepthModelNode
from .depth_preview import DepthPreviewNode
from .estimate import EstimateDepthNode
from .focus import FocusDistanceNode, FocusFromMaskNode, RackFocusNode
from .focus_point import FocusPointNode
from .lens import DrBokehLensNode, TAFLensNode
from .output import ContactSheetNode, FocusOverlayNode
from .predict_focus import LoadFocusModelNode, PredictFocusNode
from .shape import ApertureShapeNode

NODES = (
    CameraNode,
    ApertureSweepNode,
    LoadDepthModelNode,
    EstimateDepthNode,
    LoadDepthNode,
    DepthFromImageNode,
    DepthFromGeometryNode,
    DepthPreviewNode,
    FocusDistanceNode,
    LoadFocusModelNode,
    PredictFocusNode,
    FocusFromMaskNode,
    RackFocusNode,
    FocusPointNode,
    ApertureShapeNode,
    TAFLensNode,
    DrBokehLensNode,
    ContactSheetNode,
    FocusOverlayNode,
)
