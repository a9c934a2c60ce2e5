"""What is wrong with the paper's numbers: known faults of two files that do not change, as a table.

Shown beside every comparison with them (reproduction.py) and on the board of reported numbers (board.py), so that a
number is never taken for more than it is. tests/unit/test_paper_faults.py computes again, from the two files, every
fault that follows from them; the others stand in the paper's text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """where: tables of the paper; what: in a sentence; cells: the numbers that show it, one a line."""

    where: str
    what: str
    cells: tuple[str, ...] = ()


FAULTS = (
    Fault(
        "Table 1",
        "7 of 96 steered cells do not beat plain fine-tuning, although the text says that all do.",
        (
            "Qwen2.5-1.5B, infosteer-intervention, openbookqa: 78.9, plain fine-tuning 81.0",
            "Llama-3.2-1B, infosteer-intervention, siqa: 76.0, plain fine-tuning 79.5",
            "Llama-3.2-1B, infosteer-intervention, winogrande: 82.6, plain fine-tuning 82.6",
            "Qwen2.5-1.5B, infosteer-regularization, openbookqa: 78.1, plain fine-tuning 81.0",
            "Llama-3.2-1B, infosteer-regularization, siqa: 75.2, plain fine-tuning 79.5",
            "Llama-3.2-1B, infosteer-regularization, winogrande: 81.9, plain fine-tuning 82.6",
            "Qwen2.5-7B, infosteer-regularization, siqa: 81.0, plain fine-tuning 81.5",
        ),
    ),
    Fault(
        "Tables 6, 7",
        "3 of 192 steered cells do not beat plain fine-tuning.",
        (
            "Qwen2.5-1.5B, infosteer-surrogate-guided, openbookqa: 79.7, plain fine-tuning 81.0",
            "Qwen2.5-1.5B, infosteer-surrogate-entropy-max, openbookqa: 78.9, plain fine-tuning 81.0",
            "Llama-3.2-1B, infosteer-surrogate-entropy-max, winogrande: 82.5, plain fine-tuning 82.6",
        ),
    ),
    Fault("Tables 1, 6, 7", "Llama-3-8B sft on hellaswag is 93.5 in Table 1 and 95.5 in Tables 6 and 7."),
    Fault(
        "Table 3",
        "1 of 10 steered cells do not beat plain fine-tuning.",
        ("infosteer-regularization, linguistic: 77.3, plain fine-tuning 77.9",),
    ),
    Fault(
        "Tables 2, 3, 4, 8",
        "The model behind these tables is not named, so none of their numbers can be redone.",
    ),
    Fault(
        "Tables 2, 8",
        "Their average accuracies are those of none of Table 1's models over its eight tasks.",
        ("base: 71.4; Table 1's six are 72.8 to 81.8", "sft: 72.6; Table 1's six are 77.6 to 86.0"),
    ),
    Fault(
        "Table 8",
        "It speaks of 24 layers; none of the paper's six models has as many.",
        ("Qwen2.5-1.5B: 28, Qwen2.5-7B: 28, Llama-3.2-1B: 16, Llama-3-8B: 32, Gemma-2-2B: 26, Gemma-2-9B: 42",),
    ),
    Fault(
        "Tables 3, 4",
        "Which tasks are in Table 3's five types is not said. Its math column equals Table 4's GSM8K column in all 4 "
        "rows, so that type seems to be GSM8K alone.",
    ),
    Fault("Table 4", "The mean over data sets out of distribution leaves AQuA out, without a reason."),
    Fault("Everywhere", "No test of significance; three runs were averaged, and the tables hold no spread."),
    Fault("Everywhere", "No figure says what a method costs in time or memory."),
    Fault("Everywhere", "Strengths were chosen on data that the paper does not name."),
)


def fault_lines() -> list[str]:
    """The faults as a Markdown list."""
    lines: list[str] = []
    for fault in FAULTS:
        lines.append(f"- **{fault.where}.** {fault.what}")
        lines += [f"    - {cell}" for cell in fault.cells]
    return lines
