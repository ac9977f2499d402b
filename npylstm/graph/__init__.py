"""Models as graphs: what they are made of, how they are joined and streamed."""
