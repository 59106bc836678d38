"""Milliseconds of one core for a training step, in bf16 and as on machines without it.

python -m tests.tools.small_machine, by hand, on Linux with an x86 processor. A step is 32 texts of 28 tokens through a
student of MiniLM's width. The processor's time is counted: another program on the same core changes it little.
"""

import os
import subprocess
import sys
import time

AS_ON = {
    "this machine, bf16": {"PRECISION": "bf16"},
    "this machine, fp32": {},
    "AVX-512 without bf16, fp32": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "AVX2, fp32": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


def milliseconds(layers: int, bf16: bool, steps: int = 12) -> float:
    """The median over some steps, in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(1)
    shape = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": layers}
    model = BertForSequenceClassification(BertConfig(**shape)).train()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW([weights for weights in model.parameters() if weights.requires_grad])
    tokens, labels, taken = torch.randint(1000, 20000, (32, 28)), torch.randint(0, 2, (32,)), []
    for _ in range(steps + 2):
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(1000 * (time.process_time() - begun))
    return sorted(taken[2:])[steps // 2]


def main() -> None:
    """Each kind of machine in a process of its own: the libraries read their variables when they are loaded."""
    if "AS_ON" in os.environ:
        bf16 = "PRECISION" in os.environ
        print(", ".join(f"{layers} layers {milliseconds(layers, bf16):.0f} ms" for layers in (6, 3)))
        return
    for name, variables in AS_ON.items():
        more = {"AS_ON": name, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | variables
        command = [sys.executable, "-m", "tests.tools.small_machine"]
        done = subprocess.run(command, env=os.environ | more, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{name}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
