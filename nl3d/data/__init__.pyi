"""The public names of the room, each with the module that holds it."""

from nl3d.data.clips.dataset import ClipDataset as ClipDataset
from nl3d.data.clips.dataset import ClipSample as ClipSample
from nl3d.data.clips.processor import ClipProcessor as ClipProcessor
from nl3d.data.clips.processor import normalise_clips as normalise_clips
from nl3d.data.clips.samplers import PKSampler as PKSampler
from nl3d.data.clips.sampling import sample_clips as sample_clips
from nl3d.data.clips.transforms import ClipTransform as ClipTransform
from nl3d.data.dataset import ReIDDataset as ReIDDataset
from nl3d.data.readers.boxes import Boxes as Boxes
from nl3d.data.readers.boxes import BoxOptions as BoxOptions
from nl3d.data.readers.boxes import BoxTrack as BoxTrack
from nl3d.data.readers.boxes import read_boxes as read_boxes
from nl3d.data.readers.ccvid import read_ccvid as read_ccvid
from nl3d.data.readers.dukemtmc_videoreid import read_dukemtmc_videoreid as read_dukemtmc_videoreid
from nl3d.data.readers.ilids_vid import read_ilids_vid as read_ilids_vid
from nl3d.data.readers.ls_vid import read_ls_vid as read_ls_vid
from nl3d.data.readers.manifest import read_manifest as read_manifest
from nl3d.data.readers.manifest import read_manifest_tracklets as read_manifest_tracklets
from nl3d.data.readers.manifest import write_manifest as write_manifest
from nl3d.data.readers.mars import read_mars as read_mars
from nl3d.data.readers.prid2011 import read_prid2011 as read_prid2011
from nl3d.data.readers.reassociation import read_reassociation as read_reassociation
from nl3d.data.readers.registry import register_reader as register_reader
from nl3d.data.readers.tree import read_tree as read_tree
from nl3d.data.tracklets import Tracklet as Tracklet
