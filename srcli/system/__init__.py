"""The machine: its files, its processors, and what is kept between runs."""
