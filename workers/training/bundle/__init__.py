"""Train on another machine: pack a run's inputs and the resulting pair into files of bounded size."""
