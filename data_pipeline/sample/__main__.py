"""Make the sample world: `python -m data_pipeline.sample --root DIR [--seed N]`."""

from data_pipeline.sample.world import main

if __name__ == "__main__":
    main()
