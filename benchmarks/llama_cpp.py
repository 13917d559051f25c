"""The engine's encode rate beside llama.cpp's: a decoder of the same shape with random weights, written as GGUF in q8_0, same cores, int8 against it.

llama.cpp is no dependency: build `llama-cpp-python` and `gguf` in an environment of their own and name its interpreter. That process answers on its
standard input, so both sides are timed in turn in one run.

    pip install llama-cpp-python gguf    # in the other environment; compiled for this machine's own instructions
    python -m benchmarks.llama_cpp --peer OTHER/bin/python
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, cast

import torch

from benchmarks.common import arguments, record
from benchmarks.shapes import QWEN, beside, qwen_backbone, row, shown

LENGTH, CONTENTS = 512, 2

PEER = r"""
import json, sys, time
import gguf, llama_cpp, numpy as np
shape, path, threads, length, contents = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
q8 = gguf.GGMLQuantizationType.Q8_0
writer = gguf.GGUFWriter(path, "qwen2")
hidden, heads, groups, layers = shape["hidden_size"], shape["num_attention_heads"], shape["num_key_value_heads"], shape["num_hidden_layers"]
vocabulary, inner, width = shape["vocab_size"], shape["intermediate_size"], shape["hidden_size"] // shape["num_attention_heads"]
writer.add_context_length(shape["max_position_embeddings"]); writer.add_embedding_length(hidden); writer.add_block_count(layers)
writer.add_feed_forward_length(inner); writer.add_head_count(heads); writer.add_head_count_kv(groups)
writer.add_rope_freq_base(shape["rope_theta"]); writer.add_layer_norm_rms_eps(1e-6); writer.add_file_type(7)
writer.add_tokenizer_model("gpt2"); writer.add_tokenizer_pre("qwen2")
writer.add_token_list([f"t{i}" for i in range(vocabulary)]); writer.add_token_merges(["t 0"]); writer.add_token_types([1] * vocabulary)
writer.add_bos_token_id(0); writer.add_eos_token_id(1)
def matrix(name, rows, columns):
    weights = rng.standard_normal((rows, columns), dtype=np.float32) * 0.02
    writer.add_tensor(name, gguf.quants.quantize(weights, q8), raw_dtype=q8)
def vector(name, size, value):
    writer.add_tensor(name, np.full(size, value, dtype=np.float32))
matrix("token_embd.weight", vocabulary, hidden); vector("output_norm.weight", hidden, 1.0)
for layer in range(layers):
    at = f"blk.{layer}."
    vector(at + "attn_norm.weight", hidden, 1.0); vector(at + "ffn_norm.weight", hidden, 1.0)
    for name, size in (("q", heads * width), ("k", groups * width), ("v", groups * width)):
        matrix(at + f"attn_{name}.weight", size, hidden); vector(at + f"attn_{name}.bias", size, 0.0)
    matrix(at + "attn_output.weight", hidden, heads * width)
    matrix(at + "ffn_gate.weight", inner, hidden); matrix(at + "ffn_up.weight", inner, hidden); matrix(at + "ffn_down.weight", hidden, inner)
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
model = llama_cpp.Llama(path, n_ctx=length * contents, n_batch=length * contents, n_ubatch=512, n_threads=threads, n_threads_batch=threads, flash_attn=True,
                        n_gpu_layers=0, verbose=False)
context, memory = model._ctx.ctx, llama_cpp.llama_get_memory(model._ctx.ctx)
def encode():
    for content in range(contents):
        llama_cpp.llama_memory_clear(memory, True)
        batch = llama_cpp.llama_batch_init(length, 0, 1)
        batch.n_tokens = length
        for i in range(length):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = 5 + i, i, 1, i == length - 1
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_synchronize(context)
        llama_cpp.llama_batch_free(batch)
print(json.dumps({"ready": llama_cpp.__version__, "system": llama_cpp.llama_print_system_info().decode()}), flush=True)
for line in sys.stdin:
    began = time.perf_counter(); encode(); print(json.dumps(time.perf_counter() - began), flush=True)
"""


def main() -> None:
    options = arguments(__doc__ or "", peer=sys.executable, repeats=4)
    ids, threads = tuple(range(5, 5 + LENGTH)), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        setup = json.dumps([QWEN, str(Path(folder) / "model.gguf"), threads, LENGTH, CONTENTS])
        with subprocess.Popen([options.peer, "-c", PEER, setup], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            told, heard = cast(IO[str], peer.stdin), cast(IO[str], peer.stdout)
            first = heard.readline()
            if not first:
                raise SystemExit(f"{options.peer} has no llama-cpp-python and gguf; name one that has: --peer PYTHON")
            about = json.loads(first)

            def theirs() -> None:
                told.write("\n")
                told.flush()
                heard.readline()

            whole, plain = qwen_backbone(int8=True), qwen_backbone()
            int8, bfloat16, llama = beside([lambda: whole.encode([ids] * CONTENTS), lambda: plain.encode([ids] * CONTENTS), theirs], options.repeats)
            told.close()
    rows = [
        row("7", f"encode {LENGTH}-token contents: int8 rate / llama.cpp q8_0", llama / int8, ">= 1.0", seconds=int8, llama_seconds=llama),
        row("7", "the same in bfloat16 / llama.cpp q8_0", llama / bfloat16, ">= 1.0", seconds=bfloat16),
    ]
    print(shown(rows))
    record(
        "llama_cpp", {"rows": rows, "llama_cpp_python": about["ready"], "llama_cpp_built_for": about["system"]}, "python -m benchmarks.llama_cpp --peer PYTHON"
    )


if __name__ == "__main__":
    main()
