"""Write a run's text-to-image student as a folder that diffusers loads without this program.

usage: dmd2 export run=DIR out=DIR [weights=NAME] [source=PIPELINE]

  run      A run's directory, e.g. runs/text2digits_dmd2_4step/latest.
  out      The folder to write: unet/ or transformer/, scheduler/ and the rest of the pipeline;
           README.md, which shows how to sample; and of a run with LoRA its weights in lora/.
  weights  One of the run's averages, or "raw", or a generator's .safetensors; by default the first
           average.
  source   The teacher's pipeline, a folder or a name on the hub, for autoencoder, text encoder and
           tokenizer; by default the pipeline of the run's text encoder.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.runs.export import export
from dmd2.runs.load import load_student


def main(options: DictConfig) -> None:
    """Write the folder."""
    # The student is built without weights; `export` reads those that are asked for.
    student = load_student(Path(options.run), trust=options.trust)
    print(export(student, options.weights, options.source, Path(options.out)))
