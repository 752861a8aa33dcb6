"""One module for each question. What a question is: `benchmarks.side_by_side.question`."""
