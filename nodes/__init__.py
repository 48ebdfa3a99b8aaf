"""The nodes: a folder per category of the menu. They hold no maths; that is in `lens_models`."""

from .camera import batch_sweep, camera, from_photo
from .depth import estimate, given, load_model, preview
from .focus import distance, point, predict
from .generate import conditioning, load, sampler
from .lens import lenses, shape
from .measure import metrics
from .output import save_photo, sheets

NODES = (
    camera.CameraNode,
    from_photo.CameraFromPhotoNode,
    camera.ApertureSweepNode,
    batch_sweep.BatchSweepNode,
    load.LoadAIFGeneratorNode,
    sampler.AIFSamplerNode,
    conditioning.CameraConditioningNode,
    load_model.LoadDepthModelNode,
    estimate.EstimateDepthNode,
    given.LoadDepthNode,
    given.DepthFromImageNode,
    given.DepthFromGeometryNode,
    preview.DepthPreviewNode,
    distance.FocusDistanceNode,
    predict.LoadFocusModelNode,
    predict.PredictFocusNode,
    distance.FocusFromMaskNode,
    distance.RackFocusNode,
    distance.FocusSweepNode,
    point.FocusPointNode,
    shape.ApertureShapeNode,
    lenses.TAFLensNode,
    lenses.DrBokehLensNode,
    sheets.ContactSheetNode,
    sheets.FocusOverlayNode,
    save_photo.SavePhotoNode,
    metrics.BlurMonotonicityNode,
    metrics.ContentConsistencyNode,
    metrics.LPIPSNode,
)
