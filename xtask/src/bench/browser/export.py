"""Exports a diffusers UNet as ONNX, so that another engine can compute what ours does: export.py UNET_FOLDER OUT.onnx"""

import sys

import torch
from diffusers import UNet2DConditionModel

folder, out = sys.argv[1:]
unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
config = unet.config


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unet = unet

    def forward(self, latent, timestep, text):
        return self.unet(latent, timestep, text, return_dict=False)[0]


cells, tokens = config.sample_size, 8
example = (
    torch.zeros(1, config.in_channels, cells, cells),
    torch.zeros(1),
    torch.zeros(1, tokens, config.cross_attention_dim),
)
torch.onnx.export(
    Plain(),
    example,
    out,
    input_names=["latent", "timestep", "text"],
    output_names=["output"],
    dynamic_axes={"text": {1: "tokens"}},
    opset_version=17,
    dynamo=False,
)
