"""FLUX's transformer, the VAE's decoder and CLIP's image tower in plain PyTorch, for peer.py.

Written out, since diffusers may not be where a GPU is. Parameters have diffusers' and transformers' names, so that a
state of theirs loads (peer.py --check compares outputs). What their documentation recommends is here: one call of scaled
dot product attention, fused norms, channels_last convolutions.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F


# ---- FLUX ----

def sinusoids(t, dim=256):
    """t [B] to [B,dim]: cosines, then sines."""
    rates = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def rotation(ids, axes):
    """Positions [T,axes] to cosines and sines [T,1,D], each repeated for both numbers of a pair."""
    angles = []
    for k, dim in enumerate(axes):
        rates = 1.0 / 10000 ** (torch.arange(0, dim, 2, device=ids.device, dtype=torch.float32) / dim)
        angles.append((ids[:, k].float()[:, None] * rates).repeat_interleave(2, 1))
    angles = torch.cat(angles, 1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x, turn):
    """x [B,T,H,D]"""
    cos, sin = turn
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-b, a], -1).flatten(-2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


def attend(q, k, v):
    """[B,T,H,D] each to [B,T,H*D]"""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Two(nn.Module):
    """linear, silu, linear"""

    def __init__(self, inputs, width):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Modulation(nn.Module):
    def __init__(self, width, parts):
        super().__init__()
        self.parts, self.linear = parts, nn.Linear(width, parts * width)

    def forward(self, condition):
        return self.linear(F.silu(condition))[:, None].chunk(self.parts, -1)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(width, 4 * width)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](F.gelu(self.net[0].proj(x), approximate="tanh"))


class Attention(nn.Module):
    def __init__(self, width, heads, joint):
        super().__init__()
        self.heads = heads
        head = width // heads
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(width, width))
        self.norm_q, self.norm_k = nn.RMSNorm(head, eps=1e-6), nn.RMSNorm(head, eps=1e-6)
        if joint:
            self.to_out = nn.ModuleList([nn.Linear(width, width)])
            for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
                setattr(self, name, nn.Linear(width, width))
            self.norm_added_q, self.norm_added_k = nn.RMSNorm(head, eps=1e-6), nn.RMSNorm(head, eps=1e-6)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1))

    def image(self, x):
        return self.norm_q(self.split(self.to_q(x))), self.norm_k(self.split(self.to_k(x))), self.split(self.to_v(x))

    def text(self, x):
        return (self.norm_added_q(self.split(self.add_q_proj(x))), self.norm_added_k(self.split(self.add_k_proj(x))),
                self.split(self.add_v_proj(x)))


class DoubleBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm1_context = Modulation(width, 6), Modulation(width, 6)
        self.attn = Attention(width, heads, True)
        self.ff, self.ff_context = FeedForward(width), FeedForward(width)

    def forward(self, x, text, condition, turn):
        a, b = self.norm1(condition), self.norm1_context(condition)
        image = self.attn.image(layer_norm(x) * (1 + a[1]) + a[0])
        words = self.attn.text(layer_norm(text) * (1 + b[1]) + b[0])
        q, k, v = (torch.cat(pair, 1) for pair in zip(words, image))
        out = attend(rotate(q, turn), rotate(k, turn), v)
        words, image = out.split([text.shape[1], x.shape[1]], 1)
        x = x + a[2] * self.attn.to_out[0](image)
        text = text + b[2] * self.attn.to_add_out(words)
        x = x + a[5] * self.ff(layer_norm(x) * (1 + a[4]) + a[3])
        text = text + b[5] * self.ff_context(layer_norm(text) * (1 + b[4]) + b[3])
        return x, text


class SingleBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm, self.attn = Modulation(width, 3), Attention(width, heads, False)
        self.proj_mlp, self.proj_out = nn.Linear(width, 4 * width), nn.Linear(5 * width, width)

    def forward(self, x, condition, turn):
        shift, scale, gate = self.norm(condition)
        y = layer_norm(x) * (1 + scale) + shift
        q, k, v = self.attn.image(y)
        attention = attend(rotate(q, turn), rotate(k, turn), v)
        mlp = F.gelu(self.proj_mlp(y), approximate="tanh")
        return x + gate * self.proj_out(torch.cat([attention, mlp], -1))


class Flux(nn.Module):
    def __init__(self, config):
        super().__init__()
        heads, width = config["num_attention_heads"], config["num_attention_heads"] * config["attention_head_dim"]
        self.axes = config["axes_dims_rope"]
        self.x_embedder = nn.Linear(config["in_channels"], width)
        self.context_embedder = nn.Linear(config["joint_attention_dim"], width)
        self.time_text_embed = nn.Module()
        self.time_text_embed.timestep_embedder = Two(256, width)
        self.time_text_embed.text_embedder = Two(config["pooled_projection_dim"], width)
        if config["guidance_embeds"]:
            self.time_text_embed.guidance_embedder = Two(256, width)
        self.transformer_blocks = nn.ModuleList(DoubleBlock(width, heads) for _ in range(config["num_layers"]))
        self.single_transformer_blocks = nn.ModuleList(
            SingleBlock(width, heads) for _ in range(config["num_single_layers"]))
        self.norm_out, self.proj_out = Modulation(width, 2), nn.Linear(width, config["in_channels"])

    def forward(self, x, text, pooled, level, guidance, image_ids, text_ids):
        embed = self.time_text_embed
        condition = embed.timestep_embedder(sinusoids(1000 * level).to(x.dtype)) + embed.text_embedder(pooled)
        if hasattr(embed, "guidance_embedder"):
            condition = condition + embed.guidance_embedder(sinusoids(1000 * guidance).to(x.dtype))
        turn = rotation(torch.cat([text_ids, image_ids]), self.axes)
        x, text = self.x_embedder(x), self.context_embedder(text)
        for block in self.transformer_blocks:
            x, text = block(x, text, condition, turn)
        length = text.shape[1]
        x = torch.cat([text, x], 1)
        for block in self.single_transformer_blocks:
            x = block(x, condition, turn)
        scale, shift = self.norm_out(condition)
        return self.proj_out(layer_norm(x[:, length:]) * (1 + scale) + shift)


# ---- the VAE's decoder: [N,C,H,W] ----

class Resnet(nn.Module):
    def __init__(self, inputs, outputs, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outputs, eps=1e-6), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class PixelAttention(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(width, width))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x):
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        y = attend(*(f(y)[:, :, None] for f in (self.to_q, self.to_k, self.to_v)))
        return x + self.to_out[0](y).transpose(1, 2).unflatten(2, x.shape[2:])


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, groups = config["block_out_channels"][::-1], config["norm_num_groups"]
        self.conv_in = nn.Conv2d(config["latent_channels"], widths[0], 3, padding=1)
        self.mid_block, self.up_blocks = nn.Module(), nn.ModuleList()
        self.mid_block.resnets = nn.ModuleList(Resnet(widths[0], widths[0], groups) for _ in range(2))
        self.mid_block.attentions = nn.ModuleList([PixelAttention(widths[0], groups)])
        before = widths[0]
        for k, width in enumerate(widths):
            block = nn.Module()
            count = config["layers_per_block"] + 1
            block.resnets = nn.ModuleList(Resnet(width if j else before, width, groups) for j in range(count))
            block.upsamplers = nn.ModuleList()
            if k + 1 < len(widths):
                block.upsamplers.append(nn.Module())
                block.upsamplers[0].conv = nn.Conv2d(width, width, 3, padding=1)
            self.up_blocks.append(block)
            before = width
        self.conv_norm_out = nn.GroupNorm(groups, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, z):
        x = self.conv_in(z)
        x = self.mid_block.resnets[1](self.mid_block.attentions[0](self.mid_block.resnets[0](x)))
        for block in self.up_blocks:
            for resnet in block.resnets:
                x = resnet(x)
            for upsampler in block.upsamplers:
                x = upsampler.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.conv_norm_out(x)))


# ---- CLIP's image tower ----

class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x):
        return self.out_proj(attend(*(f(x).unflatten(-1, (self.heads, -1))
                                      for f in (self.q_proj, self.k_proj, self.v_proj))))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.activation = F.gelu if config["hidden_act"] == "gelu" else lambda x: x * torch.sigmoid(1.702 * x)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.self_attn, self.mlp = SelfAttention(width, config["num_attention_heads"]), nn.Module()
        self.mlp.fc1 = nn.Linear(width, config["intermediate_size"])
        self.mlp.fc2 = nn.Linear(config["intermediate_size"], width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp.fc2(self.activation(self.mlp.fc1(self.layer_norm2(x))))


class Tower(nn.Module):
    """Normalised pixels [N,3,S,S] to features [N,P]."""

    def __init__(self, config):
        super().__init__()
        vision = config["vision_config"]
        width, eps, patch = vision["hidden_size"], vision["layer_norm_eps"], vision["patch_size"]
        self.vision_model = nn.Module()
        v, e = self.vision_model, nn.Module()
        e.class_embedding = nn.Parameter(torch.empty(width))
        e.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        e.position_embedding = nn.Embedding((vision["image_size"] // patch) ** 2 + 1, width)
        v.embeddings, v.encoder = e, nn.Module()
        v.encoder.layers = nn.ModuleList(Layer(vision) for _ in range(vision["num_hidden_layers"]))
        v.pre_layrnorm, v.post_layernorm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.visual_projection = nn.Linear(width, config["projection_dim"], bias=False)

    def forward(self, pixels):
        v, e = self.vision_model, self.vision_model.embeddings
        patches = e.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([e.class_embedding.expand(len(pixels), 1, -1), patches], 1) + e.position_embedding.weight
        x = v.pre_layrnorm(x)
        for layer in v.encoder.layers:
            x = layer(x)
        return self.visual_projection(v.post_layernorm(x[:, 0]))
