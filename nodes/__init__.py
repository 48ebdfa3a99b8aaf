"""The nodes: a folder per category of the menu. They hold no maths; that is in `lens_models`."""

from .camera.batch_sweep import BatchSweepNode
from .camera.camera import ApertureSweepNode, CameraNode
from .camera.from_photo import CameraFromPhotoNode
from .depth.estimate import EstimateDepthNode
from .depth.given import DepthFromGeometryNode, DepthFromImageNode, LoadDepthNode
from .depth.load_model import LoadDepthModelNode
from .depth.preview import DepthPreviewNode
from .focus.distance import FocusDistanceNode, FocusFromMaskNode, FocusSweepNode, RackFocusNode
from .focus.point import FocusPointNode
from .focus.predict import LoadFocusModelNode, PredictFocusNode
from .generate.conditioning import CameraConditioningNode
from .generate.load import LoadAIFGeneratorNode
from .generate.sampler import AIFSamplerNode
from .lens.lenses import DrBokehLensNode, TAFLensNode
from .lens.shape import ApertureShapeNode
from .measure.metrics import BlurMonotonicityNode, ContentConsistencyNode, LPIPSNode
from .output.save_photo import SavePhotoNode
from .output.sheets import ContactSheetNode, FocusOverlayNode

NODES = (
    CameraNode, CameraFromPhotoNode, ApertureSweepNode, BatchSweepNode,
    LoadAIFGeneratorNode, AIFSamplerNode, CameraConditioningNode,
    LoadDepthModelNode, EstimateDepthNode, LoadDepthNode, DepthFromImageNode, DepthFromGeometryNode,
    DepthPreviewNode,
    FocusDistanceNode, LoadFocusModelNode, PredictFocusNode, FocusFromMaskNode, RackFocusNode, FocusSweepNode,
    FocusPointNode,
    ApertureShapeNode, TAFLensNode, DrBokehLensNode,
    ContactSheetNode, FocusOverlayNode, SavePhotoNode,
    BlurMonotonicityNode, ContentConsistencyNode, LPIPSNode,
)  # fmt: skip
