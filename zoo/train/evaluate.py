"""Measures a model by greedy decoding.

    python evaluate.py MODEL_FOLDER --make     write MODEL_FOLDER/eval.jsonl (the same file each time)
    python evaluate.py MODEL_FOLDER            answer it and print the table of the card
    python evaluate.py MODEL_FOLDER --ask "What is 345 + 1278?"
"""

import argparse
import json
import random

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import reasoner
import tasks
from model import SambaY
from train import accuracy, answer_of

PER_TASK, SEED = 250, 2026


def assert_held_out(rows):
    """No question of the evaluation is among a large sample of what the training stream can make."""
    r = random.Random(99)
    questions = {row["question"] for row in rows}
    for task in tasks.TASKS:
        for _ in range(20000):
            assert tasks.draw(r, task, False)[1] not in questions


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--ask")
    parser.add_argument("--mistakes", help="a file for the wrong replies")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if args.make:
        rows = tasks.evaluation_set(PER_TASK, SEED)
        assert_held_out(rows)
        with open(f"{args.folder}/eval.jsonl", "w", encoding="utf-8") as f:
            for row in rows:
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(len(rows), "questions")
        return

    tokenizer = Tokenizer.from_file(f"{args.folder}/tokenizer.json")
    model = SambaY(json.load(open(f"{args.folder}/config.json")))
    model.load_state_dict(load_file(f"{args.folder}/model.safetensors"), strict=True)
    if args.ask:
        ids = model.generate([tokenizer.encode(reasoner.prompt(args.ask)).ids], 220, tokenizer.token_to_id("<|end|>"))[0]
        print(tokenizer.decode(ids, skip_special_tokens=False))
        return
    rows = [json.loads(line) for line in open(f"{args.folder}/eval.jsonl", encoding="utf-8")]
    result, replies = accuracy(model, tokenizer, rows)
    print("| task | right | asked | accuracy |\n|---|---|---|---|")
    for task, (a, b) in list(result.items()) + [("**all**", tuple(map(sum, zip(*result.values()))))]:
        print(f"| {task} | {a} | {b} | {100 * a / b:.1f} % |")
    if args.mistakes:
        with open(args.mistakes, "w", encoding="utf-8") as f:
            for row, reply in zip(rows, replies):
                if answer_of(reply) != row["answer"]:
                    f.write(f"{row['task']}: {row['question']} {reply} [{row['answer']}]\n")


if __name__ == "__main__":
    main()
