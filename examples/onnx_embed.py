"""Embed WAV files of 16 bits by an exported model; it needs numpy and onnxruntime alone.

python examples/onnx_embed.py exported/model.onnx a.wav b.wav
"""

import sys
import wave

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
rate = int(session.get_modelmeta().custom_metadata_map["rate"])
for path in sys.argv[2:]:
    with wave.open(path) as file:
        if (file.getframerate(), file.getsampwidth()) != (rate, 2):
            sys.exit(f"{path} is not of {rate} Hz and 16 bits: ffmpeg -i IN -ar {rate} OUT.wav")
        samples = np.frombuffer(file.readframes(60 * rate), "<i2").astype(np.float32) / 32768
        mono = samples.reshape(-1, file.getnchannels()).mean(axis=1)
    vector, _chunks = session.run(["vector", "chunks"], {"samples": mono})
    print(path, *vector)
