"""How fast the tokenizers library reads clip_prompts.jsonl on one thread: bench_tokenizer.py clip|open_clip|FOLDER.

FOLDER holds a tokenizer.json. Processor time, best of ten rounds over all 12,000 prompts: each encoded alone, as the
engine does it; and as one batch, which spares the calls from Python. Beside it, on the same machine:
build/release/tests/bench_tokenizer FOLDER.
"""
import json
import os
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from common import ROOT  # noqa: E402

from tokenizers import Tokenizer  # noqa: E402


def best(function, rounds=10):
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main():
    with open(ROOT / "tests/text/data/clip_prompts.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    size = sum(len(text.encode()) for text in texts) / 1e6
    if sys.argv[1] == "open_clip":
        import tokenizer as clip
        simple = clip.References().simple
        times = {"one by one": best(lambda: [simple.encode(text) for text in texts], 3)}
    else:
        if sys.argv[1] == "clip":
            import tokenizer as clip
            backend = clip.References().hugging.backend_tokenizer
        else:
            backend = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
            backend.no_truncation()
        times = {"one by one": best(lambda: [backend.encode(text) for text in texts]),
                 "as a batch": best(lambda: backend.encode_batch_fast(texts))}
    for name, seconds in times.items():
        print(f"{len(texts)} prompts {name}: {1e3 * seconds:.1f} ms, {size / seconds:.1f} MB/s")


if __name__ == "__main__":
    main()
