#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer/: three small byte-level BPE tokenizers and what the Hugging Face
`tokenizers` package (PyPI; 0.23.3 when the files were made) makes of awkward texts.

    pip install tokenizers && python3 scripts/make_tokenizer_fixtures.py
"""
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, \
    pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "tokenizer"
TEXTS = [
    "", " ", "  ", "\n", " \n ", "a", "Hello, world!", "hello  world", "  leading and trailing  ",
    "The quick brown fox jumps over the lazy dog.", "I'm sure they've said we'll do what he'd do",
    "I'M SURE THEY'VE SAID WE'LL DO", "it's 'quoted' isn't", "don\u2019t", "'\u017f 'x '",
    "12345 1,234.56 2026-11-21", "x1y22z333", "\u0661\u0662\u0663 \u00bd \u2167", "a\tb\t\tc\n\n\nd",
    "line one\r\nline two\r\n\r\n  indented", "end of line \n\n \t next", "tabs\t\t\t", "   \n\n   x",
    "caf\u00e9 na\u00efve \u00dcber Stra\u00dfe", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3001\u30c6\u30b9\u30c8\u3002",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0939\u093f\u0928\u094d\u0926\u0940", "\u00a0nbsp\u00a0\u2003em\u3000wide", "a\u0301 combining",
    "$100 & 50% (approx.) #tag @user", "if (x != y) { return *p++; }", "!!!???...---",
    "https://example.org/path?q=1&r=2#frag", "<|begin|>hi<|end|>", "x<|begin|><|begin|>y <|end|> z",
    "<|beg", "<|begin|", "<|end|>\n\n<|begin|> 'll", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the the the thethethe", "supercalifragilisticexpialidocious", "\x00\x01\x7f", "tool<call>x",
]


def corpus():
    texts = [(ROOT / name).read_text(encoding="utf-8")
             for name in ("LICENSE", "scripts/make_tokenizer_fixtures.py")]
    return texts + [text for text in TEXTS if "<|" not in text]


def build(pre_tokenizer, ignore_merges=False, bos=False, normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, min_frequency=2,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<|begin|>", special=True),
                                  AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<call>", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin|> $A", pair="<|begin|> $A $B",
                special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))])])
    return tokenizer


def split(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def main():
    kinds = {
        "gpt2": build(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "llama3": build(split(LLAMA3), ignore_merges=True, bos=True),
        "qwen2": build(split(QWEN2), normalizer=normalizers.NFC()),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in kinds.items():
        (OUT / f"{name}.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
        cases = []
        for text in TEXTS:
            # NFC would compose it; ours takes text as composed already.
            if name == "qwen2" and text.startswith("a\u0301"):
                continue
            ids = tokenizer.encode(text, add_special_tokens=True).ids
            cases.append({"text": text, "ids": ids,
                          "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
        (OUT / f"{name}.cases.json").write_text(json.dumps(cases, indent=0) + "\n",
                                                encoding="utf-8")


if __name__ == "__main__":
    main()
