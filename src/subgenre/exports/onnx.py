"""An encoder as one ONNX graph: samples in, unit vectors out, the front end inside.

torch exports the encoding of one chunk. The graph around it cuts the samples into chunks, runs that
for each of them (ONNX's `Scan`), and takes the mean. So the graph's memory is that of one chunk.
"""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subgenre.audio.features import log_mel
from subgenre.core import files
from subgenre.errors import BackboneError, MissingExtraError
from subgenre.models import engines
from subgenre.models.encoder import Encoder, fingerprint

FILE = "model.onnx"
# the loop over the chunks, a node `Scan`, comes before the last three lines
_AROUND = """
subgenre (float[n] samples) => (float[%(D)d] vector, float[B, %(D)d] chunks)
<
    int64[1] zero = {0}, int64[1] one = {1}, int64[1] size = {%(size)d},
    int64[2] margins = {0, %(size)d}, int64[2] rows = {-1, %(size)d}
> {
    length = Shape (samples)
    whole = Div (length, size)
    count = Max (whole, one)
    end = Mul (count, size)
    padded = Pad (samples, margins)
    cut = Slice (padded, zero, end)
    pieces = Reshape (cut, rows)
    valid = Min (length, size)
    mean = ReduceMean <keepdims = 0> (chunks, zero)
    norm = ReduceL2 <keepdims = 1> (mean, zero)
    vector = Div (mean, norm)
}
"""


class ChunkEncoder(nn.Module):
    """Samples of one chunk -> its vector, as `preprocess` and the encoder compute it.

    Attributes:
        n_samples: of a chunk.
        needed: [T], the number of samples that each frame of a short file needs.
    """

    needed: Tensor

    def __init__(self, encoder: Encoder, n_samples: int) -> None:
        super().__init__()
        self.encoder, self.n_samples = encoder, n_samples
        frames = encoder.backbone.spec.frames
        lengths = range(n_samples + 1)
        needed = [bisect.bisect(lengths, t, key=frames) for t in range(frames(n_samples))]
        self.register_buffer("needed", torch.tensor(needed))

    def forward(self, valid: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Encode samples [n_samples], of which the first `valid` [1] are of the file: [D].

        Returns `valid` as well: a loop passes it on. A frame beyond the end of a short file is
        0, and log-mel is rounded, as in a feature folder.
        """
        features = log_mel(samples[None], self.encoder.backbone.spec)
        known = torch.where((valid >= self.needed)[:, None], features, 0.0)
        stored = known.to(torch.float16).to(torch.float32)
        return valid.clone(), self.encoder(stored)[0]


def write(encoder: Encoder, chunk_s: float, out: Path) -> Path:
    """Write `model.onnx`: samples [n], mono at the rate in its metadata, to unit vectors.

    The samples are cut into chunks of `chunk_s`, one after another; the rest behind the last whole
    chunk is left out, and a file shorter than a chunk is padded. `chunks` [B, D] are the vectors
    of the chunks, `vector` [D] is their mean, scaled to norm 1.

    Raises:
        MissingExtraError: ONNX is not installed. BackboneError: the network can't be exported.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as problem:
        raise MissingExtraError("--onnx", "onnx") from problem
    spec = encoder.backbone.spec
    chunk = ChunkEncoder(encoder.cpu().eval(), round(chunk_s * spec.rate))
    try:
        body = _exported(chunk)
    except torch.onnx.OnnxExporterError as problem:
        reason = str(problem).strip().splitlines()[0]
        raise BackboneError(
            f"the network {encoder.backbone.kind} can't be exported ({reason}); use --hub or "
            "--sentence-transformers"
        ) from problem
    model = _around(body, chunk.n_samples, encoder.size)
    metadata = {"rate": spec.rate, "chunk_s": chunk_s, "encoder": fingerprint(encoder)}
    onnx.helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
    onnx.checker.check_model(model)
    files.write_bytes(out / FILE, model.SerializeToString())
    return out / FILE


def _exported(chunk: ChunkEncoder) -> Any:
    """Return the ONNX model of one chunk, by torch's exporter."""
    example = torch.tensor([chunk.n_samples]), torch.zeros(chunk.n_samples)
    with torch.no_grad():
        chunk(*example)  # fills the front end's caches: in the export they would hold symbols
        with engines.quiet():
            program: Any = torch.onnx.export(
                chunk,
                example,
                input_names=["valid", "piece"],
                output_names=["valid_out", "chunk_vector"],
                dynamo=True,
                verbose=False,
            )
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program.model)  # paths of this computer, of each line of code
    return program.model_proto


def _around(body: Any, n_samples: int, size: int) -> Any:
    """Return a model that cuts the samples and runs `body` for each chunk."""
    from onnx import helper, parser

    graph = parser.parse_graph(_AROUND % {"size": n_samples, "D": size})
    body.graph.name = "chunk"
    scan = helper.make_node(
        "Scan", ["valid", "pieces"], ["valid_last", "chunks"], body=body.graph, num_scan_inputs=1
    )
    graph.node.insert(len(graph.node) - 3, scan)
    return helper.make_model(graph, opset_imports=body.opset_import, ir_version=body.ir_version)
