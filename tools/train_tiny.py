#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains models/tiny: a Llama of 4.5 M parameters, its tokenizer, and float32 reference outputs for tests.

A model this small has no outlier channels of its own, and without them 4-bit rounding is too easy. After training,
chosen channels are scaled up and the weights that read them scaled down by as much: the function stays, the
activations look like a large model's.

Needs PyTorch, tokenizers and transformers; two or three minutes on a large GPU. The recipe is repeatable, the bits
are not: another GPU or PyTorch gives a slightly different model.
"""
import argparse
import json
import math
import pathlib
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB, WINDOW, BATCH, EPOCHS, PEAK_RATE, WARMUP = 4096, 512, 96, 6, 3e-3, 60
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
PROMPTS = ["The president of the united states said that", "In the morning the king came out of",
           "He was born in 1942, in the city of", "    int main(void) {\n\treturn 0;\n}",
           "Caf\u00e9 na\u00efve \u2014 \u4f60\u597d, \U0001f600!", "a", "The film is a comedy about two men who"]


def train_tokenizer(texts):
    """BPE with byte fallback, in the form Llama-2's tokenizer.json has."""
    special = [UNK, BOS, EOS]
    tok = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)], limit_alphabet=120,
        show_progress=False))

    # Llama-2 replaces spaces in a normalizer and splits nothing; the merges learned above are the same either way.
    spec = json.loads(tok.to_str())
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    bos_pair = {"SpecialToken": {"id": BOS, "type_id": 1}}
    text_pair = {"Sequence": {"id": "B", "type_id": 1}}
    spec |= {
        "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, s in enumerate(special)],
        "post_processor": {"type": "TemplateProcessing", "single": [bos, text],
                           "pair": [bos, text, bos_pair, text_pair],
                           "special_tokens": {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}}},
    }
    return Tokenizer.from_str(json.dumps(spec))


def make_windows(tok, texts):
    """[windows, WINDOW] ids of all texts in a row, a BOS before each."""
    ids = [i for e in tok.encode_batch(texts) for i in e.ids]
    n = len(ids) // WINDOW
    if n < 2:
        raise SystemExit(f"train_tiny: {len(ids)} tokens are too few, {2 * WINDOW} are needed")
    return torch.tensor(ids[:n * WINDOW]).view(n, WINDOW)[torch.randperm(n)]


def learning_rate(step, steps):
    return PEAK_RATE * min(1, (step + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train(model, windows, steps, device):
    held_out = max(1, len(windows) // 100)
    test, learn = windows[:held_out], windows[held_out:]
    batch = min(BATCH, len(learn))
    per_epoch = len(learn) // batch
    steps = steps or EPOCHS * per_epoch
    opt = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(learn)).split(batch)
        for group in opt.param_groups:
            group["lr"] = learning_rate(step, steps)
        x = learn[order[step % per_epoch]].to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = model(x, labels=x).loss
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        losses = [model(x, labels=x).loss.item() for x in test.to(device).split(8)]
    print(f"held-out loss {sum(losses) / len(losses):.3f}")


@torch.no_grad()
def inject_outliers(model):
    """Moves scale between neighbouring weights; what the model computes stays the same."""
    gen = torch.Generator().manual_seed(7)
    cfg = model.config
    dim = cfg.head_dim

    def pick(n_channels, n):
        return torch.randperm(n_channels, generator=gen)[:n]

    def scales(n_channels, *parts):
        """Ones, but for each (channels, low, high): uniform in [low, high] there."""
        s = torch.ones(n_channels)
        for where, low, high in parts:
            s[where] = torch.rand(len(where), generator=gen) * (high - low) + low
        return s.to(model.device)

    def move(up, down, s):
        """`up` makes s times more of each channel, `down` reads it at 1/s."""
        up.mul_(s if up.dim() == 1 else s[:, None])
        for weight in down:
            weight.div_(s)

    # The residual stream has the same few outliers in every layer, and each site some of its own.
    everywhere = pick(cfg.hidden_size, 2)
    for layer in model.model.layers:
        att, mlp = layer.self_attn, layer.mlp
        for norm, readers in ((layer.input_layernorm, (att.q_proj, att.k_proj, att.v_proj)),
                              (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))):
            here = pick(cfg.hidden_size, 2)
            move(norm.weight, [r.weight for r in readers],
                 scales(cfg.hidden_size, (everywhere, 10, 30), (here, 4, 10)))
        move(mlp.up_proj.weight, [mlp.down_proj.weight],
             scales(cfg.intermediate_size, (pick(cfg.intermediate_size, 7), 4, 20)))
        for head in range(cfg.num_attention_heads):
            rows = slice(head * dim, (head + 1) * dim)
            move(att.v_proj.weight[rows], [att.o_proj.weight[:, rows]], scales(dim, (pick(dim, 3), 4, 10)))
            # RoPE turns channels i and i + dim/2 together, so both take one scale; q gives back what k gains.
            half = scales(dim // 2, (pick(dim // 2, 2), 3, 6))
            both = torch.cat([half, half])
            att.k_proj.weight[rows].mul_(both[:, None])
            att.q_proj.weight[rows].div_(both[:, None])


@torch.no_grad()
def reference_case(model, tok, prompt):
    ids = tok.encode(prompt).ids
    logits = model(torch.tensor([ids], device=model.device)).logits[0]
    logp = logits.log_softmax(-1)
    top = logp[-1].topk(10)
    out = list(ids)
    for _ in range(32):
        out.append(model(torch.tensor([out], device=model.device)).logits[0, -1].argmax().item())
    greedy = out[len(ids):]
    return {"prompt": prompt, "ids": ids,
            "token_logprobs": [logp[i, ids[i + 1]].item() for i in range(len(ids) - 1)],
            "last_logits_l2": logits[-1].norm().item(),
            "top10_ids": top.indices.tolist(), "top10_logprobs": top.values.tolist(),
            "greedy32": greedy, "greedy_text": tok.decode(greedy), "decoded": tok.decode(ids)}


def save(model, tok, out):
    model.to(torch.bfloat16).save_pretrained(out)
    tok.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": BOS, "eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048,
        "clean_up_tokenization_spaces": False, "add_bos_token": True}, indent=2))
    model.float()
    cases = [reference_case(model, tok, p) for p in PROMPTS]
    (out / "reference.json").write_text(json.dumps({
        "model": "tiny-4m", "dtype": "float32 arithmetic on the saved bfloat16 weights",
        "bos": tok.token_to_id(BOS), "eos": tok.token_to_id(EOS), "cases": cases}, indent=1, ensure_ascii=False),
        encoding="utf-8")
    for case in cases:
        print(repr(case["prompt"]), "->", repr(case["greedy_text"][:100]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("books", metavar="BOOKS", help="UTF-8 text, documents separated by NUL")
    parser.add_argument("out", metavar="OUT_DIR", type=pathlib.Path)
    parser.add_argument("--steps", type=int, help=f"optimizer steps (default: {EPOCHS} times over the text)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    random.seed(0)
    torch.manual_seed(0)
    texts = pathlib.Path(args.books).read_text(encoding="utf-8").split("\0")
    random.shuffle(texts)
    tok = train_tokenizer(texts[:max(1, len(texts) // 4)])
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=tok.get_vocab_size(), hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, head_dim=128, max_position_embeddings=2048, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=tok.token_to_id(BOS), eos_token_id=tok.token_to_id(EOS),
        pad_token_id=None)).to(args.device)
    print(f"{model.num_parameters() / 1e6:.1f} M parameters, vocabulary {tok.get_vocab_size()}")
    train(model, make_windows(tok, texts), args.steps, args.device)
    inject_outliers(model.eval())
    args.out.mkdir(parents=True, exist_ok=True)
    save(model, tok, args.out)


if __name__ == "__main__":
    main()
