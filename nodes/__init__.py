"""The nodes: one file per step of the graph. They hold no maths; that is in `lens_models`."""

from .batch import BatchSweepNode
from .camera import ApertureSweepNode, CameraNode
from .camera_conditioning import CameraConditioningNode
from .depth import DepthFromGeometryNode, DepthFromImageNode, LoadDepthNode
from .depth_model import LoadDepthModelNode
from .depth_preview import DepthPreviewNode
from .estimate import EstimateDepthNode
from .evaluate import BlurMonotonicityNode, ContentConsistencyNode, LPIPSNode
from .focus import FocusDistanceNode, FocusFromMaskNode, FocusSweepNode, RackFocusNode
from .focus_point import FocusPointNode
from .generate import AIFSamplerNode
from .lens import DrBokehLensNode, TAFLensNode
from .load_generator import LoadAIFGeneratorNode
from .output import ContactSheetNode, FocusOverlayNode
from .photo import CameraFromPhotoNode, SavePhotoNode
from .predict_focus import LoadFocusModelNode, PredictFocusNode
from .shape import ApertureShapeNode

NODES = (
    CameraNode,
    CameraFromPhotoNode,
    ApertureSweepNode,
    BatchSweepNode,
    LoadAIFGeneratorNode,
    AIFSamplerNode,
    CameraConditioningNode,
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
    FocusSweepNode,
    FocusPointNode,
    ApertureShapeNode,
    TAFLensNode,
    DrBokehLensNode,
    ContactSheetNode,
    FocusOverlayNode,
    SavePhotoNode,
    BlurMonotonicityNode,
    ContentConsistencyNode,
    LPIPSNode,
)
