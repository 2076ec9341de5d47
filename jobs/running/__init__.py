"""A runner: claims jobs, runs them on workers, writes down what became of them."""
