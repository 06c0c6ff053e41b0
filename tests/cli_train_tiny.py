#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/train_tiny.py: two steps on made-up text give a whole checkpoint, and outliers do not change its function."""
import importlib.util
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

MISSING = [m for m in ("torch", "tokenizers", "transformers") if importlib.util.find_spec(m) is None]
TOOL = pathlib.Path("tools/train_tiny.py")


def made_text():
    """Documents of made-up words, enough of them for a few windows."""
    rng = random.Random(1)
    words = ["".join(rng.choice("ptkmnsl") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))) for _ in range(400)]
    return "\0".join(" ".join(rng.choices(words, k=900)) + "." for _ in range(8))


class TrainTiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = pathlib.Path(cls.folder.name)
        (root / "books").write_text(made_text(), encoding="utf-8")
        cls.out = root / "tiny"
        cls.process = subprocess.run([sys.executable, TOOL, root / "books", cls.out, "--steps", "2", "--device", "cpu"],
                                     capture_output=True, text=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_succeeds(self):
        self.assertEqual(self.process.returncode, 0, self.process.stderr[-2000:])
        self.assertIn("step 2 of 2", self.process.stdout)

    def test_writes_what_models_tiny_has(self):
        made = {p.name for p in self.out.iterdir()}
        ours = {p.name for p in pathlib.Path("models/tiny").iterdir()} - {"README.md", "eval.txt"}
        self.assertEqual(ours - made, set())

    def test_config_has_the_shape_of_models_tiny(self):
        made = json.loads((self.out / "config.json").read_text())
        ours = json.loads(pathlib.Path("models/tiny/config.json").read_text())
        for key in ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                    "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "bos_token_id",
                    "eos_token_id", "max_position_embeddings"):
            self.assertEqual(made[key], ours[key], key)

    def test_tokenizer_has_the_form_of_models_tiny(self):
        made = json.loads((self.out / "tokenizer.json").read_text(encoding="utf-8"))
        ours = json.loads(pathlib.Path("models/tiny/tokenizer.json").read_text(encoding="utf-8"))
        for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"):
            self.assertEqual(made[key], ours[key], key)

    def test_reference_has_the_form_of_models_tiny(self):
        made = json.loads((self.out / "reference.json").read_text(encoding="utf-8"))
        ours = json.loads(pathlib.Path("models/tiny/reference.json").read_text(encoding="utf-8"))
        self.assertEqual(made.keys(), ours.keys())
        self.assertEqual([(c["prompt"], list(c)) for c in made["cases"]], [(c["prompt"], list(c)) for c in ours["cases"]])

    def test_outliers_keep_the_function(self):
        import torch
        from transformers import LlamaForCausalLM
        spec = importlib.util.spec_from_file_location("train_tiny", TOOL)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        model = LlamaForCausalLM.from_pretrained(self.out).double().eval()
        ids = torch.arange(40).view(1, 40)
        with torch.no_grad():
            before = model(ids).logits
            norm = model.model.layers[0].input_layernorm.weight.clone()
            tool.inject_outliers(model)
            after = model(ids).logits
        self.assertGreater((model.model.layers[0].input_layernorm.weight / norm).max().item(), 8)
        # Not exactly: transformers computes the norm and RoPE's angles in float32 whatever the weights are.
        self.assertLess((after - before).abs().max().item(), 1e-4 * before.abs().max().item())


if __name__ == "__main__":
    if MISSING:
        print("skip two_steps: not importable: " + ", ".join(MISSING))
        sys.exit()
    unittest.main(verbosity=2)
