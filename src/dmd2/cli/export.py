"""Write a run's text-to-image student as a folder that diffusers loads without this program.

usage: dmd2 export run=DIR out=DIR [weights=NAME] [source=PIPELINE]

  run      A run's directory, e.g. runs/text2digits_dmd2_4step/latest.
  out      The folder to write: unet/, scheduler/ and the rest of the pipeline, README.md, which
           shows how to sample,
           and of a run with LoRA its weights alone in lora/.
  weights  Which of the run's averages, or "raw", or a generator's .safetensors; the first average,
           if left alone.
  source   The teacher's pipeline, a folder or a name on the hub, for autoencoder, text encoder and
           tokenizer; where
           the run's text encoder comes from, if left alone.
"""

from pathlib import Path

from omegaconf import DictConfig

from dmd2.cli.verbs import verb_of_options
from dmd2.runs.export import export
from dmd2.runs.load import load_student


@verb_of_options("export")
def main(options: DictConfig) -> None:
    """Write the folder."""
    print(
        export(load_student(Path(options.run)), options.weights, options.source, Path(options.out))
    )
